//! TLS to the plane: what the agent trusts, how it shows who it is, and what a failed handshake means for the operator.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

use super::{Connect, ConnectError};
use crate::identity::Identity;

const CONNECT: Duration = Duration::from_secs(10);
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
        endpoint.connect().await.map_err(|error| match explain(&error) {
            Some(why) => ConnectError::Refused(format!("{}: {why}", self.server)),
            None => ConnectError::Unreachable(format!("{} can not be reached: {}", self.server, innermost(&error))),
        })
    }

    fn host_id(&self) -> Option<String> {
        Identity::load(&self.state_dir).ok().map(|identity| identity.host_id)
    }
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
    Ok(Endpoint::from(uri)
        .connect_timeout(CONNECT)
        // A plane that vanished without a word is noticed within a lease.
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .tls_config(tls)
        .map_err(|error| {
            format!("the CA certificate or this host's certificate is not usable: {}", innermost(&error))
        })?)
}

/// What the operator must do when a handshake failed because of a certificate; `None` when it failed otherwise.
pub(crate) fn explain(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = find_rustls(error) {
            return explain_tls(error);
        }
        cause = error.source();
    }
    None
}

/// rustls hides inside an io::Error, which does not name it as its source.
fn find_rustls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(error);
    }
    let inner = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    find_rustls(inner)
}

fn explain_tls(error: &rustls::Error) -> Option<String> {
    use rustls::AlertDescription as Alert;
    use rustls::CertificateError as Fault;
    let enrol = "enrol this host again with a new token: croft-hostagent enrol";
    match error {
        rustls::Error::AlertReceived(Alert::CertificateExpired) => {
            Some(format!("this host's certificate has expired; {enrol}"))
        }
        rustls::Error::AlertReceived(Alert::UnknownCA | Alert::DecryptError) => {
            Some(format!("this host's certificate comes from another control plane; {enrol}"))
        }
        rustls::Error::AlertReceived(
            alert @ (Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateRevoked
            | Alert::CertificateRequired
            | Alert::AccessDenied),
        ) => Some(format!("this host's certificate is refused ({alert:?}); {enrol}")),
        rustls::Error::InvalidCertificate(Fault::UnknownIssuer | Fault::BadSignature) => Some(
            "its certificate is not from the CA that this host enrolled with: either --server is another control \
             plane, or somebody stands in between"
                .to_owned(),
        ),
        rustls::Error::InvalidCertificate(Fault::NotValidForName | Fault::NotValidForNameContext { .. }) => Some(
            "its certificate is for other names: start croft-controlplane with --public-name for the name in --server"
                .to_owned(),
        ),
        rustls::Error::InvalidCertificate(
            Fault::Expired | Fault::ExpiredContext { .. } | Fault::NotValidYet | Fault::NotValidYetContext { .. },
        ) => Some("its certificate is not valid now: check the clocks of both machines".to_owned()),
        _ => None,
    }
}

/// The cause that says something, without the wrappers around it.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
