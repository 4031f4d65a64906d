//! The only room that speaks libvirt, and the only one with unsafe code
