//! `/metrics`, `/healthz` (the process lives) and `/readyz` (it can serve), over plain HTTP/1.
//!
//! Tells no secrets, and yet who has quota for what is nobody else's business: it listens on loopback unless told
//! otherwise.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::truth::Reader;
use super::{Format, Metrics};

/// A few scrapers, and a person with curl.
const CONNECTIONS: usize = 32;
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
const CONNECTION_AT_MOST: Duration = Duration::from_secs(600);

type Answer = Response<Full<Bytes>>;

/// Why the plane is not ready; empty: it is.
pub type Obstacles = Arc<dyn Fn() -> croft_core::ports::BoxFuture<'static, Vec<String>> + Send + Sync>;

/// What is answered from.
#[derive(Clone)]
pub struct Source {
    pub metrics: Arc<Metrics>,
    pub reader: Arc<Reader>,
    pub obstacles: Obstacles,
    /// (hosts that were heard from, whether agents are held off)
    pub agents: Arc<dyn Fn() -> (usize, bool) + Send + Sync>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// Until `stop`; scrapes that are under way then are cut.
pub async fn serve(listener: TcpListener, source: Source, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    let accept = async {
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            let source = source.clone();
            connections.spawn(async move {
                let answers = service_fn(move |request| {
                    let source = source.clone();
                    async move { Ok::<_, Infallible>(source.answer(&request).await) }
                });
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
                let connection = http.serve_connection(TokioIo::new(stream), answers);
                // Whoever hangs up in between has nothing to be told.
                let _ = tokio::time::timeout(CONNECTION_AT_MOST, connection).await;
                drop(place);
            });
        }
    };
    let _ = stop.run_until_cancelled(accept).await;
}

impl Source {
    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".to_owned());
            answer.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/metrics" => {
                let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
                self.scrape(Format::of(accept)).await
            }
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => match (self.obstacles)().await {
                none if none.is_empty() => text(StatusCode::OK, "ok\n".to_owned()),
                obstacles => text(StatusCode::SERVICE_UNAVAILABLE, obstacles.join("\n") + "\n"),
            },
            _ => text(StatusCode::NOT_FOUND, "/metrics, /healthz and /readyz are here\n".to_owned()),
        }
    }

    async fn scrape(&self, format: Format) -> Answer {
        let (sessions, held) = (self.agents)();
        self.metrics.host_sessions.set(i64::try_from(sessions).unwrap_or(i64::MAX));
        self.metrics.agents_held.set(held.into());
        let truth = self.reader.read().await;
        match self.metrics.render(&truth, format) {
            Ok(body) => with_type(StatusCode::OK, format.content_type(), body),
            Err(error) => {
                tracing::error!(%error, "the metrics cannot be written down");
                text(StatusCode::INTERNAL_SERVER_ERROR, "the log has the cause\n".to_owned())
            }
        }
    }
}

fn text(status: StatusCode, body: String) -> Answer {
    with_type(status, "text/plain; charset=utf-8", body)
}

fn with_type(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    answer
}
