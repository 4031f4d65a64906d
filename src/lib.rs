//! The shell.

pub mod edge;
