//! Small hosts for tests, in memory.

use std::collections::BTreeMap;

use crate::bus::Inventory;
use crate::error::{FsError, ProbeError};
use crate::gpu::{
    Fault, Gpu, GpuInstance, GpuInstanceProfile, Health, Mig, MigState, Span, SupportedVgpu, VgpuSupport,
};
use crate::host::{Fabric, Holder, Host, Mdev, MdevType, VgpuFunction, VgpuType};
use crate::identity::Identity;
use crate::pci::{PciAddress, PciFunction, Sriov, VirtualFunction};

use super::{MigPiece, OwnedInstance, Owners, Plan, Refusal, Step, Wish, plan};

pub fn at(address: &str) -> PciAddress {
    address.parse().unwrap()
}

pub fn span(start: u8, size: u8) -> Span {
    Span { start, size }
}

pub fn piece(profile: &str, start: u8, size: u8) -> MigPiece {
    MigPiece { profile: profile.to_owned(), placement: span(start, size) }
}

pub fn vgpu_type(id: u32, name: &str) -> VgpuType {
    VgpuType { id, name: name.to_owned() }
}

/// A function without anything; a NIC's class.
pub fn function(address: &str) -> PciFunction {
    PciFunction {
        address: at(address),
        slot_path: String::new(),
        serial: None,
        vendor: 0x8086,
        device: 0x10c9,
        subsystem: None,
        class: 0x02_0000,
        vendor_name: None,
        device_name: None,
        class_name: None,
        driver: None,
        driver_override: None,
        iommu_group: None,
        numa_node: None,
        reset_methods: vec!["flr".to_owned()],
        bars: Vec::new(),
        link: None,
        sriov: Sriov::None,
        interfaces: Vec::new(),
    }
}

impl PciFunction {
    pub fn class(self, class: u32) -> Self {
        Self { class, ..self }
    }

    pub fn driver(self, driver: &str) -> Self {
        Self { driver: Some(driver.to_owned()), ..self }
    }

    pub fn overridden(self, driver: &str) -> Self {
        Self { driver_override: Some(driver.to_owned()), ..self }
    }

    pub fn group(self, group: u32) -> Self {
        Self { iommu_group: Some(group), ..self }
    }

    pub fn resets(self, methods: &[&str]) -> Self {
        Self { reset_methods: methods.iter().map(|&method| method.to_owned()).collect(), ..self }
    }

    pub fn physical(self, total: u16, functions: &[&str]) -> Self {
        let numbered = functions.iter().zip(0..);
        let functions = numbered.map(|(address, index)| VirtualFunction { index, address: at(address) }).collect();
        Self { sriov: Sriov::Physical { total, functions, autoprobe: true }, ..self }
    }

    pub fn of(self, physical: &str) -> Self {
        Self { sriov: Sriov::Virtual { physical: at(physical) }, ..self }
    }

    /// As an NVIDIA data-centre GPU on its driver.
    pub fn nvidia(self) -> Self {
        Self { vendor: 0x10de, device: 0x2330, class: 0x03_0200, ..self.driver("nvidia") }
    }
}

/// As an H100 80GB on a vGPU host reports itself.
pub fn h100(address: &str) -> Gpu {
    Gpu {
        address: at(address),
        pci_id: "10de:2330".to_owned(),
        model: Some("h100_sxm_80gb".to_owned()),
        name: Some("NVIDIA H100 80GB HBM3".to_owned()),
        identity: Identity { slot_path: String::new(), pci_id: "10de:2330".to_owned(), serial: None, uuid: None },
        board_serial: None,
        memory_mib: Some(81559),
        minor: Some(0),
        mig: Mig::Supported(MigState {
            current: false,
            pending: false,
            memory_slices: 8,
            compute_slices: 7,
            profiles: h100_profiles(),
            instances: Vec::new(),
        }),
        vgpu: VgpuSupport::Vendor,
        vgpu_types: h100_types(),
        heterogeneous: Some(false),
        heterogeneous_capable: true,
        persistence: Some(false),
        health: Health::default(),
    }
}

/// Some of its types, as the vGPU host driver lists them.
fn h100_types() -> Vec<SupportedVgpu> {
    [
        (1, "H100XM-20C", 20, None, 4),
        (2, "H100XM-40C", 40, None, 2),
        (3, "H100XM-2-20C", 20, Some("2g.20gb"), 1),
        (4, "H100XM-1-10C", 10, Some("1g.10gb"), 1),
        (5, "H100XM-1-10CME", 10, Some("1g.10gb+me"), 1),
        (6, "H100XM-1-20C", 20, Some("1g.20gb"), 1),
        (7, "H100XM-3-40C", 40, Some("3g.40gb"), 1),
        (8, "H100XM-4-40C", 40, Some("4g.40gb"), 1),
        (9, "H100XM-7-80C", 80, Some("7g.80gb"), 1),
    ]
    .map(|(id, name, gigabytes, mig_profile, max_count)| SupportedVgpu {
        id,
        name: name.to_owned(),
        framebuffer_mib: gigabytes * 1024,
        mig_profile: mig_profile.map(str::to_owned),
        max_count: Some(max_count),
    })
    .into()
}

fn h100_profiles() -> Vec<GpuInstanceProfile> {
    let every: &[u8] = &[0, 1, 2, 3, 4, 5, 6];
    [
        ("1g.10gb", 19, 1, 1, every, 7),
        ("1g.10gb+me", 20, 1, 1, every, 1),
        ("1g.20gb", 15, 1, 2, &[0, 2, 4, 6], 4),
        ("2g.20gb", 14, 2, 2, &[0, 2, 4], 3),
        ("3g.40gb", 9, 3, 4, &[0, 4], 2),
        ("4g.40gb", 5, 4, 4, &[0], 1),
        ("7g.80gb", 0, 7, 8, &[0], 1),
    ]
    .map(|(name, id, compute_slices, size, starts, max_count)| GpuInstanceProfile {
        name: name.to_owned(),
        id,
        compute_slices,
        memory_mib: 9984 * u64::from(size),
        multiprocessors: 16 * u32::from(compute_slices),
        max_count,
        placements: starts.iter().map(|&start| span(start, size)).collect(),
        remaining: None,
    })
    .into()
}

impl Gpu {
    pub fn mig_mut(&mut self) -> &mut MigState {
        let Mig::Supported(state) = &mut self.mig else { panic!("{} has no MIG", self.address) };
        state
    }

    pub fn mig_on(mut self) -> Self {
        let state = self.mig_mut();
        (state.current, state.pending) = (true, true);
        self
    }

    pub fn instance(mut self, id: u32, profile: &str, start: u8, size: u8) -> Self {
        let placement = span(start, size);
        let made = GpuInstance { id, profile: profile.to_owned(), placement, compute_instances: vec![0] };
        self.mig_mut().instances.push(made);
        self
    }

    pub fn persistent(self) -> Self {
        Self { persistence: Some(true), ..self }
    }

    pub fn faulty(mut self, reason: &str) -> Self {
        self.health.faults.push(Fault { reason: reason.to_owned(), message: "seen in the driver's log".to_owned() });
        self
    }
}

#[derive(Debug)]
pub struct HostBuilder(Host);

impl HostBuilder {
    pub fn new() -> Self {
        Self(Host {
            pci: Inventory { devices: Vec::new(), errors: Vec::new() },
            usb: Inventory { devices: Vec::new(), errors: Vec::new() },
            gpus: Inventory { devices: Vec::new(), errors: Vec::new() },
            mdevs: Vec::new(),
            vgpus: BTreeMap::new(),
            mdev_parents: BTreeMap::new(),
            fabric: Fabric::None,
            holders: BTreeMap::new(),
            errors: Vec::new(),
        })
    }

    pub fn function(mut self, function: PciFunction) -> Self {
        self.0.pci.devices.push(function);
        self
    }

    /// The GPU and its function in a group of its own, with as many virtual functions on as are named.
    pub fn gpu(mut self, gpu: Gpu, functions: &[&str]) -> Self {
        let address = gpu.address.to_string();
        let group = 100 + u32::from(gpu.address.bus);
        let physical = function(&address).nvidia().group(group).physical(16, functions).resets(&["flr", "bus"]);
        self.0.pci.devices.push(physical);
        for (vf, n) in functions.iter().zip(0..) {
            self.0.pci.devices.push(function(vf).nvidia().group(1000 + 32 * group + n).of(&address));
            let empty = VgpuFunction::Vendor { current: None, creatable: Vec::new(), gpu_instance: None };
            self.0.vgpus.insert(at(vf), empty);
        }
        self.0.gpus.devices.push(gpu);
        self
    }

    pub fn creatable(mut self, function: &str, types: &[(u32, &str)]) -> Self {
        let types: Vec<_> = types.iter().map(|(id, name)| vgpu_type(*id, name)).collect();
        match self.0.vgpus.get_mut(&at(function)) {
            Some(VgpuFunction::Vendor { creatable, .. }) => *creatable = types,
            other => panic!("{function} is {other:?}"),
        }
        self
    }

    pub fn carries(mut self, function: &str, id: u32, name: &str, on: Option<u32>) -> Self {
        match self.0.vgpus.get_mut(&at(function)) {
            Some(VgpuFunction::Vendor { current, gpu_instance, .. }) => {
                (*current, *gpu_instance) = (Some(vgpu_type(id, name)), on);
            }
            other => panic!("{function} is {other:?}"),
        }
        self
    }

    pub fn mdev_types(mut self, parent: &str, types: &[(&str, &str, u32)]) -> Self {
        let types = types.iter().map(|&(id, name, available)| MdevType {
            id: id.to_owned(),
            name: (!name.is_empty()).then(|| name.to_owned()),
            available,
            device_api: "vfio-pci".to_owned(),
        });
        self.0.vgpus.insert(at(parent), VgpuFunction::Mdev { types: types.collect() });
        self
    }

    pub fn mdev(mut self, parent: &str, type_id: &str, uuid: &str) -> Self {
        let made =
            Mdev { uuid: uuid.to_owned(), parent: parent.to_owned(), type_id: type_id.to_owned(), iommu_group: None };
        self.0.mdevs.push(made);
        self
    }

    pub fn holder(mut self, device: &str, command: &str) -> Self {
        let unit = Some("some.service".to_owned());
        let holder = Holder { pid: 4711, command: command.to_owned(), unit, file: "/dev/vfio/12".to_owned() };
        self.0.holders.entry(device.to_owned()).or_default().push(holder);
        self
    }

    pub fn fabric(mut self, fabric: Fabric) -> Self {
        self.0.fabric = fabric;
        self
    }

    pub fn pci_error(mut self, address: &str) -> Self {
        self.0.pci.errors.push(probe_error(&format!("pci {address}")));
        self
    }

    pub fn description_error(mut self, address: &str, what: &'static str) -> Self {
        let error = probe_error(&format!("pci {address}"));
        self.0.pci.errors.push(ProbeError { what: what.into(), ..error });
        self
    }

    /// The whole bus could not be looked at.
    pub fn bus_error(mut self) -> Self {
        self.0.pci.errors.push(probe_error("pci"));
        self
    }

    pub fn gpu_error(mut self, address: &str) -> Self {
        self.0.gpus.errors.push(probe_error(&format!("gpu {address}")));
        self
    }

    /// Of one device (`pci 0000:41:00.4`), or of a whole part (`holders`).
    pub fn error(mut self, device: &str) -> Self {
        self.0.errors.push(probe_error(device));
        self
    }

    pub fn build(self) -> Host {
        self.0
    }

    /// What is planned of a wish that the host itself has, nobody owning anything.
    pub fn plan(self, wish: Wish) -> Result<Vec<Step>, Refusal> {
        self.plan_for(&nobodys(), wish)
    }

    pub fn plan_for(self, owners: &Owners, wish: Wish) -> Result<Vec<Step>, Refusal> {
        plan(&self.0, owners, &wish).map(|Plan { steps }| steps)
    }
}

fn probe_error(device: &str) -> ProbeError {
    let source = FsError::Garbage { path: "/sys/x".into(), value: "?".to_owned(), expected: "a driver" };
    ProbeError { device: device.to_owned(), what: "driver".into(), source: source.into() }
}

pub fn nobodys() -> Owners {
    Owners::default()
}

/// Asked for `asker`; `owned`: function or mdev, and whose it is.
pub fn owners(asker: &str, owned: &[(&str, &str)]) -> Owners {
    let functions = owned.iter().map(|&(device, owner)| (device.to_owned(), owner.to_owned())).collect();
    Owners { asker: Some(asker.to_owned()), functions, gpu_instances: Vec::new() }
}

impl Owners {
    pub fn instance(mut self, gpu: &str, piece: MigPiece, owner: &str) -> Self {
        self.gpu_instances.push(OwnedInstance { gpu: at(gpu), piece, owner: owner.to_owned() });
        self
    }
}
