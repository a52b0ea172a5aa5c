//! How a cluster is: whether it answers, what Croft lacks there, when which certificate ends.

use std::time::Duration;

use croft_core::Timestamp;
use croft_core::join::cluster::{Fault, Probe, Right};
use k8s_openapi::api::core::v1::Namespace;
use kube::Resource as _;
use kube::api::GetParams;
use kube::core::request::Request;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::certificate;
use crate::connection::{CONNECT_DEADLINE, Connection};
use crate::fault::{shortened, unsaid};
use crate::policy;
use crate::rights::{self, NAMESPACE_GET, TOKEN_NAMESPACE, VERSION};
use crate::signing;
use crate::wire::{Meta, name};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

pub(crate) async fn probe(connection: &Connection) -> Result<Probe, Fault> {
    // First and alone: a server that cannot be reached is one failure, not twenty.
    let serving_expires = serving_end(connection).await?;
    let version: Version =
        connection.get(&VERSION.right(), Request::new("").get("version", &GetParams::default())).await?;
    let missing = rights::missing(connection).await?;
    let (policies, certificate_life, identity) =
        tokio::try_join!(policy::verify(connection), certificate_life(connection, &missing), identity(connection))?;
    let ca = certificate::from_pem(connection.anchor.ca.as_bytes()).unwrap_or_default();
    Ok(Probe {
        version: shortened(&version.git_version),
        serving_expires,
        ca_expires: ca.iter().filter_map(|der| certificate::end(der)).max(),
        credential_expires: connection.expires,
        missing,
        policies,
        certificate_life,
        identity,
    })
}

/// The namespace is made when the cluster is, and nobody can delete it.
async fn identity(connection: &Connection) -> Result<Option<String>, Fault> {
    #[derive(Deserialize, Default)]
    struct Wire {
        metadata: Meta,
    }
    let request = Request::new(Namespace::url_path(&(), None)).get(TOKEN_NAMESPACE, &GetParams::default());
    match connection.get_opt::<Wire>(&NAMESPACE_GET.right(), request).await {
        Ok(found) => Ok(found.and_then(|namespace| name(namespace.metadata.uid))),
        Err(Fault::Forbidden { .. }) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// A handshake of our own: the client keeps what the server showed to itself.
async fn serving_end(connection: &Connection) -> Result<Option<Timestamp>, Fault> {
    let server = connection.server();
    let unreachable = |why: &str| Fault::Unreachable { server: server.clone(), why: why.to_owned() };
    let config = &connection.config;
    let host = config.cluster_url.host().ok_or_else(|| unreachable("its address has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let name = config.tls_server_name.clone().unwrap_or_else(|| host.to_owned());
    let name = ServerName::try_from(name).map_err(|_| unreachable("its name is no name of a server"))?;
    let handshake = async {
        let addresses = connection.reach.resolve(host, port).await?;
        let stream = TcpStream::connect(&addresses[..]).await?;
        TlsConnector::from(connection.tls.clone()).connect(name, stream).await
    };
    match timeout(CONNECT_DEADLINE, handshake).await {
        Ok(Ok(stream)) => {
            let shown = stream.get_ref().1.peer_certificates();
            Ok(shown.and_then(|all| certificate::end(all.first()?)))
        }
        Ok(Err(error)) => Err(unsaid(server, &error)),
        Err(_) => Err(Fault::Timeout { server, doing: "TLS handshake".to_owned(), after: CONNECT_DEADLINE }),
    }
}

async fn certificate_life(connection: &Connection, missing: &[Right]) -> Result<Option<Duration>, Fault> {
    if missing.contains(&rights::SIGNINGS_LIST.right()) {
        return Ok(None);
    }
    signing::certificate_life(connection).await
}
