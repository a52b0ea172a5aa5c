//! FenceHost: the one call that lets go of VMs without their host's word. Its caller vouches that the machine is off.

use croft_core::audit::Call;
use croft_core::{Error, Reason, Result, name};
use croft_proto::v1;

use crate::api::Api;
use crate::convert::host::out;

pub async fn fence(api: Api, call: Call, request: v1::FenceHostRequest) -> Result<v1::Host> {
    let id = name::host("name", &request.name)?;
    if !request.confirm_powered_off {
        let message = format!(
            "{} may still be running VMs, and fencing starts them elsewhere too; make sure that it is off, then set \
             confirm_powered_off",
            request.name
        );
        return Err(Error::precondition(Reason::FenceNotConfirmed, request.name, message));
    }
    // Who ran there is known only until they are let go.
    let ran = api.store().instance_on_host(&id).await?;
    let host = api.store().host_fence(&call, &id).await?.into_inner();
    for uid in ran {
        api.deps.wake.instance(uid);
    }
    api.deps.wake.host(&id);
    api.deps.wake.hosts();
    Ok(out(&host))
}
