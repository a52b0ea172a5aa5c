//! Kubeconfigs that hold all that they need. They are JSON, which is YAML too.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::Identity;

/// How a client says who it is.
#[derive(Debug, Clone, Copy)]
pub enum Credentials<'a> {
    Certificate(&'a Identity),
    Token(&'a str),
    None,
}

/// For this server, whose certificate must be of this authority.
pub fn kubeconfig(server: &str, ca_pem: &str, credentials: Credentials<'_>) -> String {
    let user = match credentials {
        Credentials::Certificate(identity) => json!({
            "client-certificate-data": STANDARD.encode(&identity.certificate_pem),
            "client-key-data": STANDARD.encode(&identity.key_pem),
        }),
        Credentials::Token(token) => json!({"token": token}),
        Credentials::None => json!({}),
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": STANDARD.encode(ca_pem)}}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
        "current-context": "test",
    });
    config.to_string()
}
