//! The real binary against a scripted plane, over real TLS and gRPC: what a user would notice.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod apply;
mod clusters;
mod devices;
mod errors;
mod labels;
mod maintenance;
mod output;
mod preflight;
mod rebuild;
mod support;
mod terminal;
mod tunnels;
mod wait;
mod watch;
