//! Instances that become nodes of a Kubernetes cluster: what a node is called and carries ([`node`]), its life ([`machine`]),
//! whose certificate signing requests are granted ([`csr`]), what its guest is given to join with ([`seed`]), and what is asked of a
//! cluster ([`ports`], [`cluster`]). Pure; what speaks to a cluster is `croft-kube`.

pub mod cluster;
pub mod csr;
mod fault;
pub mod machine;
pub mod node;
pub mod ports;
pub mod seed;
