//! SetQuota and ClearQuota.

use croft_core::audit::Call;
use croft_core::quota::{LIMIT_MAX, Labelled};
use croft_core::validate::Violations;
use croft_core::{Error, Result};
use croft_proto::v1;

use super::parse;
use crate::api::Api;
use crate::convert::meta;
use crate::convert::quota::out;
use crate::mask::{Chosen, Fields};
use crate::scope;

const FIELDS: Fields = Fields {
    noun: "quota",
    mutable: &["limit", "metadata.labels", "metadata.annotations"],
    immutable: &[("name", "it is what the quota is known by")],
    output_only: &["used", "available"],
};

pub async fn set(api: Api, call: Call, request: v1::SetQuotaRequest) -> Result<v1::Quota> {
    let wire = request.quota.unwrap_or_default();
    let chosen = FIELDS.choose(request.update_mask)?;
    let mut violations = Violations::new();
    let sent = meta::into("quota", wire.metadata, &mut violations);
    violations.check(
        wire.limit.is_none_or(|limit| (0..=LIMIT_MAX).contains(&limit)),
        "quota.limit",
        format!("0 to {LIMIT_MAX}; ClearQuota takes a limit away"),
    );
    let says_nothing = wire.limit.is_none() && sent.labels.is_empty() && sent.annotations.is_empty();
    violations.check(
        chosen != Chosen::Implied || !says_nothing,
        "quota.limit",
        "is missing, and so are labels and annotations: nothing would be set",
    );
    violations.finish()?;

    let etag = sent.etag.clone();
    let change = move |own: &mut Labelled| {
        if chosen.writes("limit", wire.limit.is_some()) {
            own.quota.limit = wire.limit;
        }
        sent.write_to(&chosen, &mut own.labels, &mut own.annotations);
        Ok(())
    };
    write(api, call, "quota.name", &wire.name, &etag, change).await
}

pub async fn clear(api: Api, call: Call, request: v1::ClearQuotaRequest) -> Result<v1::Quota> {
    let change = |own: &mut Labelled| {
        own.quota.limit = None;
        Ok(())
    };
    write(api, call, "name", &request.name, &request.etag, change).await
}

async fn write(
    api: Api,
    call: Call,
    field: &str,
    name: &str,
    etag: &str,
    change: impl FnOnce(&mut Labelled) -> Result<(), Error> + Send + 'static,
) -> Result<v1::Quota> {
    let (tenant, resource) = parse(field, name)?;
    api.see(&call.principal, &tenant, name).await?;
    scope::strictly_above(&call.principal, &tenant, "a tenant's quota")?;
    let done = api.store().quota_set(&call, &tenant, &resource, etag, change).await?;
    let available = api.store().quota_available(&tenant, &resource).await?;
    Ok(out(&done.into_inner(), available))
}
