//! A whole fleet in one process: a real control plane over real TLS and a real database, real agents, simulated hosts.
//!
//! Stories live in `tests/`; this crate is what they are told with. Nothing here sleeps for a fixed time: it waits on
//! conditions, with deadlines that a slow machine meets.
#![forbid(unsafe_code)]

pub mod api;
pub mod cell;
pub mod cluster;
pub mod eventually;
pub mod fleet;
pub mod lab;
pub mod lab_host;
pub mod machine;
pub mod process;
pub mod prometheus;

pub use api::{Api, Wanted};
pub use eventually::eventually;
pub use fleet::Fleet;
