//! Devices to report.

use croft_core::device::{
    BoardReport, Device, Gpu, Kind, MigProfile, Mode, Pool, PoolMatch, Request, State, VgpuType, Wanted,
};
use croft_core::meta::{Labels, Meta};

use crate::bed::START;

fn profile(name: &str, memory_slices: u8, starts: &[u8], compute_slices: u8, memory_mib: i64) -> MigProfile {
    MigProfile { name: name.into(), memory_slices, starts: starts.to_vec(), compute_slices, memory_mib, max_count: 7 }
}

fn vgpu_type(name: &str, gib: i64, mig_profile: &str, max_count: i64) -> VgpuType {
    VgpuType { name: format!("H100XM-{name}"), framebuffer_mib: gib * 1024, mig_profile: mig_profile.into(), max_count }
}

pub fn device(id: &str, kind: Kind) -> Device {
    Device {
        id: id.into(),
        kind,
        state: State::Available,
        reason: String::new(),
        message: String::new(),
        pci_id: "8086:10c9".into(),
        vendor_name: String::new(),
        device_name: String::new(),
        class: "020000".into(),
        serial: format!("serial of {id}"),
        slot_path: format!("slot of {id}"),
        driver: "igb".into(),
        iommu_group: Some(1),
        companions: Vec::new(),
        numa_node: Some(0),
        physical: None,
        functions_total: 0,
        functions_count: 0,
        gpu: None,
        last_reset: None,
    }
}

/// On a host with the vGPU driver.
pub fn h100(id: &str) -> Device {
    let profiles = vec![
        profile("1g.10gb", 1, &[0, 1, 2, 3, 4, 5, 6], 1, 9984),
        profile("2g.20gb", 2, &[0, 2, 4], 2, 20096),
        profile("3g.40gb", 4, &[0, 4], 3, 40448),
        profile("7g.80gb", 8, &[0], 7, 81152),
    ];
    let vgpu_types = vec![
        vgpu_type("1-10C", 10, "1g.10gb", 1),
        vgpu_type("2-20C", 20, "2g.20gb", 1),
        vgpu_type("3-40C", 40, "3g.40gb", 1),
        vgpu_type("7-80C", 80, "7g.80gb", 1),
        vgpu_type("20C", 20, "", 4),
        vgpu_type("40C", 40, "", 2),
    ];
    let gpu = Gpu {
        model: "h100_sxm_80gb".into(),
        product_name: "NVIDIA H100 80GB HBM3".into(),
        uuid: format!("GPU-{id}"),
        memory_mib: 81559,
        mode: Mode::Idle,
        mig_enabled: false,
        board: Some(BoardReport { memory_slices: 8, compute_slices: 7, profiles }),
        mig_instances: Vec::new(),
        vgpu_framework: "vendor".into(),
        vgpu_types,
        heterogeneous_capable: false,
        fabric_partitions: Vec::new(),
    };
    Device { pci_id: "10de:2330".into(), functions_total: 16, gpu: Some(gpu), ..device(id, Kind::Gpu) }
}

pub fn l40s(id: &str) -> Device {
    let mut card = h100(id);
    if let Some(gpu) = &mut card.gpu {
        gpu.model = "l40s_48gb".into();
        gpu.memory_mib = 46068;
        gpu.board = None;
        gpu.vgpu_types = vec![VgpuType { name: "L40S-8Q".into(), framebuffer_mib: 8192, ..vgpu_type("", 8, "", 6) }];
    }
    card
}

/// A card of 7 possible functions, two of which are there.
pub fn nic() -> Vec<Device> {
    let mut physical = device("0000:01:00.0", Kind::Function);
    physical.functions_total = 7;
    let function = |index: u16| Device {
        pci_id: "8086:10ca".into(),
        physical: Some((physical.id.clone(), index)),
        ..device(&format!("0000:01:10.{index}"), Kind::VirtualFunction)
    };
    vec![function(0), function(1), physical.clone()]
}

pub fn pool(id: &str, kind: Kind, pci_id: &str) -> Pool {
    Pool {
        id: id.into(),
        meta: Meta::new(format!("uid of {id}"), Labels::new(), Labels::new(), START),
        description: String::new(),
        matches: PoolMatch {
            kind,
            ids: vec![pci_id.to_owned()],
            classes: Vec::new(),
            devices: Vec::new(),
            host_selector: Labels::new(),
        },
    }
}

pub fn gpu(id: &str) -> Request {
    Request { id: id.into(), wanted: Wanted::Gpu { model: None } }
}

pub fn mig(id: &str, profile: &str) -> Request {
    Request { id: id.into(), wanted: Wanted::Mig { profile: profile.into(), model: None } }
}

pub fn vgpu(id: &str, type_name: &str) -> Request {
    Request { id: id.into(), wanted: Wanted::Vgpu { type_name: type_name.into() } }
}

pub fn of_pool(id: &str, pool: &str) -> Request {
    Request { id: id.into(), wanted: Wanted::Pool { pool: pool.into() } }
}
