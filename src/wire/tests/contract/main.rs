//! The contract as managers meet it: whole replies, held against recorded ones, against `proto-schemas/verbs.toml`,
//! against the engine's strict casts and against Python's own reader.

mod board;
mod engine;
mod golden;
mod mom;
mod outcome;
mod python;
mod samples;
mod schema;
