//! From a credential to a connection: what a kubeconfig may say ([`kubeconfig`]), and what is made of it.

mod kubeconfig;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use croft_core::Timestamp;
use croft_core::join::cluster::{Access, Anchor, BadAccess};
use kube::Config;
use kube::config::AuthInfo;
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::json;

use crate::Prefix;
use crate::certificate;
use crate::connection::Connection;
use crate::reach::Reach;
use kubeconfig::{Credential, Entry};

/// `tenants`: what tenants' clusters may be at, besides what is open to them anyhow.
pub(crate) fn open(access: &Access, tenants: &Arc<[Prefix]>) -> Result<Connection, BadAccess> {
    match access {
        Access::Kubeconfig(text) => from_entry(kubeconfig::read(text)?, Reach::Everywhere),
        Access::TenantsKubeconfig(text) => from_entry(kubeconfig::read(text)?, Reach::OutsideAnd(tenants.clone())),
        Access::InCluster => in_cluster(),
    }
}

fn from_entry(entry: Entry, reach: Reach) -> Result<Connection, BadAccess> {
    let host = entry.server.host().unwrap_or_default();
    // Names are checked whenever they are resolved.
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        reach.check(ip).map_err(|why| bad(format!("{}.server", entry.at), why))?;
    }
    let mut config = Config::new(entry.server.clone());
    config.root_cert = Some(entry.ca.iter().map(|der| der.to_vec()).collect());
    config.tls_server_name = entry.server_name;
    let (fields, expires) = match &entry.credential {
        Credential::Token(token) => (json!({ "token": token }), end_of(token)),
        Credential::Certificate { chain, key } => {
            let fields = json!({
                "client-certificate-data": STANDARD.encode(chain),
                "client-key-data": STANDARD.encode(key),
            });
            let leaf = certificate::from_pem(chain).ok().and_then(|all| all.into_iter().next());
            (fields, leaf.and_then(|der| certificate::end(&der)))
        }
    };
    config.auth_info = serde_json::from_value::<AuthInfo>(fields).map_err(|error| bad("user", error.to_string()))?;
    let anchor = anchor(entry.server.to_string(), &entry.ca);
    Connection::new(config, anchor, expires, reach)
}

/// The service account's token renews itself: it has no end that anybody need care for.
fn in_cluster() -> Result<Connection, BadAccess> {
    let config = Config::incluster().map_err(|error| {
        bad("in_cluster", format!("this process is not a pod with a service account: {}", crate::fault::chain(&error)))
    })?;
    let ca: Vec<_> = config.root_cert.clone().unwrap_or_default().into_iter().map(CertificateDer::from).collect();
    let anchor = anchor(config.cluster_url.to_string(), &ca);
    Connection::new(config, anchor, None, Reach::Everywhere)
}

fn anchor(server: String, ca: &[CertificateDer<'_>]) -> Anchor {
    Anchor {
        server: server.trim_end_matches('/').to_owned(),
        ca: certificate::to_pem(ca.iter().map(AsRef::as_ref)),
        ca_pins: ca.iter().filter_map(|der| certificate::pin(der)).collect(),
    }
}

/// Of a service account's token, which says so itself; other tokens say nothing.
fn end_of(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: Option<i64>,
    }
    let claims = token.split('.').nth(1)?;
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    claims.exp.map(certificate::seconds)
}

fn bad(field: impl Into<String>, problem: impl Into<String>) -> BadAccess {
    BadAccess { field: field.into(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_is_its_own_claim() {
        let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":1790000000,"sub":"x"}"#);
        assert_eq!(end_of(&format!("h.{claims}.s")), Some(Timestamp(1_790_000_000_000_000)));
        assert_eq!(end_of("abcdef.0123456789abcdef"), None);
        assert_eq!(end_of("opaque"), None);
    }

    #[test]
    fn outside_a_cluster_there_is_no_identity_of_a_pod() {
        let error = open(&Access::InCluster, &Arc::default()).unwrap_err();
        assert_eq!(error.field, "in_cluster");
    }

    #[tokio::test]
    async fn a_tenants_server_is_not_at_the_planes_own_address() {
        let ca = rcgen::generate_simple_self_signed(["kubernetes".to_owned()]).unwrap();
        let ca = STANDARD.encode(ca.cert.pem());
        let open = |server: &str, of: fn(String) -> Access, allowed: &[&str]| {
            let text = format!(
                "{{contexts: [{{name: c, context: {{cluster: k, user: u}}}}], users: [{{name: u, user: {{token: t}}}}], \
                 clusters: [{{name: k, cluster: {{server: 'https://{server}', certificate-authority-data: {ca}}}}}]}}"
            );
            let allowed = allowed.iter().map(|text| crate::prefix(text).unwrap()).collect();
            super::open(&of(text), &allowed).map(drop)
        };
        for server in ["127.0.0.1:6443", "[::1]", "169.254.169.254"] {
            let error = open(server, Access::TenantsKubeconfig, &[]).unwrap_err();
            assert_eq!(error.field, "clusters[k].cluster.server", "{error}");
            assert!(error.problem.contains("--tenant-cluster-allow-prefix"), "{error}");
            open(server, Access::Kubeconfig, &[]).unwrap();
        }
        open("127.0.0.1:6443", Access::TenantsKubeconfig, &["127.0.0.1/32"]).unwrap();
        open("10.0.0.1:6443", Access::TenantsKubeconfig, &[]).unwrap();
    }
}
