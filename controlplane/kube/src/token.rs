//! Bootstrap tokens: Secrets of a known name, that the API server reads when somebody presents one.
//!
//! Croft makes and deletes them and can read none, its own included: `rbac.yaml` says why.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_core::join::cluster::{BootstrapToken, Fault};
use croft_core::join::csr::BOOTSTRAP_GROUP;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource as _;
use kube::api::{DeleteParams, PostParams};
use kube::core::request::Request;
use serde_json::{Value, json};

use crate::connection::{Connection, text};
use crate::rights::{TOKEN_CREATE, TOKEN_DELETE, TOKEN_NAMESPACE};

const KIND: &str = "bootstrap.kubernetes.io/token";

enum Mode {
    Real,
    DryRun,
}

fn secrets() -> Request {
    Request::new(Secret::url_path(&(), Some(TOKEN_NAMESPACE)))
}

fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// What has this id is ours: ids are random, and recorded before they are used.
pub(crate) async fn ensure(connection: &Connection, token: &BootstrapToken) -> Result<(), Fault> {
    let secret = secret(connection, token)?;
    match create(connection, &token.id, &secret, &Mode::Real).await {
        Err(Fault::Conflict { .. }) => {
            delete(connection, &token.id).await?;
            create(connection, &token.id, &secret, &Mode::Real).await
        }
        other => other,
    }
}

/// A dry run of making it: refused when it is there.
pub(crate) async fn exists(connection: &Connection, id: &str) -> Result<bool, Fault> {
    let empty = json!({ "metadata": { "name": secret_name(id) }, "type": KIND });
    match create(connection, id, &empty, &Mode::DryRun).await {
        Ok(()) => Ok(false),
        Err(Fault::Conflict { .. }) => Ok(true),
        Err(fault) => Err(fault),
    }
}

pub(crate) async fn delete(connection: &Connection, id: &str) -> Result<(), Fault> {
    let name = secret_name(id);
    match connection.say(&TOKEN_DELETE.of(&name), secrets().delete(&name, &DeleteParams::default())).await {
        Ok(_) | Err(Fault::NotFound { .. }) => Ok(()),
        Err(fault) => Err(fault),
    }
}

fn secret(connection: &Connection, token: &BootstrapToken) -> Result<Value, Fault> {
    let name = secret_name(&token.id);
    let doing = TOKEN_CREATE.of(&name).to_string();
    let refused = |why: String| Fault::Refused { server: connection.server(), doing, why };
    if !token.is_well_formed() {
        return Err(refused("a token's id is 6 of [a-z0-9], its secret 16".to_owned()));
    }
    let ends = Timestamp::from_second(token.expires.0.div_euclid(1_000_000));
    let ends = ends.map_err(|error| refused(format!("its end is no date: {error}")))?;
    let text = |text: &str| STANDARD.encode(text);
    Ok(json!({
        "metadata": { "name": name, "labels": { "app.kubernetes.io/managed-by": "croft" } },
        "type": KIND,
        "data": {
            "token-id": text(&token.id),
            "token-secret": text(&token.secret),
            "expiration": text(&ends.to_string()),
            "usage-bootstrap-authentication": text("true"),
            "auth-extra-groups": text(BOOTSTRAP_GROUP),
            "description": text(&token.description),
        },
    }))
}

async fn create(connection: &Connection, id: &str, secret: &Value, mode: &Mode) -> Result<(), Fault> {
    let dry_run = matches!(mode, Mode::DryRun);
    let params = PostParams { dry_run, field_manager: Some(crate::cluster::MANAGER.to_owned()) };
    let request = secrets().create(&params, text(secret));
    connection.say(&TOKEN_CREATE.of(&secret_name(id)), request).await.map(drop)
}
