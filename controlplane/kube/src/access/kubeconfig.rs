//! What a kubeconfig may say to the plane.
//!
//! It comes from a tenant and is used on the plane's machine. So nothing in it is a command (exec plugins, auth providers) or
//! a path (the plane's own files), nothing weakens TLS, and what is not known is refused: a field that was overlooked here
//! could be one of these. One context is used; the CA is the only one believed.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use croft_core::join::cluster::BadAccess;
use croft_core::join::server::is_server;
use http::Uri;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use serde_yaml_ng::Value;

use super::bad;
use crate::certificate;

const SIZE_MAX: usize = 64 * 1024;

const SELF_CONTAINED: &str = "; `kubectl config view --raw --flatten --minify` writes one that holds everything itself";
/// Each with why it is refused. Refused only where it says something.
const CLUSTER_REFUSED: [(&str, &str); 3] = [
    ("insecure-skip-tls-verify", "turns off the check of the server's certificate; give certificate-authority-data"),
    ("certificate-authority", "is a path on your machine; give certificate-authority-data"),
    ("proxy-url", "proxies are not supported; give an address that the plane reaches itself"),
];
const CLUSTER_KNOWN: [&str; 5] =
    ["server", "certificate-authority-data", "tls-server-name", "disable-compression", "extensions"];
const USER_REFUSED: [(&str, &str); 11] = [
    ("exec", "runs a command; give the token of a service account, or a client certificate"),
    ("auth-provider", "is a plugin; give the token of a service account, or a client certificate"),
    ("client-certificate", "is a path on your machine; give client-certificate-data"),
    ("client-key", "is a path on your machine; give client-key-data"),
    ("tokenFile", "is a path on your machine; give token"),
    ("username", "no API server takes passwords any more; give the token of a service account"),
    ("password", "no API server takes passwords any more; give the token of a service account"),
    ("as", "impersonates another; give that user's own credential"),
    ("as-uid", "impersonates another; give that user's own credential"),
    ("as-groups", "impersonates another; give that user's own credential"),
    ("as-user-extra", "impersonates another; give that user's own credential"),
];
const USER_KNOWN: [&str; 4] = ["token", "client-certificate-data", "client-key-data", "extensions"];

#[derive(Debug)]
pub(super) struct Entry {
    /// Where the server is named: `clusters[prod].cluster`.
    pub(super) at: String,
    pub(super) server: Uri,
    pub(super) server_name: Option<String>,
    pub(super) ca: Vec<CertificateDer<'static>>,
    pub(super) credential: Credential,
}

pub(super) enum Credential {
    Token(String),
    /// Both in PEM.
    Certificate {
        chain: Vec<u8>,
        key: Vec<u8>,
    },
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(…)",
            Self::Certificate { .. } => "Certificate(…)",
        })
    }
}

type Fields = BTreeMap<String, Value>;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    current_context: Option<String>,
    contexts: Option<Vec<Context>>,
    clusters: Option<Vec<Cluster>>,
    users: Option<Vec<User>>,
}

#[derive(Deserialize)]
struct Context {
    name: String,
    context: ContextFields,
}

#[derive(Deserialize)]
struct ContextFields {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct Cluster {
    name: String,
    cluster: Fields,
}

#[derive(Deserialize)]
struct User {
    name: String,
    user: Fields,
}

pub(super) fn read(text: &str) -> Result<Entry, BadAccess> {
    if text.len() > SIZE_MAX {
        return Err(bad("kubeconfig", format!("{} bytes; at most {SIZE_MAX}{SELF_CONTAINED}", text.len())));
    }
    let file: File = serde_yaml_ng::from_str(text).map_err(|error| {
        // The error's own text may quote a line, and with it a secret.
        let at = error.location().map(|at| format!(" (line {})", at.line())).unwrap_or_default();
        bad("kubeconfig", format!("is not a kubeconfig in YAML{at}"))
    })?;
    let context = one_context(&file)?;
    let (at, cluster) =
        one("clusters", file.clusters.iter().flatten().map(|c| (&c.name, &c.cluster)), &context.cluster)?;
    check(&format!("{at}.cluster"), cluster, &CLUSTER_REFUSED, &CLUSTER_KNOWN)?;
    let cluster_at = format!("{at}.cluster");
    let (server, server_name, ca) = server(&cluster_at, cluster)?;
    let (at, user) = one("users", file.users.iter().flatten().map(|u| (&u.name, &u.user)), &context.user)?;
    check(&format!("{at}.user"), user, &USER_REFUSED, &USER_KNOWN)?;
    let credential = credential(&format!("{at}.user"), user)?;
    Ok(Entry { at: cluster_at, server, server_name, ca, credential })
}

/// The current one, or the only one.
fn one_context(file: &File) -> Result<&ContextFields, BadAccess> {
    let all = file.contexts.as_deref().unwrap_or_default();
    let wanted = file.current_context.as_deref().filter(|name| !name.is_empty());
    match (wanted, all) {
        (Some(name), all) => Ok(one("contexts", all.iter().map(|c| (&c.name, &c.context)), name)?.1),
        (None, [only]) => Ok(&only.context),
        (None, []) => Err(bad("contexts", "there is none")),
        (None, _) => Err(bad("current-context", "there are several contexts; say which one")),
    }
}

fn one<'a, T>(
    list: &str,
    all: impl Iterator<Item = (&'a String, &'a T)>,
    name: &str,
) -> Result<(String, &'a T), BadAccess> {
    let mut found = all.filter(|(its_name, _)| *its_name == name).map(|(_, it)| it);
    let at = format!("{list}[{name}]");
    match (found.next(), found.next()) {
        (Some(it), None) => Ok((at, it)),
        (None, _) => Err(bad(at, "is named and is not there")),
        (Some(_), Some(_)) => Err(bad(at, "is there twice")),
    }
}

fn check(at: &str, fields: &Fields, refused: &[(&str, &str)], known: &[&str]) -> Result<(), BadAccess> {
    for (field, value) in fields {
        if is_blank(value) {
            continue;
        }
        let at = format!("{at}.{field}");
        if let Some((_, why)) = refused.iter().find(|(name, _)| name == field) {
            return Err(bad(at, format!("{why}{SELF_CONTAINED}")));
        }
        if !known.contains(&field.as_str()) {
            return Err(bad(at, "is not known to Croft, and might weaken the connection; remove it"));
        }
    }
    Ok(())
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Sequence(all) => all.is_empty(),
        Value::Mapping(all) => all.is_empty(),
        Value::Bool(true) | Value::Number(_) | Value::Tagged(_) => false,
    }
}

type Server = (Uri, Option<String>, Vec<CertificateDer<'static>>);

fn server(at: &str, cluster: &Fields) -> Result<Server, BadAccess> {
    let address = text(at, cluster, "server")?.ok_or_else(|| bad(format!("{at}.server"), "is missing"))?;
    let wrong = |why: &str| bad(format!("{at}.server"), format!("{why}; it looks like https://host:6443"));
    let uri: Uri = address.parse().map_err(|_| wrong("is not an address"))?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong("is not https"));
    }
    match uri.authority() {
        Some(authority) if !authority.as_str().contains('@') && !authority.host().is_empty() => {}
        _ => return Err(wrong("names no host, or a user too")),
    }
    if !is_server(address.strip_suffix('/').unwrap_or(&address)) {
        // It goes into files of guests.
        return Err(wrong("has more than a host and a port: a path, a query, or a character that no host has"));
    }
    let ca_at = format!("{at}.certificate-authority-data");
    let ca = data(at, cluster, "certificate-authority-data")?
        .ok_or_else(|| bad(&ca_at, "is missing; the plane believes no other CA, and nodes are given this one"))?;
    let ca = certificate::from_pem(&ca).map_err(|why| bad(&ca_at, why))?;
    Ok((uri, text(at, cluster, "tls-server-name")?, ca))
}

fn credential(at: &str, user: &Fields) -> Result<Credential, BadAccess> {
    let token = text(at, user, "token")?;
    let chain = data(at, user, "client-certificate-data")?;
    let key = data(at, user, "client-key-data")?;
    match (token, chain, key) {
        (Some(token), None, None) => {
            if token.chars().any(|c| !c.is_ascii_graphic()) {
                return Err(bad(format!("{at}.token"), "has spaces or line breaks in it"));
            }
            Ok(Credential::Token(token))
        }
        (None, Some(chain), Some(key)) => {
            certificate::from_pem(&chain).map_err(|why| bad(format!("{at}.client-certificate-data"), why))?;
            PrivateKeyDer::from_pem_slice(&key)
                .map_err(|_| bad(format!("{at}.client-key-data"), "is not a private key in PEM"))?;
            Ok(Credential::Certificate { chain, key })
        }
        (None, None, None) => Err(bad(at, "has no credential: a token, or a client certificate and its key")),
        (Some(_), _, _) => Err(bad(at, "has a token and a client certificate; give one of them")),
        (None, _, _) => Err(bad(at, "has a client certificate without its key, or a key without its certificate")),
    }
}

fn text(at: &str, fields: &Fields, field: &str) -> Result<Option<String>, BadAccess> {
    match fields.get(field) {
        None => Ok(None),
        Some(value) if is_blank(value) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(bad(format!("{at}.{field}"), "is not text; put it in quotes")),
    }
}

fn data(at: &str, fields: &Fields, field: &str) -> Result<Option<Vec<u8>>, BadAccess> {
    let Some(text) = text(at, fields, field)? else { return Ok(None) };
    let plain: String = text.split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(plain).map_err(|_| bad(format!("{at}.{field}"), "is not base64"))?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests;
