//! Two processes that read while a third one carves see the same, and never half a change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use croft_gpu::gpu::GpuInstance;
use croft_gpu::nvml::Nvml;
use croft_gpu::pci::PciAddress;
use croft_gpu_sim::boards::{A30_PCIE_24GB, A100_SXM_80GB, Board, H100_SXM_80GB, RTX_PRO_6000_96GB};
use croft_gpu_sim::state::{Flavour, MigMode, Nvidia};

use crate::{host, library, part, spawn};

const TEST: &str = "agree::two_readers_see_what_a_third_process_carves";

/// Ten thousand on each board in the long trials.
fn steps() -> usize {
    if std::env::var_os("CROFT_TEST_FULL").is_some() { 10_000 } else { 150 }
}

#[test]
fn two_readers_see_what_a_third_process_carves() {
    if let Some(part) = part() {
        let root = std::env::var_os("CROFT_SIM_ROOT").unwrap();
        let (root, gpu) = (Path::new(&root), "0000:00:06.0".parse().unwrap());
        let seen = if part == "carver" { carve(root, gpu) } else { watch(root, gpu) };
        fs::write(
            root.join(part),
            seen.iter().fold(String::new(), |mut text, (generation, layout)| {
                writeln!(text, "{generation} {layout}").unwrap();
                text
            }),
        )
        .unwrap();
        return;
    }
    for board in [&A30_PCIE_24GB, &A100_SXM_80GB, &H100_SXM_80GB, &RTX_PRO_6000_96GB] {
        trial(board);
    }
}

fn trial(board: &Board) {
    let root = host(Flavour::Datacenter, &[board], |state| {
        state.gpus[0].mig = MigMode { current: true, pending: true };
    });
    let children: Vec<_> = ["reader-1", "reader-2", "carver"].map(|part| spawn(TEST, part, root.path())).into();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let [first, second, carver] = ["reader-1", "reader-2", "carver"].map(|part| log(&root.path().join(part)));
    assert!(carver.len() > steps() / 10, "{}: {} changes", board.name, carver.len());
    for reader in [&first, &second] {
        for (generation, layout) in reader {
            assert_eq!(carver.get(generation), Some(layout), "at {generation}");
        }
        assert!(reader.len() > 10, "{}: only {} states were seen", board.name, reader.len());
    }
    let both = first.keys().filter(|generation| second.contains_key(*generation)).count();
    assert!(both > 3, "{}: only {both} states were seen by both", board.name);
}

fn log(path: &Path) -> BTreeMap<u64, String> {
    let text = fs::read_to_string(path).unwrap();
    let line =
        |line: &str| line.split_once(' ').map(|(generation, layout)| (generation.parse().unwrap(), layout.to_owned()));
    text.lines().map(|text| line(text).unwrap()).collect()
}

/// Every state that it made, by its generation.
fn carve(root: &Path, gpu: PciAddress) -> BTreeMap<u64, String> {
    let nvml = Nvml::open(Some(&library())).unwrap();
    let generation = || Nvidia::read(root).unwrap().generation;
    let mut made = BTreeMap::from([(generation(), layout(&nvml.gpu_instances(gpu).unwrap()))]);
    let profiles = nvml.gpu_instance_profiles(gpu).unwrap();
    // A xorshift: the same trace on every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..steps() {
        let there = nvml.gpu_instances(gpu).unwrap();
        if !there.is_empty() && random(3) == 0 {
            nvml.destroy_gpu_instance(gpu, there[random(there.len())].id).unwrap();
        } else {
            let profile = &profiles[random(profiles.len())];
            let placement = profile.placements[random(profile.placements.len())];
            let _ = nvml.create_gpu_instance(gpu, &profile.name, placement);
        }
        made.insert(generation(), layout(&nvml.gpu_instances(gpu).unwrap()));
        thread::sleep(Duration::from_millis(3));
    }
    fs::write(root.join("done"), "").unwrap();
    made
}

/// Every state that stood still while it was read through the library, by its generation.
fn watch(root: &Path, gpu: PciAddress) -> BTreeMap<u64, String> {
    let nvml = Nvml::open(Some(&library())).unwrap();
    let generation = || Nvidia::read(root).unwrap().generation;
    let mut seen = BTreeMap::new();
    while !root.join("done").exists() {
        let before = generation();
        // An instance may go between two calls: that is a refusal, and no state.
        let Ok(instances) = nvml.gpu_instances(gpu) else { continue };
        if generation() == before {
            let layout = layout(&instances);
            let earlier = seen.insert(before, layout.clone());
            assert!(earlier.is_none_or(|earlier| earlier == layout), "two looks at {before} differ");
        }
    }
    seen
}

fn layout(instances: &[GpuInstance]) -> String {
    let one = |gi: &GpuInstance| format!("{}:{}@{}+{}", gi.id, gi.profile, gi.placement.start, gi.placement.size);
    instances.iter().map(one).collect::<Vec<_>>().join(",")
}
