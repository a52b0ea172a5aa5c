//! Around every call: it is counted while it is open, and a panic in its handler becomes an answer.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use croft_core::ports::BoxFuture;
use futures::FutureExt;
use http::{Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use tower::{Layer, Service};

use crate::metrics::{Metrics, OpenCall};

#[derive(Debug, Clone)]
pub struct CallsLayer(pub Arc<Metrics>);

impl<S> Layer<S> for CallsLayer {
    type Service = Calls<S>;

    fn layer(&self, inner: S) -> Calls<S> {
        Calls { metrics: self.0.clone(), inner }
    }
}

#[derive(Debug, Clone)]
pub struct Calls<S> {
    metrics: Arc<Metrics>,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Calls<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<Counted<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let open = self.metrics.call(&path);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = match AssertUnwindSafe(answer).catch_unwind().await {
                Ok(answer) => answer?,
                Err(_) => {
                    // The panic hook has told where.
                    tracing::error!(method = path, "a handler panicked; this is a fault of Croft's, please report it");
                    tonic::Status::internal("internal error").into_http()
                }
            };
            Ok(response.map(|inner| Counted { inner, open }))
        })
    }
}

/// A body whose call is open for as long as it lives.
#[derive(Debug)]
pub struct Counted<R> {
    inner: R,
    #[expect(dead_code, reason = "counts down when it is dropped")]
    open: OpenCall,
}

impl<R: Body + Unpin> Body for Counted<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
