//! Plans carried out on simulated hosts: what goes wrong, and what is left of it.
#![expect(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod bench;
mod broken_for_good;
mod clients;
mod culprits;
mod cut_short;
mod every_operation_fails;
mod hangs;
mod left_at_work;
#[path = "../sample.rs"]
mod sample;
