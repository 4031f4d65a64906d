//! Evidence that libvirt does not give
