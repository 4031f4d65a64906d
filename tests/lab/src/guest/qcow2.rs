//! An empty disk that keeps snapshots inside, without `qemu-img`.

/// An empty disk of one megabyte in QEMU's own format, which internal snapshots need: header, table of reference
/// counts, their only block, and the first table, in clusters of 64 KiB.
pub fn empty_qcow2() -> Vec<u8> {
    const CLUSTER: u64 = 1 << 16;
    let mut image = vec![0; 4 * CLUSTER as usize];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"QFI\xfb");
    put(4, &2u32.to_be_bytes()); // version
    put(20, &16u32.to_be_bytes()); // bits of a cluster
    put(24, &(1u64 << 20).to_be_bytes()); // size of the disk
    put(36, &1u32.to_be_bytes()); // entries of the first table
    put(40, &(3 * CLUSTER).to_be_bytes()); // the first table
    put(48, &CLUSTER.to_be_bytes()); // table of reference counts
    put(56, &1u32.to_be_bytes()); // its clusters
    put(CLUSTER as usize, &(2 * CLUSTER).to_be_bytes());
    for cluster in 0..4 {
        put(2 * CLUSTER as usize + 2 * cluster, &1u16.to_be_bytes());
    }
    image
}
