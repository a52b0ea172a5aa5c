//! Tells whoever counts how each call ended: method, code, seconds. The outermost layer, so that refused calls count too.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use croft_core::ports::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;
use tonic::Code;
use tower::{Layer, Service};

use crate::auth;

/// (gRPC path, how it ended, how long it took): called once for each call, a stream's when the stream ended.
/// Paths that are not ours come as `other`, so that nobody can make up label values.
pub type Observe = Arc<dyn Fn(&'static str, Code, Duration) + Send + Sync>;

#[derive(Clone)]
pub struct MetricsLayer(pub Observe);

impl std::fmt::Debug for MetricsLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetricsLayer")
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;

    fn layer(&self, inner: S) -> Metrics<S> {
        Metrics { observe: self.0.clone(), inner }
    }
}

#[derive(Clone)]
pub struct Metrics<S> {
    observe: Observe,
    inner: S,
}

impl<S: std::fmt::Debug> std::fmt::Debug for Metrics<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Metrics").field(&self.inner).finish()
    }
}

impl<S, B, R> Service<Request<B>> for Metrics<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: 'static,
{
    type Response = Response<Counted<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = auth::method(request.uri().path()).map_or("other", |(path, _)| path);
        // Counts as cancelled until something else is known: also when this future is dropped.
        let mut call = Call { observe: self.observe.clone(), method, began: Instant::now(), code: Code::Cancelled };
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            // An error without a body says so in its head.
            call.note(response.headers());
            Ok(response.map(|inner| Counted { inner, call }))
        })
    }
}

/// One call; tells when it is dropped.
struct Call {
    observe: Observe,
    method: &'static str,
    began: Instant,
    code: Code,
}

impl Call {
    fn note(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = Code::from_bytes(code.as_bytes());
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        (self.observe)(self.method, self.code, self.began.elapsed());
    }
}

/// A body that looks at its own trailers as they pass.
pub struct Counted<R> {
    inner: R,
    call: Call,
}

impl<R> std::fmt::Debug for Counted<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counted").field("method", &self.call.method).finish_non_exhaustive()
    }
}

impl<R: Body + Unpin> Body for Counted<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    self.call.note(trailers);
                }
            }
            Some(Err(_)) => self.call.code = Code::Unknown,
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Trailers(Option<HeaderMap>);

    impl Body for Trailers {
        type Data = bytes::Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<bytes::Bytes>, Infallible>>> {
            Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
        }
    }

    type Seen = Arc<Mutex<Vec<(&'static str, Code)>>>;

    async fn one(path: &str, head: Option<&str>, trailer: Option<&str>, read: bool) -> Vec<(&'static str, Code)> {
        let seen = Seen::default();
        let noted = seen.clone();
        let observe: Observe = Arc::new(move |method, code, _| noted.lock().unwrap().push((method, code)));
        let mut response = Response::new(Trailers(trailer.map(|code| {
            HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), code.parse().unwrap())])
        })));
        if let Some(code) = head {
            response.headers_mut().insert("grpc-status", code.parse().unwrap());
        }
        let answer = Arc::new(Mutex::new(Some(response)));
        let inner = tower::service_fn(move |_: Request<()>| {
            let response = answer.lock().unwrap().take();
            async move { response.ok_or("asked twice") }
        });
        let mut service = MetricsLayer(observe).layer(inner);
        let request = Request::builder().uri(path).body(()).unwrap();
        let mut response = service.call(request).await.unwrap();
        if read {
            std::future::poll_fn(|context| Pin::new(response.body_mut()).poll_frame(context)).await;
        }
        drop(response);
        let seen = seen.lock().unwrap();
        seen.clone()
    }

    #[tokio::test]
    async fn each_call_is_told_once_with_the_code_it_ended_with() {
        let path = "/croft.v1.Tenants/GetTenant";
        assert_eq!(one(path, None, Some("0"), true).await, [(path, Code::Ok)]);
        assert_eq!(one(path, Some("5"), None, false).await, [(path, Code::NotFound)]);
        assert_eq!(one("/a/b", Some("12"), None, false).await, [("other", Code::Unimplemented)]);
        // Hung up before the end.
        assert_eq!(one(path, None, Some("0"), false).await, [(path, Code::Cancelled)]);
    }
}
