//! The manager's side: reads old and new hosts
