//! After a restore the plane knows an older world than its hosts live in. Agents are held off until an operator has looked
//! at it: told of an older world, they would make again what was deleted since, and what was placed anew elsewhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use croft_core::ports::BoxFuture;
use http::{Request, Response};
use tower::{Layer, Service};

const LOOK_EVERY: Duration = Duration::from_secs(1);
const AGENTS: &str = "/croft.agent.v1.";

/// Whether agents are held off: as long as the file is there.
#[derive(Debug, Clone)]
pub struct Hold {
    file: Arc<PathBuf>,
    held: Arc<AtomicBool>,
}

impl Hold {
    #[must_use]
    pub fn new(file: PathBuf) -> Self {
        let held = Arc::new(AtomicBool::new(file.exists()));
        Self { file: Arc::new(file), held }
    }

    #[must_use]
    pub fn held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Returns when agents may come in.
    pub async fn watch(self) {
        if self.held() {
            tracing::warn!(
                "this plane was restored from a backup: agents are held off until `croft-controlplane admin \
                 release-agents`; docs/operations.md says what to look at first"
            );
        }
        while self.held() {
            tokio::time::sleep(LOOK_EVERY).await;
            if !self.file.exists() {
                self.held.store(false, Ordering::Relaxed);
                tracing::info!("agents are let in");
            }
        }
    }
}

#[derive(Debug, Clone)]
pub struct HoldLayer(pub Hold);

impl<S> Layer<S> for HoldLayer {
    type Service = Held<S>;

    fn layer(&self, inner: S) -> Held<S> {
        Held { hold: self.0.clone(), inner }
    }
}

#[derive(Debug, Clone)]
pub struct Held<S> {
    hold: Hold,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Held<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.hold.held() && request.uri().path().starts_with(AGENTS) {
            let status = tonic::Status::unavailable(
                "the control plane was restored from a backup and holds agents off until an operator lets them in: \
                 `croft-controlplane admin release-agents`",
            );
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        Box::pin(self.inner.call(request))
    }
}
