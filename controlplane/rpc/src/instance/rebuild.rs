//! RebuildInstance: another root disk, here or on another host.

use croft_core::audit::Call;
use croft_core::{Result, name};
use croft_proto::v1;
use croft_store::Command;

use super::command;
use crate::api::Api;

pub async fn rebuild(api: Api, call: Call, request: v1::RebuildInstanceRequest) -> Result<v1::Operation> {
    let wanted = if request.elsewhere { elsewhere(&api, &call, &request.name).await? } else { Command::Rebuild };
    command::run(api, call, &request.name, &request.etag, wanted).await
}

/// Whether there is room is asked before anything is lost, and answered where the call is written down: a retry of what was done
/// gets the answer of then.
async fn elsewhere(api: &Api, call: &Call, instance: &str) -> Result<Command> {
    let (tenant, id) = name::instance("name", instance)?;
    api.see(&call.principal, &tenant, instance).await?;
    let room = match api.store().instance_get(&tenant, &id).await? {
        Some(instance) => api.deps.admission.room_elsewhere(instance).await,
        // The command says so.
        None => Ok(()),
    };
    Ok(Command::RebuildElsewhere { room })
}
