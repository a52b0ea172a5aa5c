//! One server: how it is reached, and the deadline and limits that every call to it has.

use std::fmt::{self, Debug};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use croft_core::Timestamp;
use croft_core::join::cluster::{Anchor, BadAccess, Fault, Right};
use http_body_util::Limited;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::api::{Api, ListParams};
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

use crate::fault;
use crate::reach::{Reach, Resolver};
use crate::rights::Need;

/// For one request and its answer; an API server under load takes seconds, never this long.
const DEADLINE: Duration = Duration::from_secs(20);
/// Until the first byte can be sent.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(8);
/// For a verb that asks more than once.
const VERB_DEADLINE: Duration = Duration::from_secs(60);
/// Of one answer. A page of nodes with their lists of images is about 2 MiB.
const ANSWER_MAX: usize = 8 * 1024 * 1024;
const PAGE: u32 = 100;
/// More nodes than Kubernetes takes.
const PAGES_MAX: usize = 60;

/// What becomes of a list that is longer than all pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Longer {
    /// A part would be taken for the whole.
    Fails,
    /// A part is good: the rest is read when this part is dealt with.
    IsCut,
}

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

impl Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.anchor.server).finish_non_exhaustive()
    }
}

impl Connection {
    /// kube's own stack would retry what it takes for overload (a PodDisruptionBudget's refusal too), would log every failure
    /// as an error, and would read an answer of any length.
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
            .service(http_client)
            .map_response(|answer| answer.map(|body| Limited::new(body, ANSWER_MAX)));
        Ok(Self { client: Client::new(service, "default"), tls, config, anchor, expires, reach })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn server(&self) -> String {
        self.anchor.server.clone()
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

    /// Every page of a list.
    pub(crate) async fn list<K>(
        &self,
        api: &Api<K>,
        need: Need,
        mut params: ListParams,
        longer: Longer,
    ) -> Result<Vec<K>, Fault>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let right = need.right();
        params.limit = Some(PAGE);
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.ask(&right, api.list(&params)).await?;
            all.extend(page.items);
            match page.metadata.continue_ {
                Some(next) if !next.is_empty() => params.continue_token = Some(next),
                _ => return Ok(all),
            }
        }
        if longer == Longer::IsCut {
            return Ok(all);
        }
        let why = format!("the list has more than {PAGES_MAX} pages of {PAGE}");
        Err(Fault::Refused { server: self.server(), doing: right.to_string(), why })
    }
}
