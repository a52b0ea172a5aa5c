//! Console and ReadConsoleLog: the guest's serial line, live or from the host's log. Audited when opened, because what
//! is typed and read there is the inside of somebody's machine.

use croft_core::audit::AuditEntry;
use croft_core::instance::Instance;
use croft_core::{Error, Result};
use croft_proto::agent::v1::open_tunnel::{self, Target};
use croft_proto::v1;
use futures::stream::{self, BoxStream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};

use super::find;
use crate::api::Api;
use crate::auth::{Place, guarded_in};
use crate::caller::Caller;
use crate::mutation::{append, audit_entry};
use crate::status::status;
use crate::tunnel::{self, Needs, Pipe};

type Answer<T> = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

pub async fn live(api: &Api, request: Request<Streaming<v1::ConsoleRequest>>) -> Answer<v1::ConsoleResponse> {
    let caller = Caller::of(&request).map_err(status)?;
    let mut inbound = request.into_inner();
    let first = tunnel::first(&mut inbound, "instance").await?;
    let Some(v1::console_request::Kind::Instance(name)) = first.kind else {
        return Err(status(Error::invalid("instance", "must be the first message: tenants/…/instances/…")));
    };
    let target = Target::Console(open_tunnel::Console {});
    let Opened { pipe, place } = open(api, &caller, &name, Needs::Started, target, "console").await.map_err(status)?;
    let typed = inbound.filter_map(|message| {
        std::future::ready(match message {
            Ok(v1::ConsoleRequest { kind: Some(v1::console_request::Kind::Data(data)) }) => Some(Ok(data)),
            Ok(_) => None,
            Err(why) => Some(Err(why)),
        })
    });
    let shown = tunnel::splice(pipe, typed, |data| v1::ConsoleResponse { data });
    Ok(Response::new(guarded_in(place, api, &caller, shown)))
}

pub async fn log(api: &Api, request: Request<v1::ReadConsoleLogRequest>) -> Answer<v1::ReadConsoleLogResponse> {
    let caller = Caller::of(&request).map_err(status)?;
    let v1::ReadConsoleLogRequest { name, tail_bytes } = request.into_inner();
    if tail_bytes < 0 {
        return Err(status(Error::invalid("tail_bytes", "0 (all that is kept) or more")));
    }
    let target = Target::ConsoleLog(open_tunnel::ConsoleLog { tail_bytes });
    let Opened { pipe, place } = open(api, &caller, &name, Needs::Host, target, "console log").await.map_err(status)?;
    let kept = tunnel::splice(pipe, stream::pending(), |data| v1::ReadConsoleLogResponse { data });
    Ok(Response::new(guarded_in(place, api, &caller, kept)))
}

/// A tunnel, and the place among the caller's that it takes.
pub struct Opened {
    pub pipe: Pipe,
    pub place: Place,
}

/// Opens a tunnel and leaves an audit row, whatever came of it.
pub async fn open(api: &Api, caller: &Caller, name: &str, needs: Needs, target: Target, what: &str) -> Result<Opened> {
    let (result, instance) = match find(api, caller, name).await {
        Ok(instance) => (enter(api, caller, &instance, needs, target).await, Some(instance)),
        Err(error) => (Err(error), None),
    };
    let entry = match &result {
        Ok(_) => audit_entry(api, caller, Code::Ok, what),
        Err(error) => audit_entry(api, caller, status(error.clone()).code(), &format!("{what}: {error}")),
    };
    append(api, AuditEntry { target: crate::status::clip(name, 200), tenant: tenant(caller, instance), ..entry }).await;
    result
}

/// The place comes first: nobody looks into a guest, and no host is asked, for a caller who is refused after all.
async fn enter(api: &Api, caller: &Caller, instance: &Instance, needs: Needs, target: Target) -> Result<Opened> {
    let place = api.crowd.enter(caller)?;
    Ok(Opened { pipe: tunnel::open(&api.deps.hub, instance, needs, target).await?, place })
}

/// The log it belongs into: the instance's tenant's, or the caller's own when there is no such instance.
fn tenant(caller: &Caller, instance: Option<Instance>) -> Option<croft_core::id::TenantId> {
    instance.map(|instance| instance.tenant).or_else(|| caller.tenant().cloned())
}
