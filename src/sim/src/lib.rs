//! A told world behind the same port: scenarios, faults, invariants
