//! Instances that become nodes of a Kubernetes cluster: what a node is called and carries ([`node`]), and whose certificate
//! signing requests are granted ([`csr`]). Pure; what speaks to a cluster is `croft-kube`.

pub mod csr;
pub mod machine;
pub mod node;
