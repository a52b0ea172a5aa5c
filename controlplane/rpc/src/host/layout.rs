//! GetHostLayout and SetHostLayout: how a host's devices are set up when nobody holds them.

use croft_core::audit::Call;
use croft_core::device::Layout;
use croft_core::validate::Violations;
use croft_core::{Error, Result, name};
use croft_proto::v1;

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::layout::{devices_into, out};

pub async fn get(api: Api, _: Caller, request: v1::GetHostLayoutRequest) -> Result<v1::HostLayout> {
    let host = name::layout("name", &request.name)?;
    if api.store().host_get(&host).await?.is_none() {
        return Err(Error::not_found(format!("hosts/{host}")));
    }
    Ok(out(&api.store().host_layout_get(&host).await?))
}

/// The whole of it at once: a device that is not named is set up as requests come.
pub async fn set(api: Api, call: Call, request: v1::SetHostLayoutRequest) -> Result<v1::HostLayout> {
    let wire = request.layout.unwrap_or_default();
    let host = name::layout("layout.name", &wire.name)?;
    let mut violations = Violations::new();
    let layout = Layout { devices: devices_into(wire.devices, &mut violations), ..Layout::empty(&host) };
    layout.check(&mut violations);
    violations.finish()?;
    let layout = api.store().host_layout_set(&call, &host, &wire.etag, layout.devices).await?.into_inner();
    // Its agent is told, and what may be placed there has changed.
    api.deps.wake.host(&host);
    api.deps.wake.hosts();
    Ok(out(&layout))
}
