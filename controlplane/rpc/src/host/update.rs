//! UpdateHost: what operators decide about a host. What it has is its agent's to say.

use croft_core::audit::Call;
use croft_core::host::Host;
use croft_core::validate::Violations;
use croft_core::{Result, name};
use croft_proto::v1;

use crate::api::Api;
use crate::convert::host::out;
use crate::convert::meta;
use crate::mask::Fields;

const FIELDS: Fields = Fields {
    noun: "host",
    mutable: &[
        "metadata.labels",
        "metadata.annotations",
        "reserve.vcpus",
        "reserve.memory_mib",
        "reserve.disk_gib",
        "overhead_memory_mib",
        "cpu_overcommit_percent",
    ],
    immutable: &[("name", "it is what the host's certificate says")],
    output_only: &[
        "state",
        "cordoned",
        "maintenance",
        "epoch",
        "lease_expire_time",
        "capacity",
        "claimed",
        "foreign",
        "info",
        "conditions",
    ],
};

const RESERVE_MAX: i64 = 1 << 30;
const OVERHEAD_MAX_MIB: i64 = 64 * 1024;
/// Beyond, guests only wait for each other.
const OVERCOMMIT_PERCENT: std::ops::RangeInclusive<i32> = 1..=10_000;

pub async fn update(api: Api, call: Call, request: v1::UpdateHostRequest) -> Result<v1::Host> {
    let wire = request.host.unwrap_or_default();
    let chosen = FIELDS.choose(request.update_mask)?;
    let id = name::host("host.name", &wire.name)?;
    let mut violations = Violations::new();
    let sent = meta::into("host", wire.metadata, &mut violations);
    let has_reserve = wire.reserve.is_some();
    let reserve = wire.reserve.unwrap_or_default();
    for (field, amount) in
        [("vcpus", reserve.vcpus), ("memory_mib", reserve.memory_mib), ("disk_gib", reserve.disk_gib)]
    {
        let fits = (0..=RESERVE_MAX).contains(&amount);
        violations.check(fits, &format!("host.reserve.{field}"), format!("0 to {RESERVE_MAX}, not {amount}"));
    }
    let (overhead, overcommit) = (wire.overhead_memory_mib, wire.cpu_overcommit_percent);
    violations.check(
        (0..=OVERHEAD_MAX_MIB).contains(&overhead),
        "host.overhead_memory_mib",
        format!("0 to {OVERHEAD_MAX_MIB} MiB, not {overhead}"),
    );
    let sets_overcommit = chosen.writes("cpu_overcommit_percent", overcommit != 0);
    violations.check(
        !sets_overcommit || OVERCOMMIT_PERCENT.contains(&overcommit),
        "host.cpu_overcommit_percent",
        format!("{} to {}, not {overcommit}", OVERCOMMIT_PERCENT.start(), OVERCOMMIT_PERCENT.end()),
    );
    violations.finish()?;

    let etag = sent.etag.clone();
    let change = move |host: &mut Host| {
        if chosen.writes("reserve.vcpus", has_reserve) {
            host.reserve.vcpus = reserve.vcpus;
        }
        if chosen.writes("reserve.memory_mib", has_reserve) {
            host.reserve.memory_mib = reserve.memory_mib;
        }
        if chosen.writes("reserve.disk_gib", has_reserve) {
            host.reserve.disk_gib = reserve.disk_gib;
        }
        if chosen.writes("overhead_memory_mib", overhead != 0) {
            host.overhead_memory_mib = overhead;
        }
        if sets_overcommit {
            host.cpu_overcommit_percent = i64::from(overcommit);
        }
        sent.write(&chosen, &mut host.meta);
        Ok(())
    };
    let host = api.store().host_update(&call, &id, &etag, change).await?.into_inner();
    api.deps.wake.hosts();
    // The reserve is part of what its agent is told.
    api.deps.wake.host(&id);
    Ok(out(&host))
}
