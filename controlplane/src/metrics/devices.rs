//! Devices: how many there are in which state, who holds what, and how full GPUs are that many share.

use std::collections::BTreeMap;
use std::fmt;

use croft_core::device::{Holder, Record};
use prometheus_client::encoding::DescriptorEncoder;

use super::truth::gauges;

const MIB: i64 = 1 << 20;

pub fn encode(encoder: &mut DescriptorEncoder<'_>, devices: &[Record]) -> fmt::Result {
    let mut by_state: BTreeMap<_, i64> = BTreeMap::new();
    for record in devices {
        *by_state.entry((record.host.as_str(), record.device.kind.as_str(), state(record))).or_default() += 1;
    }
    let rows =
        by_state.into_iter().map(|((host, kind, state), n)| ([("host", host), ("kind", kind), ("state", state)], n));
    gauges(encoder, "croft_devices", "Devices by host, kind and state.", rows)?;
    let help = "One series for each device and who holds some of it; tenant and instance are empty while nobody does.";
    gauges(encoder, "croft_device_info", help, devices.iter().flat_map(info))?;
    let shared = |amount: fn(i64, i64) -> i64| {
        devices.iter().filter_map(move |record| {
            let promise = record.promise.filter(|promise| promise.framebuffer_mib > 0)?;
            let labels = [("host", record.host.as_str()), ("device", record.device.id.as_str())];
            Some((labels, amount(promise.framebuffer_mib, promise.framebuffer_used_mib) * MIB))
        })
    };
    let help = "Framebuffer of a GPU that time-sliced vGPUs share.";
    gauges(encoder, "croft_gpu_framebuffer_bytes", help, shared(|all, _| all))?;
    let help = "Framebuffer of a GPU that time-sliced vGPUs were promised.";
    gauges(encoder, "croft_gpu_framebuffer_used_bytes", help, shared(|_, used| used))
}

/// As the API shows it: a fault first, then an operator's word, then that all of it is held.
fn state(record: &Record) -> &'static str {
    let told = record.device.state;
    match told {
        croft_core::device::State::Available if record.quarantine.is_some() => "QUARANTINED",
        croft_core::device::State::Available if record.in_use() => "IN_USE",
        _ => told.as_str(),
    }
}

type Info = ([(&'static str, String); 8], i64);

fn info(record: &Record) -> Vec<Info> {
    let one = |holder: Option<&Holder>| -> Info {
        let device = &record.device;
        let gpu = device.gpu.as_ref();
        let name = holder.map(|holder| holder.name.as_str()).unwrap_or_default();
        let (tenant, instance) =
            name.strip_prefix("tenants/").and_then(|rest| rest.split_once("/instances/")).unwrap_or_default();
        let profile = holder.map(|holder| [holder.mig_profiles.clone(), holder.vgpu_types.clone()].concat().join(","));
        let labels = [
            ("host", record.host.to_string()),
            ("device", device.id.to_string()),
            ("kind", device.kind.as_str().to_owned()),
            // What people call it where there is no word of ours.
            ("model", gpu.map_or(&device.device_name, |gpu| &gpu.model).clone()),
            ("uuid", gpu.map(|gpu| gpu.uuid.clone()).unwrap_or_default()),
            ("tenant", tenant.to_owned()),
            ("instance", instance.to_owned()),
            ("profile", profile.unwrap_or_default()),
        ];
        (labels, 1)
    };
    if record.holders.is_empty() {
        return vec![one(None)];
    }
    record.holders.iter().map(|holder| one(Some(holder))).collect()
}
