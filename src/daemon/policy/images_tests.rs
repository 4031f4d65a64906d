//! Images that name other files.

use std::path::Path;

use super::*;

/// A header of version 3 with these extensions and this name of what lies below.
fn qcow2(backing: &str, extensions: &[(u32, &str)]) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..4].copy_from_slice(MAGIC);
    bytes[4..8].copy_from_slice(&3_u32.to_be_bytes());
    bytes[20..24].copy_from_slice(&16_u32.to_be_bytes());
    bytes[100..104].copy_from_slice(&104_u32.to_be_bytes());
    let mut at = 104;
    for (kind, text) in extensions {
        bytes[at..at + 4].copy_from_slice(&kind.to_be_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        bytes[at + 8..at + 8 + text.len()].copy_from_slice(text.as_bytes());
        at += 8 + text.len().next_multiple_of(8);
    }
    if !backing.is_empty() {
        bytes[8..16].copy_from_slice(&(at as u64 + 8).to_be_bytes());
        bytes[16..20].copy_from_slice(&u32::try_from(backing.len()).unwrap().to_be_bytes());
        bytes[at + 8..at + 8 + backing.len()].copy_from_slice(backing.as_bytes());
    }
    bytes
}

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }

    /// What is opened, one after the other, where everything in the folder may be.
    fn followed(&self, path: &str, usage: Use, ends: bool) -> Result<Vec<(String, Use)>, String> {
        let image = Image { element: "<source>".into(), path: path.into(), usage, ends };
        let opened = std::cell::RefCell::new(Vec::new());
        let judge = |path: &str, usage| {
            let inside = Path::new(path).parent() == Some(self.0.path());
            opened.borrow_mut().push((path.rsplit('/').next().unwrap().to_owned(), usage));
            if inside { Ok(()) } else { Err("not here".into()) }
        };
        follow(&image, judge, || Err("formats".into()))?;
        Ok(opened.into_inner())
    }
}

#[test]
fn links_of_a_chain_are_followed_as_they_name_each_other() {
    let host = Host::new();
    let raw = host.file("raw", b"raw");
    host.file("base", &qcow2(&raw, &[(BACKING_FORMAT, "raw")]));
    let top = host.file("top", &qcow2("base", &[(BACKING_FORMAT, "qcow2"), (7, "x")]));
    let links = vec![("base".to_owned(), Use::Read), ("raw".to_owned(), Use::Read)];
    assert_eq!(host.followed(&top, Use::Write, false), Ok(links.clone()));
    assert_eq!(host.followed(&top, Use::Write, true), Ok(Vec::new()), "the document says what lies below");
    // Without a format libvirt looks for itself.
    let unsaid = host.file("unsaid", &qcow2("base", &[]));
    assert_eq!(host.followed(&unsaid, Use::Read, false), Ok(links));
    let last = host.file("last", &qcow2("raw", &[]));
    assert_eq!(host.followed(&last, Use::Read, false), Ok(vec![("raw".to_owned(), Use::Read)]));
}

#[test]
fn a_file_with_the_data_is_written_as_the_image_is() {
    let host = Host::new();
    for (usage, ends) in [(Use::Write, true), (Use::Write, false), (Use::Read, false)] {
        let image = host.file("image", &qcow2("", &[(DATA_FILE, "data")]));
        assert_eq!(host.followed(&image, usage, ends), Ok(vec![("data".to_owned(), usage)]));
    }
    let image = host.file("image", &qcow2("", &[(DATA_FILE, "/etc/shadow")]));
    assert!(host.followed(&image, Use::Write, true).unwrap_err().contains("\"/etc/shadow\": not here"));
}

#[test]
fn what_names_files_of_others_is_refused_by_what_it_names() {
    let host = Host::new();
    for (bytes, word) in [
        (qcow2("/etc/shadow", &[]), "/etc/shadow"),
        (qcow2("../../etc/shadow", &[(BACKING_FORMAT, "raw")]), "etc/shadow"),
        (qcow2("json:{\"driver\":\"file\"}", &[]), "formats"),
        (qcow2("nbd://10.0.0.1/x", &[]), "formats"),
        (qcow2("file:/etc/shadow", &[]), "formats"),
        (qcow2("b", &[(BACKING_FORMAT, "vmdk")]), "vmdk"),
        // libvirt reads these whatever they begin with.
        ([b"RAW!", &qcow2("/etc/shadow", &[])[4..]].concat(), "/etc/shadow"),
    ] {
        let image = host.file("image", &bytes);
        let told = host.followed(&image, Use::Write, false);
        assert!(told.clone().unwrap_err().contains(word), "{told:?}");
    }
    let mut far = qcow2("/etc/shadow", &[]);
    far[8] = 1;
    let image = host.file("far", &far);
    assert!(host.followed(&image, Use::Write, false).unwrap_err().contains("formats"));
    let circle = host.file("circle", &qcow2("circle", &[(BACKING_FORMAT, "qcow2")]));
    assert!(host.followed(&circle, Use::Write, false).unwrap_err().contains("above each other"));
    assert!(host.followed("/dev/zero", Use::Write, false).unwrap_err().contains("formats"));
    assert_eq!(host.followed(&host.path("missing"), Use::Write, false), Ok(Vec::new()));
}

/// What QEMU itself writes is read as QEMU means it.
#[test]
fn images_of_qemus_own_tool_are_read() {
    let host = Host::new();
    let base = host.file("base", &[0; 4096]);
    for compat in ["0.10", "1.1"] {
        let image = host.path("image");
        let made = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b", &base, "-o"])
            .args([&format!("compat={compat}"), &image])
            .status()
            .expect("qemu-img is there: apt-get install qemu-utils");
        assert!(made.success());
        assert_eq!(host.followed(&image, Use::Write, false), Ok(vec![("base".to_owned(), Use::Read)]));
    }
    let image = host.path("split");
    let made = std::process::Command::new("qemu-img")
        .args([
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            &format!("data_file={}", host.path("data")),
            &image,
            "1M",
        ])
        .status();
    assert!(made.unwrap().success());
    assert_eq!(host.followed(&image, Use::Write, false), Ok(vec![("data".to_owned(), Use::Write)]));
}

/// Whatever an image begins with, reading it ends and asks for no more than there is.
#[test]
fn no_header_is_read_beyond_its_end() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for _ in 0..20_000 {
        let mut bytes = qcow2("base", &[(DATA_FILE, "data"), (BACKING_FORMAT, "raw")]);
        for _ in 0..random() % 16 {
            let at = usize::try_from(random() % 200).unwrap();
            bytes[at] = u8::try_from(random() % 256).unwrap();
        }
        bytes.truncate(usize::try_from(random() % 513).unwrap());
        let _ = read(&bytes);
    }
}
