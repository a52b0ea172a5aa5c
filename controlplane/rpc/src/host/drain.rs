//! DrainHost, UndrainHost, ExplainHostDrain: a host is emptied of what runs, without a word of what its users want being changed.

use croft_core::audit::Call;
use croft_core::id::HostId;
use croft_core::maintenance::WHY_MAX;
use croft_core::validate::Violations;
use croft_core::{Result, name};
use croft_proto::v1;
use croft_store::Drain;

use crate::api::Api;
use crate::caller::Caller;
use crate::convert::drain::{expected_into, plan_out};
use crate::convert::host::out;

pub async fn explain(api: Api, _: Caller, request: v1::ExplainHostDrainRequest) -> Result<v1::DrainPlan> {
    let id = name::host("name", &request.name)?;
    Ok(plan_out(&id, api.store().host_drain_plan(&id).await?))
}

pub async fn drain(api: Api, call: Call, request: v1::DrainHostRequest) -> Result<v1::Host> {
    let id = name::host("name", &request.name)?;
    let mut violations = Violations::new();
    violations.check_line(&request.reason, WHY_MAX, "reason");
    let expect = request.expect.map(|plan| expected_into(&id, plan, &mut violations));
    violations.finish()?;
    let host = api.store().host_drain(&call, &id, Drain { why: request.reason, expect }).await?.into_inner();
    look(&api, &id).await?;
    Ok(out(&host))
}

pub async fn undrain(api: Api, call: Call, request: v1::UndrainHostRequest) -> Result<v1::Host> {
    let id = name::host("name", &request.name)?;
    let host = api.store().host_undrain(&call, &id).await?.into_inner();
    look(&api, &id).await?;
    Ok(out(&host))
}

/// Its agent is told, its instances are looked at, and the placer hears of it.
async fn look(api: &Api, id: &HostId) -> Result<()> {
    for uid in api.store().instance_on_host(id).await? {
        api.deps.wake.instance(uid);
    }
    api.deps.wake.host(id);
    api.deps.wake.hosts();
    Ok(())
}
