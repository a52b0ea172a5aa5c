//! The plane with TLS, its built-in CA and one-time tokens.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use croft_proto::agent::v1::agent_server::AgentServer;
use croft_proto::agent::v1::enrolment_server::{Enrolment, EnrolmentServer};
use croft_proto::agent::v1::{EnrolRequest, EnrolResponse, RenewCertificateResponse};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName, DnType,
    IsCa, KeyPair, date_time_ymd,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::plane::Plane;

#[derive(Clone)]
pub struct Ca(Arc<CertifiedIssuer<'static, KeyPair>>);

#[derive(Clone)]
pub struct Tokens {
    ca: Ca,
    host_id: &'static str,
    /// The token, and the request that it was spent on.
    token: Arc<Mutex<(String, Option<String>)>>,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(Arc::new(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("ca")))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a request for a validity in years; the clock of these tests is the real one.
    pub fn sign(&self, csr_pem: &str, from: i32, until: i32) -> String {
        let mut csr = CertificateSigningRequestParams::from_pem(csr_pem).expect("csr");
        csr.params.not_before = date_time_ymd(from, 1, 1);
        csr.params.not_after = date_time_ymd(until, 1, 1);
        csr.signed_by(&*self.0).expect("signed").pem()
    }

    fn server(&self) -> Identity {
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("params");
        params.distinguished_name = named("plane");
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &*self.0).expect("signed");
        Identity::from_pem(certificate.pem(), key.serialize_pem())
    }

    /// Serves the plane, with enrolment for one host.
    pub async fn serve(&self, plane: &Plane, host_id: &'static str, token: &str) -> SocketAddr {
        let ca = self.clone();
        plane.lock().renew = Some(Arc::new(move |csr_pem: &str| RenewCertificateResponse {
            certificate_pem: ca.sign(csr_pem, 2020, 2090),
            ca_pem: ca.pem(),
        }));
        let tls = ServerTlsConfig::new()
            .identity(self.server())
            .client_ca_root(Certificate::from_pem(self.pem()))
            .client_auth_optional(true);
        let tokens = Tokens { ca: self.clone(), host_id, token: Arc::new(Mutex::new((token.to_owned(), None))) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let at = listener.local_addr().expect("address");
        let server = Server::builder()
            .tls_config(tls)
            .expect("tls")
            .add_service(EnrolmentServer::new(tokens))
            .add_service(AgentServer::new(plane.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        at
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

#[tonic::async_trait]
impl Enrolment for Tokens {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolResponse>, Status> {
        let EnrolRequest { token, csr_pem } = request.into_inner();
        let mut known = self.token.lock().expect("no panic under the lock");
        let fresh = known.1.as_ref().is_none_or(|spent| *spent == csr_pem);
        if token != known.0 || !fresh {
            return Err(Status::unauthenticated("the token was spent"));
        }
        known.1 = Some(csr_pem.clone());
        Ok(Response::new(EnrolResponse {
            host_id: self.host_id.to_owned(),
            // Old enough to be due for renewal.
            certificate_pem: self.ca.sign(&csr_pem, 2000, 2035),
            ca_pem: self.ca.pem(),
        }))
    }
}
