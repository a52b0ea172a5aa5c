//! The device paths on a real kernel: a GPU host in one QEMU process (`cargo xtask lab`, docs/lab.md).
//!
//! `kernel`: the device library alone on that kernel. `fleet`: the host's agent, and a control plane outside. The tests share
//! one lab host, run one after the other in the order of their names, and leave it as they found it.
//!
//! Runs inside `tests/lab/in-namespace.sh`, with CROFT_LAB_IMAGE; elsewhere each test says that it did not run.

mod deaths;
mod fleet;
mod hot;
mod kernel;
mod power;
mod refused;
mod shared;
mod site;
mod table;
