//! The conformance story: every verb, on a real database in a directory of its own, with a clock that tests move.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bed;
mod boards;

mod batches;
mod calls;
mod claims;
mod clusters;
mod commands;
mod devices;
mod fencing;
mod files;
mod history;
mod hosts;
mod images;
mod maintenance;
mod networks;
mod nodes;
mod observing;
mod property;
mod quotas;
mod rebuild;
mod reports;
mod settling;
mod tenants;
mod tokens;
