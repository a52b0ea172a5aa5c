//! Instances that become nodes of a Kubernetes cluster: what a node is called and carries ([`node`]), its life ([`machine`]),
//! whose certificate signing requests are granted ([`csr`]), what its guest is given to join with ([`seed`]), what is done when it is
//! not well ([`keep`]) and what its Node's events tell of it ([`tidings`]), and what is asked of a cluster
//! ([`ports`], [`cluster`], at an address that is a [`server`]'s). Pure; what speaks to a cluster is `croft-kube`.

pub mod cluster;
pub mod csr;
mod fault;
pub mod keep;
pub mod machine;
pub mod node;
pub mod ports;
pub mod seed;
pub mod server;
pub mod tidings;
