//! Instances that become nodes of a Kubernetes cluster: what a node is called and carries ([`node`]), its life ([`machine`]),
//! whose certificate signing requests are granted ([`csr`]), and what is asked of a cluster ([`ports`], [`cluster`]). Pure; what
//! speaks to a cluster is `croft-kube`.

pub mod cluster;
pub mod csr;
mod fault;
pub mod machine;
pub mod node;
pub mod ports;
