//! UpdateCluster: who may join, how nodes reach it, the words about it, and its credential. What joined stays joined.

use croft_core::audit::Call;
use croft_core::cluster::Cluster;
use croft_core::validate::Violations;
use croft_core::{Error, Result};
use croft_proto::v1;
use croft_store::NewCredential;

use super::owned;
use super::trial::trial;
use crate::api::Api;
use crate::convert::cluster::{Credential, Said, out};
use crate::convert::meta;
use crate::mask::Fields;

const FIELDS: Fields = Fields {
    noun: "cluster",
    mutable: &[
        "description",
        "tenants",
        "kubeconfig",
        "in_cluster",
        "node_server",
        "cluster_dns",
        "metadata.labels",
        "metadata.annotations",
    ],
    immutable: &[("name", "it is what the cluster is known by")],
    output_only: &["status"],
};

pub async fn update(api: Api, call: Call, request: v1::UpdateClusterRequest) -> Result<v1::Cluster> {
    let wire = request.cluster.unwrap_or_default();
    let chosen = FIELDS.choose(request.update_mask)?;
    let mut violations = Violations::new();
    let sent = meta::into("cluster", wire.metadata, &mut violations);
    let has_dns = !wire.cluster_dns.is_empty();
    let said = Said::read(wire.description, &wire.tenants, wire.node_server, &wire.cluster_dns, &mut violations);
    // It is never read back, so to send nothing of it means to leave it, but where it is named.
    let given = wire.credential.is_some();
    let credential = Credential::read(wire.credential, &mut violations)
        .filter(|_| chosen.writes("kubeconfig", true) || chosen.writes("in_cluster", true));
    let named = !chosen.is_whole() && (chosen.writes("kubeconfig", false) || chosen.writes("in_cluster", false));
    violations.check(given || !named, "cluster.kubeconfig", "is named in update_mask and not set");
    violations.finish()?;

    if let Some(done) = api.store().cluster_answered(&call).await? {
        return Ok(out(&done));
    }
    let name = wire.name;
    let before = owned(&api, &call.principal, "cluster.name", &name).await?;
    let mut violations = Violations::new();
    said.check_owner(before.tenant.as_ref(), &mut violations);
    violations.finish()?;
    let etag = sent.etag.clone();
    before.meta.check_etag(&etag, &name)?;
    let credential = match credential {
        None => None,
        Some(credential) => {
            let status = trial(&api, &name, before.tenant.as_ref(), &credential, &before.status).await?;
            Some(NewCredential { kubeconfig: credential.into_kubeconfig(), status })
        }
    };
    let change = move |cluster: &mut Cluster| {
        if chosen.writes("description", !said.description.is_empty()) {
            cluster.description = said.description;
        }
        if chosen.writes("tenants", !said.tenants.is_empty()) {
            cluster.tenants = said.tenants;
        }
        if chosen.writes("node_server", !said.node_server.is_empty()) {
            cluster.node_server = said.node_server;
        }
        if chosen.writes("cluster_dns", has_dns) {
            cluster.cluster_dns = said.cluster_dns;
        }
        sent.write(&chosen, &mut cluster.meta);
        Ok::<(), Error>(())
    };
    let (tenant, id) = (before.tenant.as_ref(), &before.id);
    let done = api.store().cluster_update(&call, tenant, id, &etag, credential, change).await?;
    api.deps.wake.clusters();
    Ok(out(&done.into_inner()))
}
