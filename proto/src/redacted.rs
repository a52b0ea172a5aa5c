//! What a log says of messages that hold a secret.

use std::fmt;

use crate::v1::{Cluster, cluster};

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, metadata, description, tenants, node_server, cluster_dns, status, credential } = self;
        f.debug_struct("Cluster")
            .field("name", name)
            .field("metadata", metadata)
            .field("description", description)
            .field("tenants", tenants)
            .field("credential", credential)
            .field("node_server", node_server)
            .field("cluster_dns", cluster_dns)
            .field("status", status)
            .finish()
    }
}

impl fmt::Debug for cluster::Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kubeconfig(_) => "Kubeconfig(…)",
            Self::InCluster(_) => "InCluster",
        })
    }
}

impl fmt::Debug for cluster::InCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InCluster")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_is_not_printed() {
        let credential = Some(cluster::Credential::Kubeconfig("users: secret".to_owned()));
        let cluster = Cluster { name: "clusters/prod".to_owned(), credential, ..Cluster::default() };
        let request = crate::v1::RegisterClusterRequest { cluster: Some(cluster), ..Default::default() };
        let text = format!("{request:?}");
        assert!(text.contains("clusters/prod") && !text.contains("secret"), "{text}");
    }
}
