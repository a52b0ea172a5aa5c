//! Each attack of `core::join::csr`'s list, sent to a real API server in the middle of an honest join.
//!
//! Some the API server refuses itself; that is asserted too, so that nothing here stands for more than it is.

use croft_core::join::cluster::Stage;
use croft_core::join::csr::{CLIENT_SIGNER, SERVING_SIGNER, Standing};
use croft_core::join::ports::Cluster;
use kube::Client;
use serde_json::json;

use crate::control_plane::{ControlPlane, Credential, eventually};
use crate::joiner::{CLIENT_USAGES, SERVING_USAGES, decide, issued, join, record, seen, send, serve, soon, token};
use crate::lives::croft;
use crate::manifest::put;
use crate::request::*;

const NODE: &str = "train-1-deadbeef";
const OTHER: &str = "other-0badcafe";

/// What becomes of an attack.
#[derive(Clone, Copy)]
enum End {
    /// Croft denies it, with this reason.
    Denied(&'static str),
    /// The API server does not even keep it.
    Refused,
}

struct Attack<'a> {
    what: &'static str,
    by: &'a Client,
    signer: &'static str,
    usages: &'a [&'static str],
    name: Vec<u8>,
    attributes: Vec<Vec<u8>>,
    standing: Standing,
    end: End,
}

impl<'a> Attack<'a> {
    /// The honest first request of a kubelet, to be spoiled.
    fn first(what: &'static str, by: &'a Client, end: End) -> Self {
        Self {
            what,
            by,
            signer: CLIENT_SIGNER,
            usages: &CLIENT_USAGES,
            name: node_name(NODE),
            attributes: vec![],
            standing: Standing::Booting,
            end,
        }
    }

    fn serving(what: &'static str, by: &'a Client, names: &[Vec<u8>], end: End) -> Self {
        let attributes = if names.is_empty() { vec![] } else { vec![asking(&[&[alternative_names(names)]])] };
        Self {
            signer: SERVING_SIGNER,
            usages: &SERVING_USAGES,
            attributes,
            standing: Standing::Joined,
            ..Self::first(what, by, end)
        }
    }

    fn named(self, name: Vec<u8>) -> Self {
        Self { name, ..self }
    }

    fn used(self, usages: &'a [&'static str]) -> Self {
        Self { usages, ..self }
    }

    fn asking(self, attributes: Vec<Vec<u8>>) -> Self {
        Self { attributes, ..self }
    }

    fn when(self, standing: Standing) -> Self {
        Self { standing, ..self }
    }

    /// Sends it, has Croft answer, and holds both against what should be.
    async fn play(&self, croft: &dyn Cluster, number: usize) -> Option<String> {
        let name = format!("attack-{number}");
        let (pem, _) = signed(&self.name, &self.attributes);
        let sent = send(self.by, &name, self.signer, self.usages, &pem).await;
        match (self.end, sent) {
            (End::Refused, Err(kube::Error::Api(status))) if matches!(status.code, 400 | 403 | 422) => None,
            (End::Refused, other) => panic!("{}: the API server said {other:?}", self.what),
            (End::Denied(reason), Ok(())) => {
                let denial = decide(croft, &name, &record(NODE, self.standing)).await.expect_err(self.what);
                assert_eq!(denial.reason(), reason, "{}: {denial}", self.what);
                Some(name)
            }
            (End::Denied(_), Err(error)) => panic!("{}: refused by the API server already: {error}", self.what),
        }
    }
}

pub async fn run(plane: &ControlPlane) {
    let (admin, croft) = (plane.admin().await, croft(plane).await);
    let croft = croft.as_ref();
    let other = plane.client(&join(plane, croft, "other0", OTHER).await).await;
    let (stranger, same_name) = strangers(plane, &admin).await;

    // The victim's machine is on its way: its token is good.
    let mine = token("train1");
    croft.token_ensure(&mine).await.unwrap();
    let by_token = plane.client(&Credential::Token(mine.text())).await;
    eventually("the token is taken", async || {
        send(&by_token, "honest", CLIENT_SIGNER, &CLIENT_USAGES, &signed(&node_name(NODE), &[]).0).await
    })
    .await;
    let mut denied = Vec::new();
    let mut number = 0;
    for attack in with_a_token(&by_token, &other, &stranger, &same_name) {
        denied.extend(attack.play(croft, number).await);
        number += 1;
    }
    // Beside all that, the honest request is granted, and so is its repeat after a loss of power.
    decide(croft, "honest", &record(NODE, Standing::Booting)).await.expect("honest");
    issued(&admin, "honest").await;
    assert_eq!(croft.probe().await.unwrap().certificates_are_short_lived(), Some(true));
    let kubelet = plane.client(&join(plane, croft, "train1", NODE).await).await;
    for attack in with_a_certificate(&kubelet, &other) {
        denied.extend(attack.play(croft, number).await);
        number += 1;
    }
    serve(plane, croft, &kubelet, NODE).await;
    // The machine goes; its certificate is still good.
    let gone = Attack::first("a machine that is gone", &kubelet, End::Denied("InstanceGone")).when(Standing::Gone);
    denied.extend(gone.play(croft, number).await);

    not_for_croft(croft, &kubelet).await;
    // The token is gone: nobody is let in with it.
    eventually("the token is no longer taken", async || {
        match send(&by_token, "late", CLIENT_SIGNER, &CLIENT_USAGES, &signed(&node_name(NODE), &[]).0).await {
            Err(kube::Error::Api(status)) if status.code == 401 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert!(denied.len() > 15, "{denied:?}");
    let all = croft.signings().await.unwrap();
    for name in &denied {
        let signing = all.iter().find(|signing| signing.name == *name).expect("kept");
        assert_eq!(signing.stage, Stage::Denied, "{name}");
    }
    // Nothing stays behind.
    for signing in &all {
        croft.signing_delete(signing).await.unwrap();
        croft.signing_delete(signing).await.unwrap();
    }
    assert_eq!(croft.signings().await.unwrap(), []);
}

/// Bootstrappers of another group, and a user who has a node's name but is in no group of nodes.
async fn strangers(plane: &ControlPlane, admin: &Client) -> (Client, Client) {
    let ends = jiff::Timestamp::from_second(soon().0 / 1_000_000).unwrap().to_string();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": { "name": "bootstrap-token-strang", "namespace": "kube-system" },
        "stringData": {
            "token-id": "strang", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:strangers", "expiration": ends,
        },
    });
    put(admin, &secret).await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "strangers" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-bootstrapper" },
        "subjects": [
            { "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:bootstrappers:strangers" },
            { "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": format!("system:node:{NODE}") },
        ],
    });
    put(admin, &binding).await;
    let stranger = plane.client(&Credential::Token("strang.0123456789abcdef".to_owned())).await;
    let same_name = plane.client(&plane.user(None, &format!("system:node:{NODE}"))).await;
    (stranger, same_name)
}

fn with_a_token<'a>(
    by_token: &'a Client,
    other: &'a Client,
    stranger: &'a Client,
    same_name: &'a Client,
) -> Vec<Attack<'a>> {
    use End::{Denied, Refused};
    let node = |name: &str| format!("system:node:{name}");
    let (mine, others) = (node(NODE), node(OTHER));
    let nodes = (ORGANIZATION, "system:nodes");
    let first = |what, end| Attack::first(what, by_token, end);
    let many = |lists: &[&[Vec<u8>]]| vec![asking(lists)];
    vec![
        first("a second name on the same token", Denied("WrongName")).named(node_name("second-0badcafe")),
        first("another node's name", Denied("WrongName")).named(node_name(OTHER)),
        first("two names", Denied("WrongName")).named(name(&[nodes, (COMMON_NAME, &others), (COMMON_NAME, &mine)])),
        first("no name", Denied("WrongName")).named(name(&[nodes])),
        first("masters", Denied("WrongOrganization"))
            .named(name(&[(ORGANIZATION, "system:masters"), (COMMON_NAME, &mine)])),
        first("masters too", Denied("WrongOrganization")).named(name(&[
            nodes,
            (ORGANIZATION, "system:masters"),
            (COMMON_NAME, &mine),
        ])),
        first("something else in the subject", Denied("SubjectNotAllowed")).named(name(&[
            nodes,
            (UNIT, "x"),
            (COMMON_NAME, &mine),
        ])),
        first("a client that may serve", Denied("WrongUsage")).used(&[
            "digital signature",
            "client auth",
            "server auth",
        ]),
        first("a CA by usage", Denied("WrongUsage")).used(&["digital signature", "client auth", "cert sign"]),
        first("no use", Denied("WrongUsage")).used(&["digital signature"]),
        first("a client with a name to serve", Denied("WrongSan"))
            .asking(many(&[&[alternative_names(&[dns("kubernetes")])]])),
        first("a CA by extension", Denied("ExtensionNotAllowed")).asking(many(&[&[authority()]])),
        first("a password", Denied("ExtensionNotAllowed")).asking(vec![password()]),
        first("two readings", Denied("Unreadable"))
            .asking(many(&[&[alternative_names(&[dns(NODE)])], &[alternative_names(&[dns("kubernetes")])]])),
        first("a text of an old kind", Denied("Unreadable")).named(name_of_one_set(&[
            attribute(ORGANIZATION, PRINTABLE, b"system:nodes"),
            attribute(COMMON_NAME, 0x14, mine.as_bytes()),
        ])),
        Attack::serving("a serving certificate by token", by_token, &[dns(NODE)], Denied("WrongSigner"))
            .when(Standing::Booting),
        Attack::first("another group of bootstrappers", stranger, Denied("WrongGroup")),
        Attack::first("a user named like a node", same_name, Denied("WrongGroup")),
        // NodeRestriction and the signers' own check; Croft would say WrongName and WrongSigner.
        Attack::first("another node asks for this one", other, Refused),
        first("the same extension twice", Refused)
            .asking(many(&[&[alternative_names(&[dns(NODE)]), alternative_names(&[dns("x")])]])),
        Attack { signer: "kubernetes.io/kube-apiserver-client", ..first("masters by another signer", Refused) }
            .named(name(&[(ORGANIZATION, "system:masters"), (COMMON_NAME, "root")])),
    ]
}

fn with_a_certificate<'a>(kubelet: &'a Client, other: &'a Client) -> Vec<Attack<'a>> {
    use End::{Denied, Refused};
    let serving = |what, names: &[Vec<u8>]| Attack::serving(what, kubelet, names, Denied("WrongSan"));
    vec![
        serving("the API server's name", &[dns(NODE), dns("kubernetes.default.svc")]),
        serving("the API server's address", &[dns(NODE), ip(&[10, 96, 0, 1])]),
        serving("another node's name to serve", &[dns(OTHER)]),
        serving("a URI", &[dns(NODE), uri("spiffe://x")]),
        serving("nothing to serve", &[]),
        // NodeRestriction again; Croft would say WrongName.
        Attack::serving("another node serves as this one", other, &[dns(NODE)], Refused),
        Attack::serving("a serving certificate for another node", kubelet, &[dns(NODE)], Refused)
            .named(node_name(OTHER)),
        Attack::serving("a server that may be a client", kubelet, &[dns(NODE)], Denied("WrongUsage")).used(&[
            "digital signature",
            "server auth",
            "client auth",
        ]),
    ]
}

/// A request to another signer is somebody else's to answer, and is not even listed.
async fn not_for_croft(croft: &dyn Cluster, kubelet: &Client) {
    let (pem, _) = signed(&name(&[(COMMON_NAME, "app")]), &[]);
    send(kubelet, "elsewhere", "kubernetes.io/kube-apiserver-client", &CLIENT_USAGES, &pem).await.expect("kept");
    assert_eq!(seen(croft, "elsewhere").await, None);
}
