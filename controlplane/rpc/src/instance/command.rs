//! Start, stop, reboot, reset and delete: each raises a counter or sets a mark in the intent, and returns the operation
//! that ends when truth has caught up with it.

use std::time::Duration;

use croft_core::audit::Call;
use croft_core::instance::Instance;
use croft_core::instance::check::STOP_TIMEOUT_MAX;
use croft_core::operation::Operation;
use croft_core::validate::Violations;
use croft_core::{Result, name};
use croft_proto::v1;
use croft_store::Command;

use crate::api::Api;
use crate::convert;

pub async fn run(api: Api, call: Call, instance: &str, etag: &str, command: Command) -> Result<v1::Operation> {
    let (tenant, id) = name::instance("name", instance)?;
    api.see(&call.principal, &tenant, instance).await?;
    let done = api.store().instance_command(&call, &tenant, &id, etag, command).await?;
    let (operation, instance) = done.into_inner();
    Ok(begun(&api, call.validate_only, &operation, &instance))
}

/// Whoever carries it out is woken, and the caller gets what he can wait for.
pub fn begun(api: &Api, validate_only: bool, operation: &Operation, instance: &Instance) -> v1::Operation {
    if validate_only {
        return convert::operation::validated(operation);
    }
    api.deps.wake.instance(instance.uid);
    if let Some(host) = instance.host() {
        api.deps.wake.host(host);
    }
    convert::operation::out(operation)
}

/// Of one stop, instead of the instance's own; 0 pulls the plug.
pub fn timeout(span: Option<prost_types::Duration>) -> Result<Option<Duration>> {
    let mut violations = Violations::new();
    let timeout = convert::time::span_into("timeout", span, STOP_TIMEOUT_MAX, &mut violations);
    violations.finish()?;
    Ok(timeout)
}
