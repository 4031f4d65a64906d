//! A real bus with a systemd and a logind of our own on it.
