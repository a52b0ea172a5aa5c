//! CreateTenant. Roots are the platform's to make; a tenant's admin makes children, of its own tenant or below it.

use croft_core::audit::Call;
use croft_core::id::TenantUid;
use croft_core::meta::Meta;
use croft_core::tenant::{self, Tenant};
use croft_core::validate::Violations;
use croft_core::{Error, Result, name};
use croft_proto::v1;

use crate::api::Api;
use crate::convert;
use crate::scope;

pub async fn create(api: Api, call: Call, request: v1::CreateTenantRequest) -> Result<v1::Tenant> {
    let wire = request.tenant.unwrap_or_default();
    let mut violations = Violations::new();
    violations.check_slug(&request.tenant_id, tenant::ID_MAX, "tenant_id");
    let sent = convert::meta::into("tenant", wire.metadata, &mut violations);
    check_display_name(&wire.display_name, &mut violations);
    let parent = match wire.parent.as_str() {
        "" => None,
        parent => name::tenant("tenant.parent", parent).map(Some).unwrap_or_else(|error| {
            violations.add("tenant.parent", strip(&error));
            None
        }),
    };
    violations.finish()?;

    match &parent {
        None => scope::of_the_platform(&call.principal, "a tenant without a parent is made by platform admins")?,
        Some(parent) => api.see(&call.principal, parent, &wire.parent).await?,
    }
    let now = api.store().now();
    let meta = Meta::new(TenantUid::new(now).to_string(), sent.labels, sent.annotations, now);
    let tenant = Tenant { id: request.tenant_id.as_str().into(), meta, parent, display_name: wire.display_name };
    let done = api.store().tenant_create(&call, tenant).await?;
    Ok(convert::tenant::out(&done.into_inner()))
}

pub fn check_display_name(text: &str, violations: &mut Violations) {
    violations.check_line(text, tenant::DISPLAY_NAME_MAX, "tenant.display_name");
}

/// The complaint without its field, which is said already.
fn strip(error: &Error) -> String {
    match error {
        Error::Invalid(violations) => violations.iter().map(|v| v.description.clone()).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    }
}
