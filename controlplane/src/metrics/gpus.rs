//! GPUs as placement sees them: how many of each model are in which use, what more would fit, and how broken up is what is
//! left.
//!
//! Only of hosts that take new work: room on a host that is cordoned or not READY is no room.

use std::collections::BTreeMap;
use std::fmt;

use croft_core::device::Mode;
use croft_core::host::State;
use croft_core::placement::HostView;
use croft_core::placement::device::DeviceView;
use prometheus_client::encoding::DescriptorEncoder;

use super::truth::gauges;

pub fn encode(encoder: &mut DescriptorEncoder<'_>, hosts: &[HostView]) -> fmt::Result {
    let mut uses: BTreeMap<(&str, &str, &str), i64> = BTreeMap::new();
    let mut room: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    let mut boards = Vec::new();
    for host in hosts {
        for view in host.devices.0.values() {
            let Some(gpu) = view.gpu() else { continue };
            *uses.entry((host.id.as_str(), &gpu.model, usage(view))).or_default() += 1;
            let open = host.state == State::Ready && !host.cordoned && host.devices_seen;
            let Some(board) = view.board.as_deref().filter(|_| open && view.takes_slices()) else { continue };
            let taken = view.occupancy();
            let left = taken.room(board);
            // What no vGPU type stands on cannot be asked for.
            for profile in
                board.profiles().iter().filter(|one| gpu.vgpu_types.iter().any(|t| t.mig_profile == one.name))
            {
                let more = i64::from(left.of(board, &profile.name).unwrap_or(0));
                *room.entry((&gpu.model, &profile.name)).or_default() += more;
            }
            let labels = [("host", host.id.as_str()), ("device", view.device.id.as_str()), ("model", &gpu.model)];
            let left = taken.fragments(board);
            boards.push((labels, [board.memory_slices(), left.free, left.stranded, left.largest]));
        }
    }
    let rows =
        uses.into_iter().map(|((host, model, usage), n)| ([("host", host), ("model", model), ("use", usage)], n));
    let help =
        "GPUs by what they are held as; IDLE: nobody holds any of it; CLOSED: idle, and nothing is placed on it.";
    gauges(encoder, "croft_gpus", help, rows)?;
    let rows = room.into_iter().map(|((model, profile), n)| ([("model", model), ("profile", profile)], n));
    let help = "How many more MIG slices of a profile fit, each counted as if no other came.";
    gauges(encoder, "croft_gpu_mig_room", help, rows)?;
    let families = [
        ("croft_gpu_mig_memory_slices", "Memory slices of a GPU that takes MIG slices."),
        ("croft_gpu_mig_memory_slices_free", "Memory slices of it that nobody holds."),
        (
            "croft_gpu_mig_memory_slices_stranded",
            "Memory slices of it that nobody holds and no profile can be placed on.",
        ),
        ("croft_gpu_mig_memory_slices_largest", "Memory slices of the largest profile that still fits; 0: none does."),
    ];
    for (at, (name, help)) in families.into_iter().enumerate() {
        gauges(encoder, name, help, boards.iter().map(|(labels, slices)| (*labels, i64::from(slices[at]))))?;
    }
    Ok(())
}

fn usage(view: &DeviceView) -> &'static str {
    match view.mode {
        Mode::Idle if view.closed().is_some() => "CLOSED",
        mode => mode.as_str(),
    }
}
