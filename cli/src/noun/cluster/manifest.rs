//! What an administrator applies to a cluster, as text. The same files that the plane holds a cluster against.

use crate::failure::Result;
use crate::output;

/// In the order in which they have to be applied.
const FILES: [&str; 4] = [
    include_str!("../../../../controlplane/kube/policies/namespace.yaml"),
    include_str!("../../../../controlplane/kube/rbac.yaml"),
    include_str!("../../../../controlplane/kube/policies/nodes.yaml"),
    include_str!("../../../../controlplane/kube/policies/tenants.yaml"),
];

pub fn print() -> Result<()> {
    output::text(&FILES.join("---\n"))
}
