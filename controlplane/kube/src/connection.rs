//! One server: how it is reached, and the deadline that every call to it has.

use std::fmt::{self, Debug};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use croft_core::Timestamp;
use croft_core::join::cluster::{Anchor, BadAccess, Fault, Right};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::core::request;
use kube::{Client, Config};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder};

use crate::answer::Answer;
use crate::fault;
use crate::reach::{Reach, Resolver};

/// For one request and its answer; an API server under load takes seconds, never this long.
const DEADLINE: Duration = Duration::from_secs(20);
/// Until the first byte can be sent.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(8);
/// For a verb that asks more than once.
const VERB_DEADLINE: Duration = Duration::from_secs(60);

/// As kube writes it, before it is sent.
pub(crate) type Request = Result<http::Request<Vec<u8>>, request::Error>;

#[derive(Clone)]
pub(crate) struct Connection {
    client: Client,
    pub(crate) tls: Arc<rustls::ClientConfig>,
    pub(crate) config: Config,
    pub(crate) anchor: Anchor,
    /// Of a credential that does not renew itself.
    pub(crate) expires: Option<Timestamp>,
    pub(crate) reach: Reach,
}

/// Of an object of ours, which always can be written.
pub(crate) fn text(object: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(object).unwrap_or_default()
}

impl Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.anchor.server).finish_non_exhaustive()
    }
}

impl Connection {
    /// kube's own stack would retry what it takes for overload (a PodDisruptionBudget's refusal too), and log every failure as an
    /// error.
    pub(crate) fn new(
        config: Config,
        anchor: Anchor,
        expires: Option<Timestamp>,
        reach: Reach,
    ) -> Result<Self, BadAccess> {
        let bad = |error: kube::Error| BadAccess { field: "credential".to_owned(), problem: fault::chain(&error) };
        let tls = Arc::new(config.rustls_client_config().map_err(bad)?);
        let mut http = HttpConnector::new_with_resolver(Resolver(reach.clone()));
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_DEADLINE));
        let https = config.rustls_https_connector_with_connector(http).map_err(bad)?;
        let http_client: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(https);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(bad)?)
            .map_err(BoxError::from)
            .service(http_client);
        Ok(Self { client: Client::new(service, "default"), tls, config, anchor, expires, reach })
    }

    pub(crate) fn server(&self) -> String {
        self.anchor.server.clone()
    }

    /// Asks without a deadline.
    pub(crate) async fn call(&self, request: Request) -> Result<Answer, kube::Error> {
        let request = request.map_err(kube::Error::BuildRequest)?;
        Answer::of(self.client.send(request.map(Body::from)).await?).await
    }

    pub(crate) async fn say(&self, right: &Right, request: Request) -> Result<Answer, Fault> {
        self.ask(right, self.call(request)).await
    }

    /// And reads the answer, which is one object.
    pub(crate) async fn get<T: DeserializeOwned>(&self, right: &Right, request: Request) -> Result<T, Fault> {
        self.read(right, &self.say(right, request).await?)
    }

    /// `None`: there is no such object.
    pub(crate) async fn get_opt<T: DeserializeOwned>(
        &self,
        right: &Right,
        request: Request,
    ) -> Result<Option<T>, Fault> {
        match self.get(right, request).await {
            Err(Fault::NotFound { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, right: &Right, answer: &Answer) -> Result<T, Fault> {
        answer.read().map_err(|error| {
            let why = match answer.is_whole() {
                true => format!("its answer cannot be read: {}", fault::chain(&error)),
                false => "its answer is too long to read".to_owned(),
            };
            Fault::Refused { server: self.server(), doing: right.to_string(), why }
        })
    }

    /// `right`: what is asked, in the words of RBAC.
    pub(crate) async fn ask<T>(
        &self,
        right: &Right,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Fault> {
        match timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(match fault::of(&self.anchor.server, right, &error) {
                Fault::Unauthorized { server, .. } => Fault::Unauthorized { server, expires: self.expires },
                other => other,
            }),
            Err(_) => Err(Fault::Timeout { server: self.server(), doing: right.to_string(), after: DEADLINE }),
        }
    }

    /// For a verb of several calls: `doing` says which.
    pub(crate) async fn whole<T>(&self, doing: &str, verb: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let late = |_| Err(Fault::Timeout { server: self.server(), doing: doing.to_owned(), after: VERB_DEADLINE });
        timeout(VERB_DEADLINE, verb).await.unwrap_or_else(late)
    }
}
