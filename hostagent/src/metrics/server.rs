//! `GET /metrics`, and `GET /healthz` for whoever supervises the process. Nothing else, and nothing secret.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{Source, exposition};
use crate::tasks::Tasks;

/// Answers until the agent ends. Returns the address, for a port 0.
pub async fn serve(at: SocketAddr, source: Source, tasks: Tasks) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(at).await?;
    let at = listener.local_addr()?;
    let connections = tasks.clone();
    tasks.spawn(async move {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: they come back.
                    tracing::warn!("metrics: {error}");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    continue;
                }
            };
            let source = source.clone();
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let source = source.clone();
                    async move { Ok::<_, Infallible>(answer(&request, &source).await) }
                });
                // A reader that went away is no news.
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(at)
}

async fn answer(request: &Request<Incoming>, source: &Source) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(exposition::CONTENT_TYPE));
            *response.body_mut() = Full::from(source.text().await);
        }
        (&Method::GET, "/healthz") => *response.body_mut() = Full::from("ok\n"),
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}
