//! MIG arithmetic against brute force, on every board of `tests/boards`.
#![expect(clippy::unwrap_used, reason = "the helpers of a test are part of the test")]

mod boards;
mod layouts;
mod model;
mod occupancy;
mod traces;
