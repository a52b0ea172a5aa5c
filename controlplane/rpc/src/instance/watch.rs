//! WatchInstances.
//!
//! ```text
//! no token: revision r ─► every instance now (ADDED) ─► SYNCED, token r ─┐
//! token r:  ─────────────────────────────────────────────────────────────┴─► what came after r, BOOKMARK when idle
//! ```
//! `r` is taken before the list: a change in between is told again after it, and none is missed. Messages before SYNCED
//! have no token, because whoever is cut off among them has not seen everything up to any revision.

use std::collections::VecDeque;

use croft_core::Result;
use croft_core::event::{Change, Changed, Topic};
use croft_core::id::TenantId;
use croft_core::instance::Instance;
use croft_proto::v1;
use croft_store::{InstanceFilter, Page};
use futures::stream::{self, BoxStream};
use tonic::Status;
use v1::watch_instances_response::Kind;

use crate::api::Api;
use crate::auth::guarded;
use crate::caller::Caller;
use crate::convert::instance::out;
use crate::status::status;
use crate::watch::{Follower, Scope, Step};

type Stream = BoxStream<'static, Result<v1::WatchInstancesResponse, Status>>;

const SNAPSHOT_PAGE: i64 = 200;

pub async fn watch(api: Api, caller: Caller, request: v1::WatchInstancesRequest) -> Result<Stream> {
    let tenant = api.parent(&caller, &request.parent).await?;
    let scope = Scope::new(Topic::Instances, tenant.as_ref(), &caller);
    let within = tenant.clone().or_else(|| caller.tenant().cloned());
    let (revision, snapshot) = match request.resume_token.as_str() {
        "" => (api.store().revision().await?, Some(Page { size: SNAPSHOT_PAGE, token: None })),
        token => (scope.revision(token)?, None),
    };
    let follower = Follower::new(api.store(), Topic::Instances, within.clone(), revision);
    let filter = InstanceFilter { within, tenant: tenant.clone(), ..InstanceFilter::default() };
    let mut watching =
        Watching { api: api.clone(), scope, tenant, filter, snapshot, revision, follower, queue: VecDeque::new() };
    if watching.snapshot.is_none() {
        // Asked once before the answer begins, so that a token that is too old is the call's own error.
        let step = watching.follower.read().await?;
        watching.take(step);
    }
    let messages = stream::try_unfold(watching, |mut watching| async move {
        let message = watching.next().await.map_err(status)?;
        Ok(Some((message, watching)))
    });
    guarded(&api, &caller, messages)
}

struct Watching {
    api: Api,
    scope: Scope,
    /// Exactly this one; `None`: all that the caller may see.
    tenant: Option<TenantId>,
    filter: InstanceFilter,
    /// The next page of the list, while there is one.
    snapshot: Option<Page>,
    /// At which the list began.
    revision: i64,
    follower: Follower,
    queue: VecDeque<v1::WatchInstancesResponse>,
}

impl Watching {
    async fn next(&mut self) -> Result<v1::WatchInstancesResponse> {
        loop {
            if let Some(message) = self.queue.pop_front() {
                return Ok(message);
            }
            match self.snapshot.take() {
                Some(page) => self.list(page).await?,
                None => {
                    let step = self.follower.next().await?;
                    self.take(step);
                    if !self.queue.is_empty() {
                        self.follower.spoke();
                    }
                }
            }
        }
    }

    async fn list(&mut self, page: Page) -> Result<()> {
        let (instances, next, _) = self.api.store().instance_list(&self.filter, &page).await?;
        self.queue.extend(instances.iter().map(|instance| message(Kind::Added, Some(instance), String::new())));
        match next {
            Some(token) => self.snapshot = Some(Page { size: SNAPSHOT_PAGE, token: Some(token) }),
            None => self.queue.push_back(message(Kind::Synced, None, self.scope.token(self.revision))),
        }
        Ok(())
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Idle(revision) => self.queue.push_back(message(Kind::Bookmark, None, self.scope.token(revision))),
            Step::Changes(changes) => {
                for Change { revision, what } in changes {
                    let (kind, instance) = match what {
                        Changed::InstanceWritten { instance, created: true } => (Kind::Added, instance),
                        Changed::InstanceWritten { instance, created: false } => (Kind::Modified, instance),
                        Changed::InstanceRemoved { instance } => (Kind::Removed, instance),
                        Changed::Event(_) => continue,
                    };
                    // The history is read for a tenant with all below it.
                    if self.tenant.as_ref().is_none_or(|tenant| *tenant == instance.tenant) {
                        self.queue.push_back(message(kind, Some(&instance), self.scope.token(revision)));
                    }
                }
            }
        }
    }
}

fn message(kind: Kind, instance: Option<&Instance>, resume_token: String) -> v1::WatchInstancesResponse {
    v1::WatchInstancesResponse { kind: kind.into(), instance: instance.map(out), resume_token }
}
