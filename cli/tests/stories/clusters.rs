//! `croft cluster`: a credential goes in by a file and comes out nowhere.

use croft_proto::v1::cluster::{Credential, InCluster};
use croft_proto::v1::condition::Status as State;
use croft_proto::v1::{self, Condition};
use tonic::Status;

use crate::support::{Say, Stage};

const KUBECONFIG: &str = "apiVersion: v1\nkind: Config\nusers: [{name: u, user: {token: s3cret}}]\n";

fn condition(kind: &str, state: State, reason: &str, message: &str) -> Condition {
    Condition {
        r#type: kind.into(),
        status: state.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
    }
}

fn in_days(days: i64) -> Option<prost_types::Timestamp> {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    // Half a day more: the test takes time, too.
    Some(prost_types::Timestamp { seconds: i64::try_from(now).unwrap() + days * 86_400 + 43_200, nanos: 0 })
}

fn prod() -> v1::Cluster {
    let status = v1::ClusterStatus {
        server: "https://10.0.0.5:6443".into(),
        version: "v1.36.3".into(),
        conditions: vec![
            condition("Reachable", State::True, "", ""),
            condition("PoliciesInstalled", State::False, "CLUSTER_POLICIES_MISSING", "croft-nodes is missing"),
        ],
        credential_expire_time: in_days(200),
        ca_expire_time: in_days(3000),
        nodes: 5,
        nodes_ready: 4,
        ..Default::default()
    };
    let metadata = v1::Metadata { etag: "e1".into(), ..Default::default() };
    v1::Cluster {
        name: "clusters/prod".into(),
        metadata: Some(metadata),
        tenants: vec!["tenants/acme".into()],
        status: Some(status),
        ..Default::default()
    }
}

fn missing() -> Say {
    Say::No(Status::not_found("not there"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_registered_with_a_file_and_what_is_not_good_is_said() {
    let stage = Stage::new().await;
    let file = stage.write("kubeconfig", KUBECONFIG);
    stage.fake.say("register_cluster", Say::one(prod()));
    let arguments = [
        "cluster",
        "register",
        "prod",
        "--kubeconfig",
        &file,
        "--shared-with",
        "acme,globex",
        "--node-server",
        "https://10.0.0.6:6443",
        "--dns",
        "10.96.0.10",
    ];
    let ran = stage.run(&arguments).await;
    assert_eq!(ran.out, "clusters/prod registered\n");
    assert_eq!(ran.err, "warning: PoliciesInstalled is False: CLUSTER_POLICIES_MISSING: croft-nodes is missing\n");
    let asked: Vec<v1::RegisterClusterRequest> = stage.fake.asked("register_cluster");
    let sent = asked[0].cluster.clone().unwrap();
    assert_eq!((asked[0].parent.as_str(), asked[0].cluster_id.as_str()), ("", "prod"), "shared, so the platform's");
    assert_eq!(sent.tenants, ["tenants/acme", "tenants/globex"]);
    assert_eq!(sent.credential, Some(Credential::Kubeconfig(KUBECONFIG.into())));
    assert_eq!(
        (sent.node_server.as_str(), sent.cluster_dns.as_slice()),
        ("https://10.0.0.6:6443", &["10.96.0.10".to_owned()][..])
    );

    // Of the context's tenant, and from stdin.
    let own = stage.command(&["cluster", "register", "own", "--kubeconfig", "-"]);
    stage.run_with(own, KUBECONFIG.as_bytes()).await.ok();
    stage.run(&["cluster", "register", "home", "--platform", "--in-cluster"]).await.ok();
    let asked: Vec<v1::RegisterClusterRequest> = stage.fake.asked("register_cluster");
    assert_eq!((asked[1].parent.as_str(), asked[2].parent.as_str()), ("tenants/acme", ""));
    assert_eq!(asked[2].cluster.as_ref().unwrap().credential, Some(Credential::InCluster(InCluster {})));
    for wrong in [
        &["cluster", "register", "x"][..],
        &["cluster", "register", "x", "--in-cluster", "--kubeconfig", &file],
        &["cluster", "register", "x", "--kubeconfig", "/nowhere"],
        &["cluster", "register", "tenants/acme/clusters/x", "--in-cluster", "--shared-with", "b"],
    ] {
        let ran = stage.run(wrong).await;
        assert!(ran.code == Some(2) && !ran.err.contains("s3cret"), "{ran:?}");
    }
    assert_eq!(stage.fake.asked::<v1::RegisterClusterRequest>("register_cluster").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_shown_with_what_is_wrong_and_when_what_ends() {
    let stage = Stage::new().await;
    stage.fake.say("get_cluster", missing()).say("get_cluster", Say::one(prod()));
    stage
        .fake
        .say("list_clusters", Say::one(v1::ListClustersResponse { clusters: vec![prod()], ..Default::default() }));
    let said = stage.run(&["cluster", "get", "prod"]).await.ok();
    let lines: Vec<&str> = said.lines().collect();
    let row = ["prod", "platform", "CLUSTER_POLICIES_MISSING", "v1.36.3", "4/5", "in", "200d", "https://10.0.0.5:6443"];
    assert!(row.iter().all(|cell| lines[1].contains(cell)), "{said}");
    assert!(lines[2].starts_with("  Reachable               TRUE"), "{said}");
    assert!(
        lines[3].contains("FALSE") && lines[3].ends_with(": CLUSTER_POLICIES_MISSING: croft-nodes is missing"),
        "{said}"
    );
    assert!(lines[4].starts_with("  the credential ends in 200d (20"), "{said}");
    assert!(lines[5].starts_with("  the CA ends in 3000d"), "{said}");
    let asked: Vec<v1::GetClusterRequest> = stage.fake.asked("get_cluster");
    let names: Vec<_> = asked.iter().map(|asked| asked.name.as_str()).collect();
    assert_eq!(names, ["tenants/acme/clusters/prod", "clusters/prod"], "the tenant's own first");
    let said = stage.run(&["cluster", "list", "-o", "name"]).await.ok();
    assert_eq!(said, "clusters/prod\n");
    let asked: Vec<v1::ListClustersRequest> = stage.fake.asked("list_clusters");
    assert_eq!(asked[0].parent, "tenants/acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_names_what_it_changes_and_no_more() {
    let stage = Stage::new().await;
    let file = stage.write("kubeconfig", KUBECONFIG);
    stage.fake.say("get_cluster", Say::one(prod())).say("update_cluster", Say::one(prod()));
    stage.run(&["cluster", "update", "clusters/prod", "--kubeconfig", &file]).await.ok();
    let sharing =
        ["cluster", "update", "clusters/prod", "--share-with", "b", "--unshare", "acme", "--description", "x"];
    stage.run(&sharing).await.ok();
    let asked: Vec<v1::UpdateClusterRequest> = stage.fake.asked("update_cluster");
    let paths = |at: usize| asked[at].update_mask.clone().unwrap().paths;
    assert_eq!((paths(0), paths(1)), (vec!["kubeconfig".into()], vec!["tenants".into(), "description".to_owned()]));
    let sent = |at: usize| asked[at].cluster.clone().unwrap();
    assert_eq!(sent(0).credential, Some(Credential::Kubeconfig(KUBECONFIG.into())));
    assert_eq!(sent(0).metadata.unwrap().etag, "e1", "it must fail if somebody was faster");
    assert_eq!((sent(1).tenants, sent(1).credential), (vec!["tenants/b".to_owned()], None));
    let nothing = stage.run(&["cluster", "update", "clusters/prod"]).await;
    assert!(nothing.code == Some(2) && nothing.err.contains("nothing to change"), "{nothing:?}");

    stage.fake.say("delete_cluster", Say::one(v1::DeleteClusterResponse {}));
    assert_eq!(stage.run(&["cluster", "delete", "clusters/prod"]).await.ok(), "clusters/prod deleted\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_needs_no_plane() {
    let stage = Stage::new().await;
    let mut command = stage.command(&["cluster", "manifest"]);
    for variable in ["CROFT_SERVER", "CROFT_CA_FILE", "CROFT_TOKEN"] {
        command.env_remove(variable);
    }
    command.env("CROFT_CONTEXT", "one-that-is-not-there");
    let text = stage.run_with(command, b"").await.ok();
    let kinds: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    assert_eq!(kinds[0], "Namespace");
    for kind in ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    assert_eq!(stage.fake.authorizations(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_registers_a_cluster_and_does_not_try_its_credential_again() {
    let stage = Stage::new().await;
    let document = format!(
        "{{kind: Cluster, name: clusters/prod, tenants: [tenants/acme], kubeconfig: {}}}",
        serde_json::Value::from(KUBECONFIG)
    );
    stage.fake.say("get_cluster", missing()).say("register_cluster", Say::one(prod()));
    let said = stage.run_with(stage.command(&["apply", "-f", "-"]), document.as_bytes()).await.ok();
    assert_eq!(said, "clusters/prod created\n");
    let asked: Vec<v1::RegisterClusterRequest> = stage.fake.asked("register_cluster");
    assert_eq!(asked[0].cluster.as_ref().unwrap().credential, Some(Credential::Kubeconfig(KUBECONFIG.into())));

    let stage = Stage::new().await;
    stage.fake.say("get_cluster", Say::one(prod())).say("update_cluster", Say::one(prod()));
    let said = stage.run_with(stage.command(&["apply", "-f", "-"]), document.as_bytes()).await.ok();
    assert_eq!(said, "clusters/prod unchanged\n");
    let other = document.replace("tenants/acme", "tenants/globex");
    let said = stage.run_with(stage.command(&["apply", "-f", "-"]), other.as_bytes()).await.ok();
    assert_eq!(said, "clusters/prod updated: tenants\n");
    let asked: Vec<v1::UpdateClusterRequest> = stage.fake.asked("update_cluster");
    assert_eq!(asked[0].update_mask.as_ref().unwrap().paths, ["tenants"]);
    assert_eq!(asked[0].cluster.as_ref().unwrap().credential, None);
}
