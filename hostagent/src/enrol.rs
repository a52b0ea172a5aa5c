//! How a machine becomes a host: a one-time token and a certificate request, once; then renewals, for ever.

use std::path::{Path, PathBuf};
use std::time::Duration;

use croft_proto::agent::v1::agent_client::AgentClient;
use croft_proto::agent::v1::enrolment_client::EnrolmentClient;
use croft_proto::agent::v1::{EnrolRequest, RenewCertificateRequest};
use tonic::Code;

use crate::clock::Clock;
use crate::identity::{self, Identity, Request};
use crate::link;
use crate::metrics::Metrics;
use crate::plane::Plane;

/// How often a certificate's age is looked at; short, so that a clock that was wrong does no harm for long.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Where a certificate that was just made is due already, one of the two clocks is wrong, and asking each minute would
/// only fill the plane's audit.
const CLOCKS_DISAGREE: Duration = Duration::from_secs(3600);
/// The plane signs at once, or it is not there.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Identity(#[from] identity::Error),
    #[error("--ca-file {}: can not be read", path.display())]
    CaFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Connect(String),
    #[error(
        "the control plane refuses the enrolment token: it was used, has expired or names another host than {host_id:?} \
         ({message}). Ask an operator for a new one; a token is good for one host, once"
    )]
    Token { host_id: String, message: String },
    #[error("the control plane refuses to enrol this host: {0}")]
    Refused(String),
    #[error("the control plane enrolled {signed:?} where {asked:?} was asked for")]
    OtherHost { asked: String, signed: String },
}

/// What the operator was given.
#[derive(Debug, Clone)]
pub struct Invitation {
    pub server: String,
    pub ca_file: PathBuf,
    pub token: String,
    pub host_id: String,
}

/// Safe to repeat with the same token while no certificate arrived: the request is the same one, and the plane then
/// gives the same answer.
pub async fn enrol(invitation: &Invitation, state_dir: &Path) -> Result<Identity, Error> {
    let host_id = &invitation.host_id;
    let request = Request::ensure(state_dir, host_id)?;
    let ca_pem = std::fs::read_to_string(&invitation.ca_file)
        .map_err(|source| Error::CaFile { path: invitation.ca_file.clone(), source })?;
    let endpoint = link::endpoint(&invitation.server, &ca_pem, None).map_err(Error::Connect)?;
    let channel = link::dial(&endpoint, &invitation.server).await.map_err(|error| Error::Connect(error.to_string()))?;
    let asked = within_patience(EnrolRequest { token: invitation.token.clone(), csr_pem: request.csr_pem });
    let signed = EnrolmentClient::new(channel).enrol(asked).await.map_err(|status| {
        let message = status.message().to_owned();
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => Error::Token { host_id: host_id.clone(), message },
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => {
                Error::Connect(format!("{}: {message}", invitation.server))
            }
            _ => Error::Refused(message),
        }
    })?;
    let signed = signed.into_inner();
    if signed.host_id != *host_id {
        return Err(Error::OtherHost { asked: host_id.clone(), signed: signed.host_id });
    }
    Ok(Identity::store(state_dir, &signed.certificate_pem, &signed.ca_pem)?)
}

/// Ends the call when the plane does not answer it.
fn within_patience<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

/// Renews the certificate when two thirds of its life are over, for as long as the agent lives. The same key: a new one
/// could not replace the old one together with its certificate in one step.
pub(crate) async fn keep_renewed(state_dir: PathBuf, plane: Plane, clock: Clock, metrics: Metrics) {
    loop {
        let pause = match renew_if_due(&state_dir, &plane, &clock, &metrics).await {
            Ok(Some(renewed)) if renewed.validity.is_due(clock.wall()) => {
                tracing::error!(
                    "the new certificate is due for renewal already: check the clocks of this machine and of the control plane"
                );
                CLOCKS_DISAGREE
            }
            Ok(_) => LOOK_EVERY,
            Err(error) => {
                tracing::error!("the certificate can not be renewed: {:#}", anyhow::Error::new(error));
                LOOK_EVERY
            }
        };
        clock.sleep(pause).await;
    }
}

/// The new one, when there is one.
async fn renew_if_due(
    state_dir: &Path,
    plane: &Plane,
    clock: &Clock,
    metrics: &Metrics,
) -> Result<Option<Identity>, Error> {
    let identity = Identity::load(state_dir)?;
    metrics.certificate_ends(identity.validity.until.0 / 1_000_000);
    if !identity.validity.is_due(clock.wall()) {
        return Ok(None);
    }
    let Some(channel) = plane.channel() else {
        // Already said that the plane is away; what matters is how long that may last.
        let left = identity.validity.until.since(clock.wall());
        tracing::warn!("the certificate should be renewed; it ends in {} h", left.as_secs() / 3600);
        return Ok(None);
    };
    let request = Request::ensure(state_dir, &identity.host_id)?;
    let asked = within_patience(RenewCertificateRequest { csr_pem: request.csr_pem });
    let signed = AgentClient::new(channel)
        .renew_certificate(asked)
        .await
        .map_err(|status| Error::Refused(status.message().to_owned()))?
        .into_inner();
    let renewed = Identity::store(state_dir, &signed.certificate_pem, &signed.ca_pem)?;
    metrics.certificate_ends(renewed.validity.until.0 / 1_000_000);
    tracing::info!("the certificate is renewed; it is used from the next connection on");
    Ok(Some(renewed))
}
