//! UpdatePool: what belongs to it, description, labels. What is held stays held.

use croft_core::audit::Call;
use croft_core::device::Pool;
use croft_core::validate::Violations;
use croft_core::{Error, Result, name};
use croft_proto::v1;

use super::check_description;
use crate::api::Api;
use crate::convert::meta;
use crate::convert::pool::{match_into, out};
use crate::mask::Fields;

const FIELDS: Fields = Fields {
    noun: "pool",
    mutable: &["description", "match", "metadata.labels", "metadata.annotations"],
    immutable: &[("name", "it is what the pool and its quota are known by")],
    output_only: &[],
};

pub async fn update(api: Api, call: Call, request: v1::UpdatePoolRequest) -> Result<v1::Pool> {
    let wire = request.pool.unwrap_or_default();
    let chosen = FIELDS.choose(request.update_mask)?;
    let id = name::pool("pool.name", &wire.name)?;
    let mut violations = Violations::new();
    let sent = meta::into("pool", wire.metadata, &mut violations);
    check_description(&wire.description, &mut violations);
    // All of it or none: half a match is another match.
    let matches = match chosen.writes("match", wire.r#match.is_some()) {
        true => match_into(wire.r#match.unwrap_or_default(), &mut violations),
        false => None,
    };
    violations.finish()?;

    let etag = sent.etag.clone();
    let change = move |pool: &mut Pool| {
        if chosen.writes("description", !wire.description.is_empty()) {
            pool.description = wire.description;
        }
        if let Some(matches) = matches {
            pool.matches = matches;
        }
        sent.write(&chosen, &mut pool.meta);
        Ok::<(), Error>(())
    };
    let pool = api.store().pool_update(&call, &id, &etag, change).await?.into_inner();
    // What could not be placed may be now.
    api.deps.wake.hosts();
    Ok(out(&pool))
}
