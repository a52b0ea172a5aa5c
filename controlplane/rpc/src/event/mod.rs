//! Events and the audit log: a table of contents.

mod watch;

use croft_core::Result;
use croft_core::event::Topic;
use croft_proto::v1;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::event::{audit_out, out};
use crate::mutation::read;
use crate::page::page;
use crate::watch::Scope;

#[tonic::async_trait]
impl v1::events_server::Events for Api {
    type WatchEventsStream = BoxStream<'static, Result<v1::WatchEventsResponse, Status>>;

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        read(self, request, list).await
    }

    async fn watch_events(
        &self,
        request: Request<v1::WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        read(self, request, watch::watch).await
    }

    async fn list_audit_entries(
        &self,
        request: Request<v1::ListAuditEntriesRequest>,
    ) -> Result<Response<v1::ListAuditEntriesResponse>, Status> {
        read(self, request, list_audit).await
    }
}

async fn list(api: Api, caller: Caller, request: v1::ListEventsRequest) -> Result<v1::ListEventsResponse> {
    let page = page(request.page_size, request.page_token)?;
    let parent = api.parent(&caller, &request.parent).await?;
    let scope = Scope::new(Topic::Events, parent.as_ref(), &caller);
    let within = parent.or_else(|| caller.tenant().cloned());
    let target = Some(request.target.as_str()).filter(|target| !target.is_empty());
    let (events, next, revision) = api.store().events_list(within.as_ref(), target, &page).await?;
    Ok(v1::ListEventsResponse {
        events: events.iter().map(out).collect(),
        next_page_token: next.unwrap_or_default(),
        resume_token: scope.token(revision),
    })
}

async fn list_audit(
    api: Api,
    caller: Caller,
    request: v1::ListAuditEntriesRequest,
) -> Result<v1::ListAuditEntriesResponse> {
    let page = page(request.page_size, request.page_token)?;
    let within = api.within(&caller, &request.parent).await?;
    let (entries, next) = api.store().audit_list(within.as_ref(), &page).await?;
    Ok(v1::ListAuditEntriesResponse {
        entries: entries.iter().map(audit_out).collect(),
        next_page_token: next.unwrap_or_default(),
    })
}
