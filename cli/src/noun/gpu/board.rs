//! A GPU's board for people: what is taken of it, and where another slice would have room. Placement decides; this only reads
//! what it wrote.

use std::collections::BTreeSet;

use croft_proto::v1;

use crate::size;

/// Every atom that somebody holds.
fn held(device: &v1::Device) -> BTreeSet<&str> {
    device.holders.iter().flat_map(|holder| holder.atoms.iter().map(String::as_str)).collect()
}

/// `whole`; `3/8 slices`; `2 functions`.
pub fn taken(device: &v1::Device) -> String {
    let held = held(device);
    let count = |prefix: &str| {
        held.iter().filter(|atom| atom.strip_prefix(prefix).is_some_and(|rest| rest.parse::<u32>().is_ok())).count()
    };
    let total = device.gpu.as_ref().map_or(0, |gpu| gpu.memory_slices);
    match (held.contains("whole"), count("m"), count("vf")) {
        (true, ..) => "whole".to_owned(),
        (false, 0, 0) => String::new(),
        (false, 0, 1) => "1 function".to_owned(),
        (false, 0, functions) => format!("{functions} functions"),
        (false, slices, _) => format!("{slices}/{total} slices"),
    }
}

pub fn facts(gpu: &v1::Gpu) -> Vec<String> {
    let mut lines = vec![format!("  {}, {}", gpu.product_name, gpu.uuid)];
    let mig = match (gpu.mig_capable, gpu.mig_enabled) {
        (false, _) => "no MIG".to_owned(),
        (true, enabled) => format!(
            "MIG {} ({} memory slices, {} compute slices)",
            if enabled { "on" } else { "off" },
            gpu.memory_slices,
            gpu.compute_slices
        ),
    };
    let vgpu = match gpu.vgpu_framework.as_str() {
        "" | "none" => "no vGPUs".to_owned(),
        framework => {
            let sizes = if gpu.heterogeneous_capable { "mixed sizes" } else { "one size at a time" };
            format!("vGPUs ({framework}), {sizes}")
        }
    };
    lines.push(format!("  {mig}; {vgpu}"));
    for partition in &gpu.fabric_partitions {
        lines.push(format!("  NVSwitch partition {}: {}", partition.id, partition.gpus.join(" ")));
    }
    for cut in &gpu.mig_instances {
        lines.push(format!("  cut: {} at {} ({} slices)", cut.profile, cut.start, cut.size));
    }
    lines
}

pub fn profiles(device: &v1::Device, gpu: &v1::Gpu) -> Vec<Vec<String>> {
    let held = held(device);
    let row = |profile: &v1::MigProfile| {
        vec![
            profile.name.clone(),
            size::show_mib(profile.memory_mib),
            profile.memory_slices.to_string(),
            profile.compute_slices.to_string(),
            profile.max_count.to_string(),
            room(gpu, profile, &held),
        ]
    };
    gpu.mig_profiles.iter().map(row).collect()
}

/// Where it may start now, or why nowhere.
fn room(gpu: &v1::Gpu, profile: &v1::MigProfile, held: &BTreeSet<&str>) -> String {
    if held.contains("whole") {
        return "taken whole".to_owned();
    }
    let free = |prefix: &str, number: i32| !held.contains(format!("{prefix}{number}").as_str());
    let compute = (0..gpu.compute_slices).filter(|slice| free("c", *slice)).count();
    if compute < usize::try_from(profile.compute_slices).unwrap_or(0) {
        return format!("{compute} compute slices left");
    }
    if profile.name.ends_with("+me") && held.contains("me0") {
        return "media engines are taken".to_owned();
    }
    let fits = |start: &&i32| (**start..**start + profile.memory_slices).all(|slice| free("m", slice));
    let starts: Vec<_> = profile.starts.iter().filter(fits).map(ToString::to_string).collect();
    if starts.is_empty() { "no gap".to_owned() } else { starts.join(" ") }
}

pub fn vgpu_types(gpu: &v1::Gpu) -> Vec<Vec<String>> {
    let row = |vgpu: &v1::VgpuType| {
        let on = if vgpu.mig_profile.is_empty() { "time slices" } else { &vgpu.mig_profile };
        vec![vgpu.name.clone(), size::show_mib(vgpu.framebuffer_mib), on.to_owned(), vgpu.max_count.to_string()]
    };
    gpu.vgpu_types.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a30(atoms: &[&str]) -> v1::Device {
        let profile = |name: &str, memory_slices, starts: &[i32], compute_slices| v1::MigProfile {
            name: name.into(),
            memory_slices,
            starts: starts.to_vec(),
            compute_slices,
            ..Default::default()
        };
        let mig_profiles = vec![
            profile("1g.6gb", 1, &[0, 1, 2, 3], 1),
            profile("1g.6gb+me", 1, &[0, 1, 2, 3], 1),
            profile("2g.12gb", 2, &[0, 2], 2),
            profile("4g.24gb", 4, &[0], 4),
        ];
        let gpu =
            v1::Gpu { memory_slices: 4, compute_slices: 4, mig_capable: true, mig_profiles, ..Default::default() };
        let atoms = atoms.iter().map(|atom| (*atom).to_owned()).collect::<Vec<_>>();
        let holders = if atoms.is_empty() { Vec::new() } else { vec![v1::Holder { atoms, ..Default::default() }] };
        v1::Device { gpu: Some(gpu), holders, ..Default::default() }
    }

    fn rooms(atoms: &[&str]) -> Vec<String> {
        let device = a30(atoms);
        profiles(&device, device.gpu.as_ref().unwrap()).into_iter().map(|row| row[5].clone()).collect()
    }

    #[test]
    fn room_is_where_every_slice_is_free() {
        assert_eq!(rooms(&[]), ["0 1 2 3", "0 1 2 3", "0 2", "0"]);
        assert_eq!(
            rooms(&["m0", "c0", "me0", "vf0"]),
            ["1 2 3", "media engines are taken", "2", "3 compute slices left"]
        );
        assert_eq!(rooms(&["m1", "c0"]), ["0 2 3", "0 2 3", "2", "3 compute slices left"]);
        assert_eq!(rooms(&["whole"])[0], "taken whole");
        assert_eq!(rooms(&["m0", "m2"])[2], "no gap");
    }

    #[test]
    fn what_is_taken_is_said_in_one_word() {
        assert_eq!(taken(&a30(&[])), "");
        assert_eq!(taken(&a30(&["whole", "m0"])), "whole");
        assert_eq!(taken(&a30(&["m0", "c0", "me0", "vf0"])), "1/4 slices", "me0 is no memory slice");
        assert_eq!(taken(&a30(&["vf0", "vf1"])), "2 functions");
    }
}
