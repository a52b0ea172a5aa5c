//! Clusters of a fleet, and the kubelets in its guests.

use std::collections::BTreeMap;

use croft_core::audit;
use croft_core::join::node::{Effect, Taint};
use croft_core::meta::{Labels, Meta};
use croft_core::time::Clock as _;
use croft_proto::v1;
use uuid::Uuid;

use super::Fleet;
use crate::cluster::Ticket;

impl Fleet {
    /// One that tenant `acme` may join, by its name.
    pub async fn register_cluster(&self, id: &str) -> String {
        self.register_cluster_at(id, "a kubeconfig").await
    }

    /// The platform's would be at any address; a tenant's may not be at loopback.
    pub async fn register_cluster_at(&self, id: &str, kubeconfig: &str) -> String {
        let now = self.clock.now();
        let meta = Meta::new(Uuid::now_v7().to_string(), Labels::new(), Labels::new(), now);
        let cluster = croft_core::cluster::Cluster {
            meta,
            tenant: None,
            id: id.to_owned(),
            description: String::new(),
            tenants: vec!["acme".into()],
            credential_digest: String::new(),
            node_server: String::new(),
            cluster_dns: vec!["10.96.0.10".parse().expect("an address")],
            status: croft_core::cluster::Status::default(),
        };
        let call = audit::Call {
            principal: croft_core::access::Principal::Local,
            method: "/test/Cluster",
            request_id: String::new(),
            body_digest: [0; 32],
            peer: String::new(),
            validate_only: false,
        };
        let made = self.store().cluster_create(&call, cluster, Some(kubeconfig.to_owned())).await;
        let name = made.expect("a cluster").into_inner().name();
        // Written behind the plane's back, it would be found at the next look: a change by a call is heard at once.
        let cluster = v1::Cluster { name: name.clone(), description: "of a story".to_owned(), ..Default::default() };
        let request = v1::UpdateClusterRequest { cluster: Some(cluster), ..Default::default() };
        self.api.clusters.clone().update_cluster(request).await.expect("a description");
        name
    }

    /// The kubelets of the guests that run do what they can now. `certificates`: of those that have their own, by the node's name
    /// and the disk that it lies on.
    pub fn kubelets(&self, certificates: &mut BTreeMap<String, bool>) {
        for (sim, uid) in
            self.hosts.values().flat_map(|member| member.sim.running().into_iter().map(|uid| (&member.sim, uid)))
        {
            let (Some(seed), Some(disk)) = (sim.seed(uid), sim.disk(uid)) else { continue };
            let Some(run) = seed.files.get("croft-join.env") else {
                // What it was told before is on its disk.
                let kept = format!("-{}/{disk}", &uid.to_string()[28..]);
                if let Some((known, has)) = certificates.iter_mut().find(|(known, _)| known.ends_with(&kept)) {
                    let name = known.split_once('/').expect("a name and a disk").0;
                    self.cluster.kubelet(name, &format!("croft://acme/{uid}"), None, has);
                }
                continue;
            };
            let value = |key: &str| {
                let start = format!("{key}='");
                let line = run.lines().find_map(|line| line.strip_prefix(&start)?.strip_suffix('\''));
                line.expect(key).to_owned()
            };
            let (name, token) = (value("CROFT_NODE_NAME"), value("CROFT_TOKEN"));
            let (id, secret) = token.split_once('.').expect("a token");
            let ticket =
                Ticket { id: id.to_owned(), secret: secret.to_owned(), taints: taints(&value("CROFT_TAINTS")) };
            let has = certificates.entry(format!("{name}/{disk}")).or_default();
            self.cluster.kubelet(&name, &value("CROFT_PROVIDER_ID"), Some(&ticket), has);
        }
    }
}

/// `key=value:Effect`, as kubelets take them.
fn taints(text: &str) -> Vec<Taint> {
    let one = |text: &str| {
        let (rest, effect) = text.rsplit_once(':').expect("an effect");
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        let effect = match effect {
            "NoSchedule" => Effect::NoSchedule,
            "NoExecute" => Effect::NoExecute,
            _ => Effect::PreferNoSchedule,
        };
        Taint { key: key.to_owned(), value: value.to_owned(), effect }
    };
    text.split(',').map(one).collect()
}
