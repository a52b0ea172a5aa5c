//! Clusters: who may join, what becomes of the credential, what is told of them.

use croft_core::access::{Principal, Role};
use croft_core::audit::Call;
use croft_core::cluster::{Cluster, Status, health};
use croft_core::id::{ImageUid, TokenId};
use croft_core::join::cluster::{Access, Anchor, Fault, Policies, Probe};
use croft_core::meta::{Labels, Meta};
use croft_core::{Clock, Error, Reason, Result};
use croft_store::{ClusterScope, NewCredential, Options, Page, Store};
use sqlx::Connection as _;

use crate::bed::{Bed, call, dry, refused, t};

const SECRET: &str = "users: [{name: croft, user: {token: s3cret}}]";

fn anchor(ca: &str) -> Anchor {
    Anchor { server: "https://a:6443".to_owned(), ca: String::new(), ca_pins: vec![ca.to_owned()] }
}

fn probe() -> Probe {
    Probe {
        version: "v1.36.3".to_owned(),
        serving_expires: None,
        ca_expires: None,
        credential_expires: None,
        missing: Vec::new(),
        policies: Policies::Installed,
        certificate_life: None,
        identity: None,
    }
}

fn seen(bed: &Bed, ca: &str) -> Status {
    health::observed(&Status::default(), &anchor(ca), Ok(&probe()), bed.clock.now())
}

fn cluster(bed: &Bed, id: &str, tenant: Option<&str>, tenants: &[&str]) -> Cluster {
    let now = bed.clock.now();
    Cluster {
        meta: Meta::new(ImageUid::new(now).to_string(), Labels::new(), Labels::new(), now),
        tenant: tenant.map(t),
        id: id.to_owned(),
        description: String::new(),
        tenants: tenants.iter().map(|id| t(id)).collect(),
        credential_digest: String::new(),
        node_server: String::new(),
        cluster_dns: vec!["10.96.0.10".parse().unwrap()],
        status: seen(bed, "sha256:1"),
    }
}

async fn register(bed: &Bed, id: &str, tenant: Option<&str>, tenants: &[&str], secret: &str) -> Cluster {
    let new = cluster(bed, id, tenant, tenants);
    bed.store.cluster_create(&call(), new, Some(secret.to_owned())).await.unwrap().into_inner()
}

async fn update(bed: &Bed, call: &Call, cluster: &Cluster, new: NewCredential) -> Result<Cluster> {
    let change = |cluster: &mut Cluster| {
        cluster.description = "changed".to_owned();
        Ok(())
    };
    let done = bed.store.cluster_update(call, cluster.tenant.as_ref(), &cluster.id, "", Some(new), change).await?;
    Ok(done.into_inner())
}

/// As if an instance were to become a node of it; the claim writes this column.
async fn becomes_node(bed: &Bed, cluster: &Cluster, instance: &str) {
    let file = bed.dir.path().join("croft.db");
    let mut conn = sqlx::AnyConnection::connect(&format!("sqlite:{}?mode=rw", file.display())).await.unwrap();
    let update = sqlx::query("UPDATE instances SET cluster_uid = $1 WHERE id = $2");
    let rows = update.bind(cluster.meta.uid.clone()).bind(instance.to_owned()).execute(&mut conn).await.unwrap();
    assert_eq!(rows.rows_affected(), 1);
    conn.close().await.unwrap();
}

#[tokio::test]
async fn a_cluster_is_joined_by_its_tenant_and_those_below() {
    let bed = Bed::new().await;
    for (id, parent) in [("acme", None), ("child", Some("acme")), ("other", None)] {
        bed.tenant(id, parent).await;
    }
    let shared = register(&bed, "prod", None, &["acme"], SECRET).await;
    let own = register(&bed, "own", Some("acme"), &[], "own").await;
    let childs = register(&bed, "childs", Some("child"), &[], "childs").await;
    register(&bed, "closed", None, &[], "closed").await;
    assert_eq!(bed.store.cluster_get(None, "prod").await.unwrap(), Some(shared.clone()));
    assert_eq!(bed.store.cluster_by_uid(&own.meta.uid).await.unwrap(), Some(own.clone()));

    let may = async |tenant: &str, name: &str| bed.store.cluster_joinable(name, &t(tenant)).await;
    for tenant in ["acme", "child"] {
        assert_eq!(may(tenant, "clusters/prod").await.unwrap(), shared, "{tenant}");
        assert_eq!(may(tenant, "tenants/acme/clusters/own").await.unwrap(), own, "{tenant}");
    }
    for (tenant, name) in [
        ("other", "clusters/prod"),
        ("other", "tenants/acme/clusters/own"),
        ("acme", "tenants/child/clusters/childs"),
        ("acme", "clusters/closed"),
        ("acme", "clusters/none"),
        ("acme", "no name at all"),
    ] {
        assert_eq!(refused(may(tenant, name).await), Error::not_found(name), "{tenant}");
    }

    let list = async |scope: ClusterScope| {
        let (clusters, _) = bed.store.cluster_list(&scope, &Page::first(10)).await.unwrap();
        clusters.into_iter().map(|cluster| cluster.id).collect::<Vec<_>>()
    };
    assert_eq!(list(ClusterScope::All).await, ["closed", "prod", "own", "childs"]);
    assert_eq!(list(ClusterScope::JoinableBy(t("acme"))).await, ["prod", "own"]);
    assert_eq!(list(ClusterScope::JoinableBy(t("child"))).await, ["prod", "own", "childs"]);
    assert_eq!(list(ClusterScope::SeenFrom(t("acme"))).await, ["prod", "own", "childs"]);
    assert_eq!(list(ClusterScope::SeenFrom(t("other"))).await, [""; 0]);
    let (first, next) = bed.store.cluster_list(&ClusterScope::All, &Page::first(3)).await.unwrap();
    let rest = Page { size: 3, token: next };
    assert_eq!(
        (first.len(), bed.store.cluster_list(&ClusterScope::All, &rest).await.unwrap()),
        (3, (vec![childs], None))
    );
    let all: Vec<_> = bed.store.cluster_all().await.unwrap().into_iter().map(|cluster| cluster.name()).collect();
    assert_eq!(all[..2], ["clusters/closed", "clusters/prod"]);
}

#[tokio::test]
async fn a_credential_lives_and_dies_with_its_cluster() {
    let bed = Bed::new().await;
    bed.tenant("acme", None).await;
    let kept = register(&bed, "prod", None, &[], SECRET).await;
    let own = register(&bed, "own", Some("acme"), &[], SECRET).await;
    assert_eq!(bed.store.cluster_access(&kept).await.unwrap(), Access::Kubeconfig(SECRET.to_owned()));
    assert_eq!(bed.store.cluster_access(&own).await.unwrap(), Access::TenantsKubeconfig(SECRET.to_owned()));
    let rows = bed.dump().await;
    assert!(!rows.values().flatten().any(|row| row.contains("s3cret")), "in no row in clear");

    // The one of two clusters stays as long as one of them.
    bed.store.cluster_delete(&call(), None, "prod", "").await.unwrap();
    assert_eq!(bed.store.cluster_access(&own).await.unwrap(), Access::TenantsKubeconfig(SECRET.to_owned()));
    bed.consistent().await;
    let another = || NewCredential { kubeconfig: Some("another".to_owned()), status: seen(&bed, "sha256:2") };
    assert!(!format!("{:?}", another()).contains("another"));
    assert_eq!(update(&bed, &dry(), &own, another()).await.unwrap().status.ca_pins, ["sha256:2"]);
    assert_eq!(bed.store.cluster_get(Some(&t("acme")), "own").await.unwrap(), Some(own.clone()), "dry");
    let changed = update(&bed, &call(), &own, another()).await.unwrap();
    assert_eq!(changed.description, "changed");
    assert_eq!(bed.store.cluster_access(&changed).await.unwrap(), Access::TenantsKubeconfig("another".to_owned()));
    let gone = refused(bed.store.cluster_access(&own).await);
    assert_eq!(gone.reason(), Reason::Internal, "the old one is no more");
    bed.consistent().await;
    let full = refused(bed.store.tenant_delete(&call(), &t("acme"), "").await);
    assert!(full.to_string().contains("clusters: 1"), "{full}");
    bed.store.cluster_delete(&call(), Some(&t("acme")), "own", &changed.meta.etag()).await.unwrap();
    bed.consistent().await;
    bed.store.tenant_delete(&call(), &t("acme"), "").await.unwrap();
}

#[tokio::test]
async fn a_cluster_with_nodes_stays_and_stays_the_same() {
    let bed = Bed::furnished().await;
    let cluster = register(&bed, "prod", None, &["acme"], SECRET).await;
    let instance = bed.instance("acme", "vm").await;
    becomes_node(&bed, &cluster, "vm").await;
    let used = refused(bed.store.cluster_delete(&call(), None, "prod", "").await);
    assert_eq!(used.reason(), Reason::ClusterInUse);
    assert!(used.to_string().contains("tenants/acme/instances/vm are nodes of clusters/prod"), "{used}");

    let with = |ca: &str| {
        let status = Status { ca_pins: vec!["sha256:9".to_owned(), ca.to_owned()], ..seen(&bed, ca) };
        NewCredential { kubeconfig: Some(format!("of {ca}")), status }
    };
    let other = refused(update(&bed, &call(), &cluster, with("sha256:2")).await);
    assert_eq!(other.reason(), Reason::ClusterInUse);
    assert!(other.to_string().contains("of another cluster"), "{other}");
    update(&bed, &call(), &cluster, with("sha256:1")).await.unwrap();
    bed.delete(&instance).await;
    update(&bed, &call(), &cluster, with("sha256:2")).await.unwrap();
    bed.store.cluster_delete(&call(), None, "prod", "").await.unwrap();
    bed.consistent().await;
}

#[tokio::test]
async fn one_cluster_is_registered_once() {
    let bed = Bed::furnished().await;
    let of = |ca: &str, uid: &str| Status { identity: uid.to_owned(), ..seen(&bed, ca) };
    let create = async |by: &Call, id: &str, tenant: Option<&str>, status: Status| {
        let new = Cluster { status, ..cluster(&bed, id, tenant, &[]) };
        bed.store.cluster_create(by, new, Some(id.to_owned())).await.map(croft_store::Done::into_inner)
    };
    let first = create(&call(), "prod", None, of("sha256:1", "u1")).await.unwrap();
    create(&call(), "twin", None, of("sha256:1", "u2")).await.expect("a CA may sign for several");
    create(&call(), "unread", None, of("sha256:1", "")).await.expect("nothing is known of it");

    // At whatever address, by whatever CA.
    let again = refused(create(&call(), "again", None, of("sha256:9", "u1")).await);
    assert_eq!(again.reason(), Reason::AlreadyExists);
    assert!(again.to_string().contains("registered already, as clusters/prod"), "{again}");
    let tenants = Call {
        principal: Principal::Token { id: TokenId::from("mine"), role: Role::TenantAdmin, tenant: Some(t("acme")) },
        ..call()
    };
    let hidden = refused(create(&tenants, "mine", Some("acme"), of("sha256:9", "u1")).await);
    assert_eq!(hidden.reason(), Reason::AlreadyExists);
    assert!(!hidden.to_string().contains("prod"), "{hidden}");

    let vm = bed.instance("acme", "vm").await;
    becomes_node(&bed, &first, "vm").await;
    let with = |status: Status| NewCredential { kubeconfig: Some("new".to_owned()), status };
    let other = refused(update(&bed, &call(), &first, with(of("sha256:1", "u3"))).await);
    assert_eq!(other.reason(), Reason::ClusterInUse, "the same CA, and another cluster");
    update(&bed, &call(), &first, with(of("sha256:7", "u1"))).await.expect("the same cluster with a new CA");
    bed.delete(&vm).await;
    let twin = refused(update(&bed, &call(), &first, with(of("sha256:1", "u2"))).await);
    assert_eq!(twin.reason(), Reason::AlreadyExists, "without nodes it may be another cluster, but not twin's");
    bed.consistent().await;
}

#[tokio::test]
async fn what_is_told_is_an_event_when_it_turns_and_changes_no_etag() {
    let bed = Bed::new().await;
    let cluster = register(&bed, "prod", None, &[], SECRET).await;
    let events = async || {
        let (events, ..) = bed.store.events_list(None, Some("clusters/prod"), &Page::first(10)).await.unwrap();
        events.into_iter().map(|event| event.message).collect::<Vec<_>>()
    };
    bed.advance(60);
    let fault = Fault::Unreachable { server: "https://a:6443".to_owned(), why: "refused".to_owned() };
    let lost = health::observed(&cluster.status, &anchor("sha256:1"), Err(&fault), bed.clock.now());
    for _ in 0..2 {
        bed.store.cluster_told(&cluster.meta.uid, lost.clone()).await.unwrap();
    }
    let told = ["Reachable is False: CLUSTER_UNREACHABLE: https://a:6443 cannot be reached: refused"];
    assert_eq!(events().await, told);
    let now = bed.store.cluster_get(None, "prod").await.unwrap().unwrap();
    assert_eq!((&now.status, now.meta.etag()), (&lost, cluster.meta.etag()));
    let back = health::observed(&lost, &anchor("sha256:1"), Ok(&probe()), bed.clock.now());
    bed.store.cluster_told(&cluster.meta.uid, back).await.unwrap();
    assert_eq!(events().await.last().unwrap(), "Reachable is True");
    bed.store.cluster_told("nobody", lost).await.unwrap();
}

#[tokio::test]
async fn a_backup_has_the_credential_and_the_check_misses_it_when_it_is_lost() {
    let bed = Bed::new().await;
    let cluster = register(&bed, "prod", None, &[], SECRET).await;
    let elsewhere = tempfile::tempdir().unwrap();
    bed.store.backup_to(&elsewhere.path().join("croft.db")).await.unwrap();
    std::fs::copy(bed.dir.path().join("secrets.key"), elsewhere.path().join("secrets.key")).unwrap();
    let restored = Store::open(Options::in_dir(elsewhere.path(), bed.clock.clone())).await.unwrap();
    assert_eq!(restored.cluster_access(&cluster).await.unwrap(), Access::Kubeconfig(SECRET.to_owned()));
    assert_eq!(restored.consistency().await.unwrap(), [""; 0]);
    let file = elsewhere.path().join("croft.db");
    let mut conn = sqlx::AnyConnection::connect(&format!("sqlite:{}?mode=rw", file.display())).await.unwrap();
    sqlx::query("DELETE FROM secrets").execute(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    assert_eq!(restored.consistency().await.unwrap(), ["the credential of clusters/prod is missing"]);
}
