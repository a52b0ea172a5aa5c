//! WatchEvents: what happens from now on, or from a token on.

use std::collections::VecDeque;

use croft_core::Result;
use croft_core::event::{Change, Changed, Topic};
use croft_proto::v1;
use futures::stream::{self, BoxStream};
use tonic::Status;

use crate::api::Api;
use crate::auth::guarded;
use crate::caller::Caller;
use crate::convert::event::out;
use crate::status::status;
use crate::watch::{Follower, Scope, Step};

type Stream = BoxStream<'static, Result<v1::WatchEventsResponse, Status>>;

pub async fn watch(api: Api, caller: Caller, request: v1::WatchEventsRequest) -> Result<Stream> {
    let parent = api.parent(&caller, &request.parent).await?;
    let scope = Scope::new(Topic::Events, parent.as_ref(), &caller);
    let (from, first) = match request.resume_token.as_str() {
        // A token at once: who is cut off before the first event has a place to go on from.
        "" => {
            let now = api.store().revision().await?;
            (now, Some(bookmark(&scope, now)))
        }
        token => (scope.revision(token)?, None),
    };
    let within = parent.or_else(|| caller.tenant().cloned());
    let mut follower = Follower::new(api.store(), Topic::Events, within, from);
    // Asked once before the answer begins, so that a token that is too old is the call's own error.
    let mut queue: VecDeque<_> = first.into_iter().collect();
    queue.extend(messages(&scope, follower.read().await?));
    let state = (scope, follower, queue);
    let events = stream::try_unfold(state, |(scope, mut follower, mut queue)| async move {
        loop {
            if let Some(message) = queue.pop_front() {
                return Ok(Some((message, (scope, follower, queue))));
            }
            queue.extend(messages(&scope, follower.next().await.map_err(status)?));
            follower.spoke();
        }
    });
    guarded(&api, &caller, events)
}

fn messages(scope: &Scope, step: Step) -> Vec<v1::WatchEventsResponse> {
    match step {
        Step::Idle(revision) => vec![bookmark(scope, revision)],
        Step::Changes(changes) => changes
            .into_iter()
            .filter_map(|Change { revision, what }| match what {
                Changed::Event(event) => {
                    Some(v1::WatchEventsResponse { event: Some(out(&event)), resume_token: scope.token(revision) })
                }
                Changed::InstanceWritten { .. } | Changed::InstanceRemoved { .. } => None,
            })
            .collect(),
    }
}

fn bookmark(scope: &Scope, revision: i64) -> v1::WatchEventsResponse {
    v1::WatchEventsResponse { event: None, resume_token: scope.token(revision) }
}
