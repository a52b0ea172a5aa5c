//! AttachDevice and DetachDevice: one more device for an instance that exists, or one less.

use std::collections::BTreeSet;

use croft_core::audit::Call;
use croft_core::ports::Admitted;
use croft_core::validate::Violations;
use croft_core::{Error, Result, name};
use croft_proto::v1;

use super::command::begun;
use crate::api::Api;
use crate::convert::request;

const FIELD: &str = "device";

pub async fn attach(api: Api, call: Call, wire: v1::AttachDeviceRequest) -> Result<v1::Operation> {
    let (tenant, id) = name::instance("name", &wire.name)?;
    api.see(&call.principal, &tenant, &wire.name).await?;
    let instance = api.store().instance_get(&tenant, &id).await?.ok_or_else(|| Error::not_found(&wire.name))?;
    let wanted = wire.device.unwrap_or_default();
    if wanted.count > 1 {
        return Err(Error::invalid("device.count", "one at a time: each is plugged in by an operation of its own"));
    }
    let taken: BTreeSet<String> = instance.spec.devices.iter().map(|device| device.id.clone()).collect();
    let mut violations = Violations::new();
    let spread = request::one_into(FIELD, wanted, &taken, &mut violations);
    violations.finish()?;
    let Some(device) = spread else { return Err(Error::internal("a device request without a complaint that is none")) };

    let validate_only = call.validate_only;
    // Whether the id is free is decided where it is taken: a retry finds its own there.
    let Admitted { operation, instance } = api.deps.admission.attach(call, tenant, id, wire.etag, device).await?;
    Ok(begun(&api, validate_only, &operation, &instance))
}

pub async fn detach(api: Api, call: Call, wire: v1::DetachDeviceRequest) -> Result<v1::Operation> {
    let (tenant, id) = name::instance("name", &wire.name)?;
    api.see(&call.principal, &tenant, &wire.name).await?;
    if wire.device_id.is_empty() {
        return Err(Error::invalid("device_id", "is missing; the instance's status.devices has the ids"));
    }
    let done = api.store().instance_detach(&call, &tenant, &id, &wire.etag, &wire.device_id).await?;
    let (operation, instance) = done.into_inner();
    Ok(begun(&api, call.validate_only, &operation, &instance))
}
