//! Bootstrap tokens: Secrets of a known name, that the API server reads when somebody presents one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_core::join::cluster::{BootstrapToken, Fault};
use croft_core::join::csr::BOOTSTRAP_GROUP;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::cluster::MANAGER;
use crate::connection::Connection;
use crate::rights::{TOKEN_DELETE, TOKEN_NAMESPACE, TOKEN_PATCH};

fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// One server-side apply makes or renews it, without force: where another manager's token has this id, the API server says
/// conflict. Only metadata is asked back, so that no answer with a secret in it can end in a log.
pub(crate) async fn ensure(connection: &Connection, token: &BootstrapToken) -> Result<(), Fault> {
    let name = secret_name(&token.id);
    let right = TOKEN_PATCH.of(&name);
    let refused = |why: String| Fault::Refused { server: connection.server(), doing: right.to_string(), why };
    if !token.is_well_formed() {
        return Err(refused("a token's id is 6 of [a-z0-9], its secret 16".to_owned()));
    }
    let ends = Timestamp::from_second(token.expires.0.div_euclid(1_000_000));
    let ends = ends.map_err(|error| refused(format!("its end is no date: {error}")))?;
    let text = |text: &str| STANDARD.encode(text);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name, "namespace": TOKEN_NAMESPACE, "labels": { "app.kubernetes.io/managed-by": "croft" } },
        "type": "bootstrap.kubernetes.io/token",
        "data": {
            "token-id": text(&token.id),
            "token-secret": text(&token.secret),
            "expiration": text(&ends.to_string()),
            "usage-bootstrap-authentication": text("true"),
            "auth-extra-groups": text(BOOTSTRAP_GROUP),
            "description": text(&token.description),
        },
    });
    let api: Api<Secret> = Api::namespaced(connection.client(), TOKEN_NAMESPACE);
    let params = PatchParams::apply(MANAGER);
    connection.ask(&right, api.patch_metadata(&name, &params, &Patch::Apply(&secret))).await.map(drop)
}

pub(crate) async fn delete(connection: &Connection, id: &str) -> Result<(), Fault> {
    let api: Api<Secret> = Api::namespaced(connection.client(), TOKEN_NAMESPACE);
    let name = secret_name(id);
    let params = DeleteParams::default();
    match connection.ask(&TOKEN_DELETE.of(&name), api.delete(&name, &params)).await {
        Ok(_) | Err(Fault::NotFound { .. }) => Ok(()),
        Err(fault) => Err(fault),
    }
}
