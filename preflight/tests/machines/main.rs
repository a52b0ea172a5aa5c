//! Machines as trees of files, and what is said of them: hosts of the lab, GPU servers as captured, odd ones, a container.

#![expect(clippy::unwrap_used, reason = "the helpers of a test are part of the test")]

mod bare;
mod container;
mod gpu_server;
mod lab;
mod root;
mod software;
mod table;
