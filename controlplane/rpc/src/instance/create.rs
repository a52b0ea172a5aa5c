//! CreateInstance: fills in what was left out, checks the shape, and asks for admission, which does the rest in one
//! commit.

use croft_core::audit::Call;
use croft_core::id::TenantId;
use croft_core::ports::{Admitted, NewInstance};
use croft_core::{Error, Result, name};
use croft_proto::v1;

use super::command::begun;
use crate::api::Api;
use crate::convert;

pub async fn create(api: Api, call: Call, request: v1::CreateInstanceRequest) -> Result<v1::Operation> {
    let new = new_instance(&api, &call, request).await?;
    let validate_only = call.validate_only;
    let Admitted { operation, instance } = api.deps.admission.create(call, new).await?;
    Ok(begun(&api, validate_only, &operation, &instance))
}

/// Also what explain asks about: the same checks, the same defaults.
pub async fn new_instance(api: &Api, call: &Call, request: v1::CreateInstanceRequest) -> Result<NewInstance> {
    let tenant = name::tenant("parent", &request.parent)?;
    api.see(&call.principal, &tenant, &request.parent).await?;
    let instance = request.instance.unwrap_or_default();
    let default_disk_gib = default_disk(api, &tenant, instance.spec.as_ref()).await?;
    let new = convert::instance::into(tenant, &request.instance_id, instance, default_disk_gib)?;
    check_recipe(api, &new)?;
    Ok(new)
}

/// What no guest could join with is said now, not when its token would be made.
fn check_recipe(api: &Api, new: &NewInstance) -> Result<()> {
    let recipes = &api.deps.recipes;
    match &new.spec.node {
        Some(wish) if recipes.get(&wish.recipe).is_none() => {
            let known: Vec<&str> = recipes.names().collect();
            let what = format!("there is no join recipe `{}`; there are {}", wish.recipe, known.join(", "));
            Err(Error::invalid("instance.spec.node.recipe", what))
        }
        _ => Ok(()),
    }
}

/// The root disk of who names none is as large as the image needs it.
async fn default_disk(api: &Api, tenant: &TenantId, spec: Option<&v1::InstanceSpec>) -> Result<i64> {
    /// For images that bring no disk of their own.
    const LEAST: i64 = 1;
    let Some(v1::instance_spec::BootSource::Image(image)) = spec.and_then(|spec| spec.boot_source.as_ref()) else {
        return Ok(LEAST);
    };
    match api.store().image_visible(tenant, image).await {
        Ok(image) => Ok(image.min_disk_gib().max(LEAST)),
        // Admission says so, after it looked whether this is a retry of what was done when the image was still there.
        Err(Error::NotFound { .. } | Error::Invalid(_)) => Ok(LEAST),
        Err(error) => Err(error),
    }
}
