//! UpdateTenant.

use croft_core::audit::Call;
use croft_core::tenant::Tenant;
use croft_core::validate::Violations;
use croft_core::{Result, name};
use croft_proto::v1;

use super::create::check_display_name;
use crate::api::Api;
use crate::convert;
use crate::mask::Fields;

const FIELDS: Fields = Fields {
    noun: "tenant",
    mutable: &["display_name", "metadata.labels", "metadata.annotations"],
    immutable: &[
        ("name", "it is what the tenant is known by"),
        ("parent", "a charge counts against every ancestor; create the tenant anew below another one"),
    ],
    output_only: &[],
};

pub async fn update(api: Api, call: Call, request: v1::UpdateTenantRequest) -> Result<v1::Tenant> {
    let wire = request.tenant.unwrap_or_default();
    let chosen = FIELDS.choose(request.update_mask)?;
    let id = name::tenant("tenant.name", &wire.name)?;
    let mut violations = Violations::new();
    let sent = convert::meta::into("tenant", wire.metadata, &mut violations);
    check_display_name(&wire.display_name, &mut violations);
    violations.finish()?;
    api.see(&call.principal, &id, &wire.name).await?;

    let etag = sent.etag.clone();
    let change = move |tenant: &mut Tenant| {
        let parent = tenant.parent.as_ref().map(|parent| format!("tenants/{parent}")).unwrap_or_default();
        if chosen.is_whole() && !wire.parent.is_empty() && wire.parent != parent {
            return Err(FIELDS.unwritable("parent"));
        }
        if chosen.writes("display_name", !wire.display_name.is_empty()) {
            tenant.display_name = wire.display_name;
        }
        sent.write(&chosen, &mut tenant.meta);
        Ok(())
    };
    let done = api.store().tenant_update(&call, &id, &etag, change).await?;
    Ok(convert::tenant::out(&done.into_inner()))
}
