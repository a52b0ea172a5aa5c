//! What the NVIDIA driver of one simulated host knows, in one file that several processes share.
//!
//! Holds no rules: those are in [`crate::driver`].

mod file;

use croft_gpu::gpu::Span;
use croft_gpu::pci::PciAddress;
use serde::{Deserialize, Serialize};

use crate::boards::{self, Board, GpuShape};

pub use file::{Locked, directory};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nvidia {
    /// Grows with every save: two readers can tell whether they saw the same state.
    pub generation: u64,
    pub driver: DriverInfo,
    /// In the order of their addresses: that is NVML's index.
    pub gpus: Vec<GpuState>,
    /// `None`: no NVSwitch on this machine.
    pub fabric: Option<Fabric>,
    /// What has gone wrong so far, oldest first; listeners remember the last number they saw.
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverInfo {
    /// `580.159.04`
    pub version: String,
    pub flavour: Flavour,
}

/// Which of NVIDIA's drivers runs: one kernel holds only one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flavour {
    /// The data-centre driver on the machine itself.
    Datacenter,
    /// The data-centre driver in a guest that was given whole boards.
    Guest,
    /// The vGPU host driver whose virtual functions carry `nvidia/current_vgpu_type`.
    VgpuVendor,
    /// The vGPU host driver of older kernels, with mediated devices.
    VgpuMdev,
}

impl Flavour {
    #[must_use]
    pub fn makes_vgpus(self) -> bool {
        matches!(self, Flavour::VgpuVendor | Flavour::VgpuMdev)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuState {
    pub address: PciAddress,
    /// The name of its [`Board`].
    pub board: String,
    /// `GPU-8c7b…`
    pub uuid: String,
    pub serial: String,
    /// `/dev/nvidia{minor}`
    pub minor: u32,
    pub mig: MigMode,
    pub instances: Vec<GpuInstance>,
    /// Empty: `sriov-manage` has not made them. Of a board that makes none: itself, once for each vGPU on it.
    pub virtual_functions: Vec<VfState>,
    /// vGPUs of different framebuffer sizes may share this GPU.
    pub heterogeneous: bool,
    pub persistence: bool,
    /// False while another driver, vfio-pci for example, or none holds the function: NVML does not list it.
    pub driver_loaded: bool,
    /// Somebody is about to unbind it: no client gets in.
    #[serde(default)]
    pub unbind_locked: bool,
    /// Fallen off the bus: every call answers that it is lost.
    pub lost: bool,
    pub ecc: Ecc,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigMode {
    pub current: bool,
    pub pending: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuInstance {
    pub id: u32,
    /// Profile id on this board: 19, not the enumeration's 0.
    pub profile: u32,
    /// In memory slices.
    pub placement: Span,
    pub compute_instances: Vec<ComputeInstance>,
    /// vGPUs of different framebuffer sizes may share this GPU instance.
    pub heterogeneous: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeInstance {
    pub id: u32,
    pub profile: u32,
    /// In compute slices of its GPU instance.
    pub placement: Span,
    /// `MIG-…`
    pub uuid: String,
}

/// One of NVIDIA's virtual functions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfState {
    pub address: PciAddress,
    /// 0: no vGPU.
    pub vgpu_type: u32,
    /// The GPU instance below a MIG-backed vGPU.
    pub owner_gi: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ecc {
    /// Since the driver was loaded.
    pub volatile_corrected: u64,
    pub volatile_uncorrected: u64,
    pub aggregate_corrected: u64,
    pub aggregate_uncorrected: u64,
    pub remapped_rows_uncorrected: u32,
    /// A row waits for a reset to be replaced.
    pub remap_pending: bool,
    /// No spare row was left.
    pub remap_failed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub number: u64,
    pub gpu: PciAddress,
    pub kind: EventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    Xid(u64),
    EccSingleBit,
    EccDoubleBit,
}

/// NVSwitch, as Fabric Manager tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fabric {
    pub manager: FabricManager,
    pub partitions: Vec<FabricPartition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FabricManager {
    NotRunning,
    /// All GPUs are one fabric, for this machine itself.
    BareMetal,
    /// Partitions of GPUs are switched on for guests one by one.
    SharedNvswitch,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FabricPartition {
    pub id: u32,
    pub gpus: Vec<PciAddress>,
    pub active: bool,
}

impl Nvidia {
    /// A host whose driver was just loaded.
    #[must_use]
    pub fn new(flavour: Flavour) -> Nvidia {
        let driver = DriverInfo { version: "580.159.04".to_owned(), flavour };
        Nvidia { generation: 0, driver, gpus: Vec::new(), fabric: None, events: Vec::new() }
    }

    #[must_use]
    pub fn gpu(&self, address: PciAddress) -> Option<&GpuState> {
        self.gpus.iter().find(|gpu| gpu.address == address)
    }

    pub fn gpu_mut(&mut self, address: PciAddress) -> Option<&mut GpuState> {
        self.gpus.iter_mut().find(|gpu| gpu.address == address)
    }

    /// The GPU that a function belongs to, or is.
    pub fn parent_mut(&mut self, function: PciAddress) -> Option<&mut GpuState> {
        let of = |gpu: &&mut GpuState| {
            gpu.address == function || gpu.virtual_functions.iter().any(|vf| vf.address == function)
        };
        self.gpus.iter_mut().find(of)
    }
}

impl GpuState {
    /// A healthy board whose driver holds it and that nobody has touched. Who it is follows from where it sits.
    #[must_use]
    pub fn new(board: &Board, address: PciAddress, minor: u32) -> GpuState {
        let name = format!("{}@{address}", board.name);
        GpuState {
            address,
            board: board.name.to_owned(),
            uuid: format!("GPU-{}", uuid_of(&name)),
            serial: format!("16{:011}", uuid_of(&name).as_u128() % 100_000_000_000),
            minor,
            mig: MigMode::default(),
            instances: Vec::new(),
            virtual_functions: Vec::new(),
            heterogeneous: false,
            persistence: false,
            driver_loaded: true,
            unbind_locked: false,
            lost: false,
            ecc: Ecc::default(),
        }
    }

    /// What is printed on it. A state file names boards of this crate only.
    #[must_use]
    pub fn board(&self) -> &'static Board {
        boards::by_name(&self.board).unwrap_or_else(|| panic!("nvidia.json names board {}, which is none", self.board))
    }
}

impl GpuState {
    /// What the driver knows of the board from birth.
    #[must_use]
    pub fn shape(&self) -> &'static GpuShape {
        self.board().gpu.as_ref().unwrap_or_else(|| panic!("nvidia.json lists board {}, which is no GPU", self.board))
    }
}

/// The same name gives the same UUID on every run.
pub(crate) fn uuid_of(name: &str) -> uuid::Uuid {
    let space = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_DNS, b"sim.croft.dev");
    uuid::Uuid::new_v5(&space, name.as_bytes())
}
