//! The control plane, put together: arguments, keys, one TLS port for everybody, metrics, and the local admin commands.
//!
//! Everything that decides is in the crates below (`croft_core`, `croft_store`, `croft_engine`, `croft_rpc`); this is the
//! only one that knows them all, and the only one that knows files, sockets, certificates and signals.
#![forbid(unsafe_code)]

pub mod admin;
mod bootstrap;
pub mod config;
pub mod datadir;
mod files;
pub mod logs;
pub mod metrics;
pub mod pki;
mod plane;
mod run;
pub mod serve;
mod signer;
#[cfg(test)]
mod stories;
mod wiring;

pub use config::{Arguments, Command, Config};
pub use plane::Plane;
pub use run::run;
