//! The durable record of runs, endings and evidence (SQLite)
