//! Everything that knows Kubernetes: what `croft_core::join::ports` asks, said to a real API server.
//!
//! [`KubeClusters`] opens a connection from a kubeconfig ([`access`] says what is refused in one) or as a pod of the cluster.
//! Every call has a deadline ([`connection`]), every answer a limit ([`answer`]), every list ([`list`]) and what is kept of an
//! object ([`wire`]), too: a cluster that a tenant registered is not to be trusted with any of it, nor is its address ([`reach`]).
//! What Croft needs to be granted is in [`manifest`], what it ships to keep tenants apart in [`policy`].
//!
//! Decides nothing: whose request is granted is `croft_core::join::csr`'s to say, when a node is drained the engine's.
#![forbid(unsafe_code)]

mod access;
mod answer;
mod certificate;
mod cluster;
mod connection;
mod csr;
mod drain;
mod event;
mod fault;
mod list;
pub mod manifest;
mod node;
pub mod policy;
mod probe;
mod reach;
mod rights;
mod signing;
mod token;
mod wire;

pub use cluster::KubeClusters;
pub use csr::subject;
pub use ipnet::IpNet as Prefix;
pub use reach::prefix;
