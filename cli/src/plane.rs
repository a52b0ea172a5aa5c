//! The connection to the plane: TLS pinned to the context's CA, the bearer token on every call, one typed client per
//! service over one HTTP/2 connection.

use std::time::Duration;

use croft_proto::v1::{
    clusters_client::ClustersClient, devices_client::DevicesClient, events_client::EventsClient,
    hosts_client::HostsClient, images_client::ImagesClient, instances_client::InstancesClient,
    networks_client::NetworksClient, operations_client::OperationsClient, pools_client::PoolsClient,
    quotas_client::QuotasClient, tenants_client::TenantsClient, tokens_client::TokensClient,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Response, Status};

use crate::failure::{Failure, Result};
use crate::retry;
use crate::target::Target;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a call that does not wait for anything by itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// A watch that hears nothing notices a dead peer within half a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

pub type Authenticated = InterceptedService<Channel, Bearer>;

/// Cheap to clone: every clone is the same connection.
#[derive(Debug, Clone)]
pub struct Plane {
    channel: Channel,
    bearer: Bearer,
    /// As the user wrote it, for messages.
    url: String,
}

/// Puts `authorization: Bearer …` on every call.
#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

macro_rules! clients {
    ($($name:ident: $client:ident,)*) => {
        $(#[must_use]
        pub fn $name(&self) -> $client<Authenticated> {
            $client::with_interceptor(self.channel.clone(), self.bearer.clone())
        })*
    };
}

impl Plane {
    /// Connects at the first call, so that a plane that is just restarting is met by the same retries as any other.
    pub fn new(target: &Target) -> Result<Self> {
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {}", target.token)
            .parse()
            .map_err(|_| Failure::usage("the token holds characters that no token has; is it the right file?"))?;
        bearer.set_sensitive(true);
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&target.ca_pem))
            .domain_name(&target.server_name);
        let endpoint = Endpoint::from_shared(target.url.clone())
            .and_then(|endpoint| endpoint.user_agent(format!("croft/{}", croft_program::version())))
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(|error| Failure::usage(format!("{}: {}", target.url, chain(&error))))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_adaptive_window(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        Ok(Self { channel: endpoint.connect_lazy(), bearer: Bearer(bearer), url: target.url.clone() })
    }

    clients! {
        tenants: TenantsClient,
        quotas: QuotasClient,
        tokens: TokensClient,
        images: ImagesClient,
        networks: NetworksClient,
        hosts: HostsClient,
        devices: DevicesClient,
        pools: PoolsClient,
        clusters: ClustersClient,
        instances: InstancesClient,
        operations: OperationsClient,
        events: EventsClient,
    }

    /// One unary call, repeated while the plane is away. Safe for every call: reads change nothing, and what changes
    /// something carries a request id.
    pub async fn call<Q: Clone, A>(
        &self,
        request: Q,
        rpc: impl AsyncFn(Self, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A> {
        self.call_within(CALL_TIMEOUT, request, rpc).await
    }

    /// For calls that wait by themselves; `limit` is the longest that the answer may take.
    pub async fn call_within<Q: Clone, A>(
        &self,
        limit: Duration,
        request: Q,
        rpc: impl AsyncFn(Self, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A> {
        let once = async || {
            let mut request = Request::new(request.clone());
            request.set_timeout(limit);
            match tokio::time::timeout(limit, rpc(self.clone(), request)).await {
                Ok(answer) => answer.map(Response::into_inner),
                Err(_) => {
                    Err(Status::deadline_exceeded(format!("no answer from {} in {} s", self.url, limit.as_secs())))
                }
            }
        };
        retry::while_away(once).await.map_err(|status| self.explain(status))
    }

    /// What only this side knows about a call that never reached the plane.
    #[must_use]
    pub fn explain(&self, status: Status) -> Failure {
        if let Some(problem) = retry::tls_problem(&status) {
            return Failure::Unavailable(format!(
                "{} does not prove to be the plane of this context: {problem}; check the context's server and CA file",
                self.url
            ));
        }
        if retry::is_local(&status) && retry::is_away(&status) {
            return Failure::Unavailable(format!("cannot reach {}: {}", self.url, chain(&status)));
        }
        status.into()
    }
}

/// The causes in a row, each said once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // Status and the transport's wrappers repeat what they wrap.
        let wrapper = error.source().is_some() && (text.starts_with("code: ") || text == "transport error");
        if !wrapper && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
}
