//! A real Kubernetes control plane for tests: etcd, API server, controller manager and scheduler as processes of this test,
//! with certificates of their own, on an address of the caller's choice, gone when the test is.
//!
//! It knows nothing of Croft. What it is: upstream's programs, with the flags that a cluster needs for kubelets to join by TLS
//! bootstrap, and nobody who approves their certificates (`csrapproving` is off): that is for the test, or for what it tests.
//! What it is not: no node, no network between pods, no DNS; nothing outlives the process.
//!
//! `cargo xtask kubernetes` provides the programs; the lane names their directory in CROFT_KUBERNETES_BIN.
#![forbid(unsafe_code)]

mod authority;
mod control_plane;
mod csr;
mod flags;
mod kubeconfig;
mod kubectl;
mod server;
mod wait;

use std::path::PathBuf;

pub use authority::{Authority, Identity};
pub use control_plane::{ControlPlane, Options};
pub use csr::{KubeletCsr, Signer};
pub use kubeconfig::{Credentials, kubeconfig};
pub use kubectl::Kubectl;
pub use wait::{DEADLINE, until, within};

/// Where the programs are; none in a run that is not of the kubernetes lane.
pub fn programs() -> Option<PathBuf> {
    std::env::var_os("CROFT_KUBERNETES_BIN").filter(|dir| !dir.is_empty()).map(PathBuf::from)
}
