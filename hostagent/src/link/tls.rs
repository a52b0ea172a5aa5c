//! TLS to the plane: what the agent trusts, how it shows who it is, and what a failed handshake means for the operator.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

use super::{Connect, ConnectError};
use crate::identity::Identity;

const CONNECT: Duration = Duration::from_secs(10);
/// For TCP, TLS and HTTP/2 together: something that takes the connection and then says nothing is not the plane.
const HANDSHAKE: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Dials with the certificate that is on the disk at that moment: a renewed one is used from the next dial on.
#[derive(Debug, Clone)]
pub struct MutualTls {
    pub server: String,
    pub state_dir: PathBuf,
}

#[async_trait]
impl Connect for MutualTls {
    async fn connect(&self) -> Result<Channel, ConnectError> {
        let state_dir = self.state_dir.clone();
        let identity = tokio::task::spawn_blocking(move || Identity::load(&state_dir))
            .await
            .map_err(|error| ConnectError::Unreachable(error.to_string()))?
            .map_err(|error| ConnectError::Refused(error.to_string()))?;
        let tls = TlsIdentity::from_pem(&identity.certificate_pem, &identity.key_pem);
        let endpoint = endpoint(&self.server, &identity.ca_pem, Some(tls)).map_err(ConnectError::Refused)?;
        dial(&endpoint, &self.server).await
    }

    fn host_id(&self) -> Option<String> {
        Identity::load(&self.state_dir).ok().map(|identity| identity.host_id)
    }
}

/// The whole way to a connection that answers, within a deadline.
pub(crate) async fn dial(endpoint: &Endpoint, server: &str) -> Result<Channel, ConnectError> {
    dial_within(HANDSHAKE, endpoint, server).await
}

async fn dial_within(deadline: Duration, endpoint: &Endpoint, server: &str) -> Result<Channel, ConnectError> {
    let connected = tokio::time::timeout(deadline, endpoint.connect()).await.map_err(|_| {
        let seconds = deadline.as_secs();
        ConnectError::Unreachable(format!("{server} took the connection and said nothing for {seconds} s"))
    })?;
    connected.map_err(|error| match explain(&error) {
        Some(why) => ConnectError::Refused(format!("{server}: {why}")),
        None => ConnectError::Unreachable(format!("{server} can not be reached: {}", innermost(&error))),
    })
}

/// `server` is HOST:PORT; nothing but `ca_pem` is trusted.
pub(crate) fn endpoint(server: &str, ca_pem: &str, identity: Option<TlsIdentity>) -> Result<Endpoint, String> {
    let malformed = |error: &dyn StdError| format!("--server {server:?} is not HOST:PORT: {error}");
    let uri: http::Uri = format!("https://{server}").parse().map_err(|error| malformed(&error))?;
    if uri.port().is_none() || uri.path() != "/" {
        return Err(format!("--server {server:?} is not HOST:PORT"));
    }
    let name = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let mut tls = ClientTlsConfig::new().domain_name(name).ca_certificate(Certificate::from_pem(ca_pem));
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    Endpoint::from(uri)
        .connect_timeout(CONNECT)
        // A plane that vanished without a word is noticed within a lease.
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tls_config(tls)
        .map_err(|error| format!("the CA certificate or this host's certificate is not usable: {}", innermost(&error)))
}

/// What the operator must do when a handshake failed because of a certificate; `None` when it failed otherwise.
pub(crate) fn explain(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(why) = explain_tls(error).or_else(|| explain_alert(&error.to_string())) {
            return Some(why);
        }
        cause = error.source();
    }
    None
}

/// What this side found wrong with the plane's certificate. rustls hides inside an io::Error, which does not name it as
/// its source.
fn explain_tls(error: &(dyn StdError + 'static)) -> Option<String> {
    use rustls::CertificateError as Fault;
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let error = match inner {
        Some(inner) => inner.downcast_ref::<rustls::Error>()?,
        None => error.downcast_ref::<rustls::Error>()?,
    };
    let rustls::Error::InvalidCertificate(fault) = error else { return None };
    let why = match fault {
        Fault::UnknownIssuer | Fault::BadSignature => {
            "its certificate is not from the CA that this host enrolled with: either --server is another control \
             plane, or somebody stands in between"
        }
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
            "its certificate is for other names: start croft-controlplane with --public-name for the name in --server"
        }
        Fault::Expired | Fault::ExpiredContext { .. } | Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            "its certificate is not valid now: check the clocks of both machines"
        }
        _ => return None,
    };
    Some(why.to_owned())
}

/// What the plane found wrong with ours. In TLS 1.3 it says so only after the handshake, and HTTP/2 keeps nothing of the
/// error but its words.
fn explain_alert(words: &str) -> Option<String> {
    let (_, alert) = words.split_once("received fatal alert: ")?;
    let fault = match alert.trim_end_matches(|byte: char| !byte.is_ascii_alphanumeric()) {
        "CertificateExpired" => "has expired",
        "UnknownCA" | "DecryptError" => "comes from another control plane",
        "BadCertificate" | "CertificateUnknown" | "CertificateRevoked" | "CertificateRequired" | "AccessDenied" => {
            "is refused"
        }
        _ => return None,
    };
    Some(format!(
        "this host's certificate {fault} ({alert}); enrol this host again with a new token: croft-hostagent enrol"
    ))
}

/// The cause that says something, without the wrappers around it.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_takes_the_connection_and_says_nothing_is_given_up() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("ca").cert.pem();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let server = silent.local_addr().expect("address").to_string();
        let endpoint = endpoint(&server, &ca, None).expect("endpoint");
        let dialled = tokio::spawn(async move { dial_within(Duration::from_millis(300), &endpoint, &server).await });
        let _taken = silent.accept().await.expect("taken");
        let gave_up = tokio::time::timeout(Duration::from_secs(10), dialled).await.expect("it waits for ever");
        match gave_up.expect("no panic") {
            Err(ConnectError::Unreachable(why)) => assert!(why.contains("said nothing"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}
