//! Long calls end when what they were allowed by ends: a watch or a console must not outlive its token, nor keep a
//! stopping plane waiting.

use std::future::Future;
use std::time::Duration;

use croft_core::access::Principal;
use croft_core::{Error, Reason};
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use tonic::Status;

use super::{Place, unauthenticated};
use crate::api::Api;
use crate::caller::{Caller, Credential};
use crate::status::status;

/// How often to look when nobody in this process took anything back: for expiry, and for what other replicas did.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// `stream` until it ends, the caller's credential does, or the plane stops. Refused when the caller's tenant has too many.
pub fn guarded<T: Send + 'static>(
    api: &Api,
    caller: &Caller,
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> croft_core::Result<BoxStream<'static, Result<T, Status>>> {
    Ok(guarded_in(api.crowd.enter(caller)?, api, caller, stream))
}

/// As [`guarded`], in a place that was taken before.
pub fn guarded_in<T: Send + 'static>(
    place: Place,
    api: &Api,
    caller: &Caller,
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> BoxStream<'static, Result<T, Status>> {
    let stream = stream.map(move |item| {
        let _held = &place;
        item
    });
    until(stream, ended(api.clone(), caller.clone()))
}

/// Resolves when the call must end.
pub async fn ended(api: Api, caller: Caller) -> Status {
    let mut revocations = api.tokens.revocations();
    loop {
        tokio::select! {
            () = api.deps.shutdown.cancelled() => {
                let message = "the control plane is stopping; connect again".to_owned();
                return status(Error::Unavailable { reason: Reason::Unavailable, message });
            }
            _ = revocations.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        // A store that cannot be asked right now takes nothing from anybody.
        if let Ok(false) = holds(&api, &caller).await {
            return status(unauthenticated(format!("{} is no longer allowed in", caller.principal.actor())));
        }
    }
}

/// Whether the caller's credential still is what it was.
async fn holds(api: &Api, caller: &Caller) -> croft_core::Result<bool> {
    match (&caller.principal, &caller.credential) {
        (Principal::Token { id, .. }, Credential::Token { made }) => {
            let now = api.deps.clock.now();
            let found = api.store().token_get(id).await?;
            Ok(found.is_some_and(|token| {
                token.meta.create_time == *made && !token.disabled && token.expire_time.is_none_or(|end| end > now)
            }))
        }
        (Principal::Host(id), Credential::Host { uid }) => {
            Ok(api.store().host_get(id).await?.is_some_and(|host| host.meta.uid == *uid))
        }
        _ => Ok(true),
    }
}

fn until<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    end: impl Future<Output = Status> + Send + 'static,
) -> BoxStream<'static, Result<T, Status>> {
    let state = Some((stream.boxed(), Box::pin(end)));
    stream::unfold(state, async |state| {
        let (mut stream, mut end) = state?;
        tokio::select! {
            biased;
            status = &mut end => Some((Err(status), None)),
            item = stream.next() => match item? {
                Err(status) => Some((Err(status), None)),
                item => Some((item, Some((stream, end)))),
            },
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_ends_with_the_reason_and_says_nothing_after_it() {
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let ended = async move {
            let _ = ended.await;
            Status::unauthenticated("gone")
        };
        let endless = stream::iter([Ok(1), Ok(2)]).chain(stream::pending());
        let mut stream = until(endless, ended);
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        assert_eq!(stream.next().await.unwrap().unwrap(), 2);
        end.send(()).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap_err().message(), "gone");
        assert!(stream.next().await.is_none());
    }
}
