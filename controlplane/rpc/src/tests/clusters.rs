//! Clusters: registered only if they work, seen by who may join, and never shown with what opens them.

use croft_core::Timestamp;
use croft_core::join::cluster::{Fault, Policies, Probe};
use croft_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use v1::cluster::{Credential, InCluster};
use v1::clusters_client::ClustersClient;
use v1::token::Role;

use super::memory::{good, right};
use super::plane::{Connection, Plane};

const SERVER: &str = "https://prod:6443";

fn kubeconfig(text: &str) -> Option<Credential> {
    Some(Credential::Kubeconfig(text.to_owned()))
}

fn request(parent: &str, id: &str, credential: Option<Credential>) -> v1::RegisterClusterRequest {
    v1::RegisterClusterRequest {
        parent: parent.to_owned(),
        cluster_id: id.to_owned(),
        cluster: Some(v1::Cluster { credential, ..Default::default() }),
        ..Default::default()
    }
}

fn prod(tenants: &[&str]) -> v1::RegisterClusterRequest {
    let mut request = request("", "prod", kubeconfig(&format!("{SERVER} s3cret")));
    request.cluster.as_mut().unwrap().tenants = tenants.iter().map(|id| format!("tenants/{id}")).collect();
    request
}

struct As(ClustersClient<Connection>);

impl As {
    async fn register(&self, request: v1::RegisterClusterRequest) -> Result<v1::Cluster, Status> {
        self.0.clone().register_cluster(request).await.map(tonic::Response::into_inner)
    }

    async fn get(&self, name: &str) -> Result<v1::Cluster, Status> {
        let request = v1::GetClusterRequest { name: name.to_owned() };
        self.0.clone().get_cluster(request).await.map(tonic::Response::into_inner)
    }

    async fn list(&self, parent: &str) -> Vec<String> {
        let request = v1::ListClustersRequest { parent: parent.to_owned(), ..Default::default() };
        let clusters = self.0.clone().list_clusters(request).await.unwrap().into_inner().clusters;
        clusters.into_iter().map(|cluster| cluster.name).collect()
    }

    async fn update(&self, cluster: v1::Cluster, paths: &[&str]) -> Result<v1::Cluster, Status> {
        let mask = prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() };
        let update_mask = Some(mask).filter(|mask| !mask.paths.is_empty());
        let request = v1::UpdateClusterRequest { cluster: Some(cluster), update_mask, ..Default::default() };
        self.0.clone().update_cluster(request).await.map(tonic::Response::into_inner)
    }

    async fn delete(&self, name: &str) -> Result<(), Status> {
        let request = v1::DeleteClusterRequest { name: name.to_owned(), ..Default::default() };
        self.0.clone().delete_cluster(request).await.map(drop)
    }
}

fn admin(plane: &Plane) -> As {
    As(ClustersClient::new(plane.admin()))
}

async fn of(plane: &Plane, tenant: &str) -> As {
    let token = plane.token(&format!("{tenant}-admin"), Role::TenantAdmin, &format!("tenants/{tenant}")).await;
    As(ClustersClient::new(plane.by(&token)))
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

fn conditions(cluster: &v1::Cluster) -> Vec<String> {
    let status = cluster.status.as_ref().unwrap();
    status.conditions.iter().map(|one| format!("{}={}", one.r#type, one.status().as_str_name())).collect()
}

#[tokio::test]
async fn a_cluster_that_works_is_kept_and_its_credential_never_shown() {
    let plane = Plane::new().await;
    plane.clusters.put(SERVER, Ok(good()));
    let made = admin(&plane).register(prod(&[])).await.unwrap();
    let status = made.status.clone().unwrap();
    assert_eq!((status.server.as_str(), status.version.as_str()), (SERVER, "v1.36.3"));
    assert_eq!(status.ca_pins, ["sha256:p"]);
    assert!(status.credential_expire_time.is_some() && status.answer_time.is_some());
    let all =
        ["Reachable", "CredentialValid", "RightsSufficient", "PoliciesInstalled"].map(|kind| format!("{kind}=TRUE"));
    assert_eq!(conditions(&made)[..4], all);
    assert_eq!(made.credential, None);
    assert_eq!(admin(&plane).get("clusters/prod").await.unwrap(), made);
    assert_eq!(admin(&plane).register(prod(&[])).await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(plane.clusters.probes.lock().unwrap().len(), 1, "a name that is taken is no reason to ask");

    let rows = plane.audit().await;
    let row = |result: &str| rows.iter().any(|row| row.0.ends_with("/RegisterCluster") && row.1 == result);
    assert!(row("OK") && row("ALREADY_EXISTS"), "{rows:?}");
    assert!(rows.iter().all(|row| row.2 != "clusters/prod" || !row.2.contains("s3cret")));
    assert_eq!(plane.store.consistency().await.unwrap(), [""; 0]);
    let kept = plane.store.cluster_get(None, "prod").await.unwrap().unwrap();
    assert!(!format!("{kept:?}").contains("s3cret"));
    let access = plane.store.cluster_access(&kept).await.unwrap();
    assert_eq!(access, croft_core::join::cluster::Access::Kubeconfig(format!("{SERVER} s3cret")));
}

#[tokio::test]
async fn what_does_not_work_is_refused_by_the_name_of_what_is_missing() {
    let plane = Plane::new().await;
    let server = || SERVER.to_owned();
    let poor = Probe { missing: vec![right("create", "secrets")], ..good() };
    for (seen, expected, part) in [
        (Err(Fault::Unreachable { server: server(), why: "no route".into() }), "CLUSTER_UNREACHABLE", "no route"),
        (
            Err(Fault::Certificate { server: server(), why: "it is not signed by the CA".into() }),
            "CLUSTER_CERTIFICATE_REFUSED",
            "not signed by the CA",
        ),
        (
            Err(Fault::Unauthorized { server: server(), expires: Some(Timestamp(1)) }),
            "CLUSTER_CREDENTIAL_REFUSED",
            "does not know the credential",
        ),
        (Ok(poor), "CLUSTER_RIGHTS_MISSING", "create secrets in namespace kube-system"),
    ] {
        plane.clusters.put(SERVER, seen);
        let refused = admin(&plane).register(prod(&[])).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, expected));
        assert!(refused.message().contains(part) && refused.message().contains(SERVER), "{refused}");
    }
    let evil = admin(&plane).register(request("", "prod", kubeconfig("evil"))).await.unwrap_err();
    assert!(evil.message().starts_with("cluster.kubeconfig.users[x].user.exec: runs a command"), "{evil}");
    let none = admin(&plane).register(request("", "prod", None)).await.unwrap_err();
    assert!(none.message().starts_with("cluster.kubeconfig: set kubeconfig"), "{none}");
    assert_eq!(admin(&plane).list("").await, [""; 0]);

    // Without its policies a cluster works, and is said not to keep tenants apart.
    plane.clusters.put(SERVER, Ok(Probe { policies: Policies::Lacking(vec!["x is missing".into()]), ..good() }));
    let made = admin(&plane).register(prod(&[])).await.unwrap();
    assert!(conditions(&made).contains(&"PoliciesInstalled=FALSE".to_owned()));
}

#[tokio::test]
async fn no_tenant_learns_of_anothers_cluster() {
    let plane = Plane::new().await;
    for (id, parent) in [("a", ""), ("child", "tenants/a"), ("b", "")] {
        plane.tenant(id, parent).await;
    }
    let (a, child, b) = (of(&plane, "a").await, of(&plane, "child").await, of(&plane, "b").await);
    for server in [SERVER, "https://own"] {
        plane.clusters.put(server, Ok(good()));
    }
    admin(&plane).register(prod(&["a"])).await.unwrap();
    let own = a.register(request("tenants/a", "own", kubeconfig("https://own x"))).await.unwrap();
    assert_eq!(own.name, "tenants/a/clusters/own");
    assert_eq!(*plane.clusters.opened.lock().unwrap(), ["Kubeconfig(…)", "TenantsKubeconfig(…)"]);
    assert_eq!(plane.clusters.probes.lock().unwrap().len(), 2);

    for (who, seen) in [(&a, true), (&child, true), (&b, false)] {
        for name in ["clusters/prod", "tenants/a/clusters/own"] {
            let got = who.get(name).await;
            assert_eq!(got.as_ref().map_err(Status::code).is_ok(), seen, "{name}: {got:?}");
            if !seen {
                let nothing = who.get("clusters/no").await.unwrap_err();
                assert_eq!(got.unwrap_err().message().replace(name, "clusters/no"), nothing.message());
            }
        }
        let all: &[&str] = if seen { &["clusters/prod", "tenants/a/clusters/own"] } else { &[] };
        assert_eq!(who.list("").await, all);
    }
    assert_eq!(admin(&plane).list("tenants/b").await, [""; 0]);
    assert_eq!(admin(&plane).list("tenants/child").await, ["clusters/prod", "tenants/a/clusters/own"]);

    // Shared is not owned.
    let words = |name: &str| v1::Cluster { name: name.into(), description: "mine".into(), ..Default::default() };
    for (who, name, code) in [
        (&a, "clusters/prod", Code::PermissionDenied),
        (&child, "tenants/a/clusters/own", Code::PermissionDenied),
        (&b, "tenants/a/clusters/own", Code::NotFound),
    ] {
        assert_eq!(who.update(words(name), &[]).await.unwrap_err().code(), code, "{name}");
        assert_eq!(who.delete(name).await.unwrap_err().code(), code, "{name}");
    }
    assert_eq!(
        b.register(request("tenants/a", "x", kubeconfig("https://own x"))).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(a.register(prod(&[])).await.unwrap_err().code(), Code::PermissionDenied);
    let inside = Some(Credential::InCluster(InCluster {}));
    let refused = a.register(request("tenants/a", "in", inside)).await.unwrap_err();
    assert!(refused.message().starts_with("cluster.in_cluster"), "{refused}");

    // Who else is named is not shown, and who is named no more sees nothing.
    let both = v1::Cluster {
        name: "clusters/prod".into(),
        tenants: vec!["tenants/b".into(), "tenants/child".into()],
        ..Default::default()
    };
    admin(&plane).update(both.clone(), &["tenants"]).await.unwrap();
    assert_eq!(a.get("clusters/prod").await.unwrap().tenants, ["tenants/child"]);
    assert_eq!(b.get("clusters/prod").await.unwrap().tenants, ["tenants/b"]);
    admin(&plane).update(v1::Cluster { tenants: Vec::new(), ..both }, &["tenants"]).await.unwrap();
    assert_eq!(a.list("").await, ["tenants/a/clusters/own"]);
    a.delete("tenants/a/clusters/own").await.unwrap();
    assert_eq!(plane.store.consistency().await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn an_update_writes_what_its_mask_names_and_tries_a_new_credential() {
    let plane = Plane::new().await;
    plane.clusters.put(SERVER, Ok(good()));
    let made = admin(&plane).register(prod(&[])).await.unwrap();
    let etag = made.metadata.clone().unwrap().etag;
    let new = |text: &str| v1::Cluster { credential: kubeconfig(text), description: "x".into(), ..made.clone() };
    plane.clusters.put("https://moved", Err(Fault::Unreachable { server: "https://moved".into(), why: "y".into() }));
    let refused = admin(&plane).update(new("https://moved z"), &["kubeconfig"]).await.unwrap_err();
    assert_eq!(reason(&refused), "CLUSTER_UNREACHABLE");
    plane.clusters.put("https://moved", Ok(Probe { version: "v1.37.0".into(), ..good() }));
    let moved = admin(&plane).update(new("https://moved z"), &["kubeconfig"]).await.unwrap();
    let status = moved.status.clone().unwrap();
    assert_eq!((status.server.as_str(), status.version.as_str()), ("https://moved", "v1.37.0"));
    assert_eq!(moved.description, "", "not named");
    assert_ne!(moved.metadata.unwrap().etag, etag);
    let stale = admin(&plane).update(new("https://moved z"), &["description"]).await.unwrap_err();
    assert_eq!(reason(&stale), "ETAG_MISMATCH");
    assert_eq!(plane.store.consistency().await.unwrap(), [""; 0], "the old credential is gone");

    let bare = v1::Cluster { name: "clusters/prod".into(), ..Default::default() };
    for (cluster, paths, part) in [
        (bare.clone(), &["kubeconfig"][..], "is named in update_mask and not set"),
        (bare.clone(), &["status"], "output only"),
        (v1::Cluster { node_server: "10.0.0.1".into(), ..bare.clone() }, &[], "cluster.node_server"),
        (v1::Cluster { tenants: vec!["tenants/no".into()], ..bare.clone() }, &[], "tenants/no does not exist"),
    ] {
        let refused = admin(&plane).update(cluster, paths).await.unwrap_err();
        assert!(refused.code() == Code::InvalidArgument && refused.message().contains(part), "{part}: {refused}");
    }
    let reach =
        v1::Cluster { node_server: "https://10.0.0.9:6443".into(), cluster_dns: vec!["10.96.0.10".into()], ..bare };
    let probes = plane.clusters.probes.lock().unwrap().len();
    let updated = admin(&plane).update(reach.clone(), &[]).await.unwrap();
    assert_eq!((updated.node_server, updated.cluster_dns), (reach.node_server, reach.cluster_dns));
    assert_eq!(plane.clusters.probes.lock().unwrap().len(), probes, "no credential, no question");
}

#[tokio::test]
async fn the_same_cluster_under_a_second_name_is_refused() {
    let plane = Plane::new().await;
    plane.tenant("a", "").await;
    for server in [SERVER, "https://by-another-address"] {
        plane.clusters.put(server, Ok(Probe { identity: Some("u1".into()), ..good() }));
    }
    admin(&plane).register(prod(&[])).await.unwrap();
    let second = || kubeconfig("https://by-another-address x");
    let refused = admin(&plane).register(request("", "again", second())).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "ALREADY_EXISTS"));
    assert!(refused.message().contains("registered already, as clusters/prod"), "{refused}");
    let hidden = of(&plane, "a").await.register(request("tenants/a", "mine", second())).await.unwrap_err();
    assert_eq!(hidden.code(), Code::AlreadyExists);
    assert!(!hidden.message().contains("prod") && hidden.message().contains("ask the platform"), "{hidden}");
}

#[tokio::test]
async fn retries_and_dry_runs() {
    let plane = Plane::new().await;
    plane.clusters.put(SERVER, Ok(good()));
    let dry = v1::RegisterClusterRequest { validate_only: true, ..prod(&[]) };
    assert_eq!(admin(&plane).register(dry).await.unwrap().name, "clusters/prod");
    assert_eq!(admin(&plane).list("").await, [""; 0]);
    assert_eq!(plane.store.consistency().await.unwrap(), [""; 0], "no secret without its cluster");

    let once = v1::RegisterClusterRequest { request_id: "r1".into(), ..prod(&[]) };
    let made = admin(&plane).register(once.clone()).await.unwrap();
    plane.clusters.put(SERVER, Err(Fault::Unreachable { server: SERVER.into(), why: "gone".into() }));
    assert_eq!(admin(&plane).register(once).await.unwrap(), made, "also while the cluster is away");
    let other = v1::RegisterClusterRequest { request_id: "r1".into(), ..prod(&["x"]) };
    assert_eq!(reason(&admin(&plane).register(other).await.unwrap_err()), "REQUEST_ID_REUSED");

    let delete =
        v1::DeleteClusterRequest { name: "clusters/prod".into(), request_id: "d1".into(), ..Default::default() };
    for _ in 0..2 {
        admin(&plane).0.delete_cluster(delete.clone()).await.unwrap();
    }
    assert_eq!(admin(&plane).delete("clusters/prod").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(plane.store.consistency().await.unwrap(), [""; 0]);
}
