//! Hosts' agents: how a machine becomes a host, and the stream over which it is told what to run.

mod blob;
mod certificate;
mod enrol;
pub mod features;
mod negotiate;
mod observe;
mod sent;
mod session;
mod throttle;
mod tunnel;

use croft_core::Result;
use croft_core::access::Principal;
use croft_core::id::HostId;
use croft_proto::agent::v1 as wire;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::api::Api;
use crate::caller::Caller;
use crate::status::status;

pub use throttle::Refused;

/// The built-in CA, as far as handlers need it.
pub trait Signer: Send + Sync + 'static {
    /// A certificate (PEM) for the key of this CSR. The name in it is `host` and `host_uid`, not what the CSR asks for.
    fn sign_host(&self, csr_pem: &str, host: &HostId, host_uid: &str) -> Result<String>;

    fn ca_pem(&self) -> String;
}

#[tonic::async_trait]
impl wire::enrolment_server::Enrolment for Api {
    async fn enrol(&self, request: Request<wire::EnrolRequest>) -> Result<Response<wire::EnrolResponse>, Status> {
        enrol::enrol(self, request).await.map(Response::new).map_err(status)
    }
}

#[tonic::async_trait]
impl wire::agent_server::Agent for Api {
    type SessionStream = BoxStream<'static, Result<wire::PlaneMessage, Status>>;
    type FetchBlobStream = BoxStream<'static, Result<wire::FetchBlobResponse, Status>>;
    type TunnelStream = BoxStream<'static, Result<wire::TunnelFrame, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<wire::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (caller, host) = host(&request)?;
        Ok(Response::new(session::spawn(self.clone(), caller, host, request.into_inner())))
    }

    async fn fetch_blob(
        &self,
        request: Request<wire::FetchBlobRequest>,
    ) -> Result<Response<Self::FetchBlobStream>, Status> {
        let (_, host) = host(&request)?;
        blob::fetch(self, &host, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn tunnel(
        &self,
        request: Request<Streaming<wire::TunnelFrame>>,
    ) -> Result<Response<Self::TunnelStream>, Status> {
        let (_, host) = host(&request)?;
        Ok(Response::new(tunnel::spawn(self.clone(), host, request.into_inner())))
    }

    async fn renew_certificate(
        &self,
        request: Request<wire::RenewCertificateRequest>,
    ) -> Result<Response<wire::RenewCertificateResponse>, Status> {
        let (caller, host) = host(&request)?;
        certificate::renew(self, caller, host, request.into_inner()).await.map(Response::new).map_err(status)
    }
}

/// The host that calls. The authentication layer lets nobody else through.
fn host<T>(request: &Request<T>) -> Result<(Caller, HostId), Status> {
    let caller = Caller::of(request).map_err(status)?;
    match &caller.principal {
        Principal::Host(host) => {
            let host = host.clone();
            Ok((caller, host))
        }
        other => {
            let cause = format!("{} came to the agents' service", other.actor());
            Err(status(croft_core::Error::internal(cause)))
        }
    }
}
