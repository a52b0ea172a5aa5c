//! Authentication and authorisation, around all services and not in any of them: a handler that forgets to ask cannot
//! exist.
//!
//! ```text
//! path ──► permission (declared in the proto) ──► who calls? ──► may he? ──► Caller into the extensions ──► handler
//!            │ not ours                               │ nobody we know │ no
//!            └─ UNIMPLEMENTED, or public              └─ UNAUTHENTICATED └─ PERMISSION_DENIED     (one audit row each)
//! ```
//! Refused calls are answered before a byte of their body is read. What a permitted caller may *see* is `scope`'s to say.

mod authenticate;
mod cache;
mod crowd;
mod lifetime;
mod refusals;

use std::convert::Infallible;
use std::task::{Context, Poll};

use croft_core::access::Principal;
use croft_core::ports::BoxFuture;
use croft_core::{Error, Reason, Result};
use http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

use crate::api::Api;
use crate::caller::{Caller, Credential};
use crate::mutation;
use crate::status::status;

pub use cache::TokenCache;
#[cfg(test)]
pub use crowd::MOST as CROWD_MOST;
pub use crowd::{Crowd, Place};
pub use lifetime::{ended, guarded, guarded_in};
pub use refusals::Refusals;

/// Say what runs, and nothing about what it holds.
const PUBLIC: [&str; 3] =
    ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/", "/grpc.reflection.v1alpha.ServerReflection/"];

/// The row of [`croft_proto::PERMISSIONS`]: the path as a constant, and what it asks for.
#[must_use]
pub fn method(path: &str) -> Option<(&'static str, &'static str)> {
    let rows = croft_proto::PERMISSIONS;
    rows.binary_search_by_key(&path, |row| row.0).ok().map(|at| rows[at])
}

#[derive(Debug, Clone)]
pub struct AuthLayer(pub Api);

impl<S> Layer<S> for AuthLayer {
    type Service = Auth<S>;

    fn layer(&self, inner: S) -> Auth<S> {
        Auth { api: self.0.clone(), inner }
    }
}

#[derive(Debug, Clone)]
pub struct Auth<S> {
    api: Api,
    inner: S,
}

impl<S, B, R> Service<Request<B>> for Auth<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<R>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The one that was polled ready goes along; a fresh clone stays.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        let path = request.uri().path();
        if PUBLIC.iter().any(|service| path.starts_with(service)) {
            return Box::pin(inner.call(request));
        }
        let Some((method, permission)) = method(path) else {
            let unknown = tonic::Status::unimplemented(format!("{path} is no method of this server"));
            return Box::pin(std::future::ready(Ok(unknown.into_http())));
        };
        let api = self.api.clone();
        Box::pin(async move {
            // What authentication needs, taken out: a body cannot be shared between threads.
            let (headers, peer) = (request.headers().clone(), (api.deps.identify)(request.extensions()));
            match admit(&api, method, permission, &headers, peer).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(error) => Ok(status(error).into_http()),
            }
        })
    }
}

/// Who calls, if he may.
async fn admit(
    api: &Api,
    method: &'static str,
    permission: &'static str,
    headers: &HeaderMap,
    peer: crate::caller::Peer,
) -> Result<Caller> {
    let stranger = |address: &str| Caller {
        principal: Principal::Anonymous,
        method,
        peer: address.to_owned(),
        credential: Credential::None,
    };
    // Whoever enrols has no credential yet, and one that he sends by habit is not looked at.
    if permission == "public" {
        return Ok(stranger(&peer.address));
    }
    let (principal, credential) = match authenticate::authenticate(api, headers, &peer).await {
        Ok(found) => found,
        Err(error) => {
            if matches!(error, Error::Unauthenticated { .. }) {
                refusals::note(api, stranger(&peer.address), error.to_string());
            }
            return Err(error);
        }
    };
    let caller = Caller { principal, method, peer: peer.address, credential };
    if caller.principal.may(permission) {
        return Ok(caller);
    }
    let message = denial(&caller.principal, permission);
    let entry = mutation::audit_entry(api, &caller, tonic::Code::PermissionDenied, &message);
    mutation::append(api, entry).await;
    Err(Error::Denied { message })
}

fn denial(principal: &Principal, permission: &str) -> String {
    let actor = principal.actor();
    match (principal, permission) {
        (_, "host") => format!("{actor} is not a host: only an enrolled host's certificate opens this"),
        (Principal::Token { role, .. }, _) => {
            format!(
                "{actor} has the role {}, which lacks {permission}",
                crate::convert::token::role_out(*role).as_str_name()
            )
        }
        _ => format!("{actor} lacks {permission}"),
    }
}

fn unauthenticated(message: impl Into<String>) -> Error {
    Error::Unauthenticated { reason: Reason::Unauthenticated, message: message.into() }
}

#[cfg(test)]
mod tests;
