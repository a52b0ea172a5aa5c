//! A simulated host on the bench, and the plans that are tried on it.

use std::path::Path;

use crate::sample;
use croft_gpu::apply::{Applier, Executor, InProcess, Outcome};
use croft_gpu::gpu::Span;
use croft_gpu::pci::PciAddress;
use croft_gpu::plan::{Plan, Step};
use croft_gpu_sim::access::access;
use croft_gpu_sim::boards::{self, Board, VgpuKind};
use croft_gpu_sim::kernel::{Hardware, SimHost, Slot, dump};

/// A plan, the machine that it is for, and the steps that lead to where it begins.
pub struct Scene {
    pub name: String,
    pub hardware: Hardware,
    pub before: Vec<Step>,
    pub plan: Vec<Step>,
}

pub struct Bench {
    _directory: tempfile::TempDir,
    pub host: SimHost,
}

impl Bench {
    pub fn new(hardware: impl Into<Hardware>) -> Bench {
        // A simulated write changes hundreds of files: in memory, where there is such a place.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let host = SimHost::create(directory.path().join("root"), hardware).unwrap();
        Bench { _directory: directory, host }
    }

    /// Where a scene's plan begins.
    pub fn set(scene: &Scene) -> Bench {
        let bench = Bench::new(scene.hardware.clone());
        let outcome = bench.apply(&scene.before);
        assert!(matches!(outcome, Outcome::Applied { .. }), "{}: {outcome:?}", scene.name);
        bench
    }

    pub fn root(&self) -> &Path {
        self.host.root()
    }

    pub fn dump(&self) -> String {
        dump(self.root()).unwrap()
    }

    /// In this process.
    pub fn apply(&self, steps: &[Step]) -> Outcome {
        self.apply_by(InProcess::new(access(self.root()).unwrap()), steps)
    }

    pub fn apply_by(&self, executor: impl Executor + Send + Sync + 'static, steps: &[Step]) -> Outcome {
        self.applier(executor).apply(&Plan { steps: steps.to_vec() }, &mut |_| {})
    }

    pub fn applier(&self, executor: impl Executor + Send + Sync + 'static) -> Applier {
        Applier::new(executor, || 0)
    }
}

pub fn at(address: &str) -> PciAddress {
    address.parse().unwrap()
}

pub const GPU: &str = "0000:41:00.0";
pub const NIC: &str = "0000:81:00.0";

fn machine() -> Hardware {
    SimHost::preset("devbox").unwrap()
}

fn one(board: &Board) -> Hardware {
    Hardware::new(vec![Slot::new(board, 0x41)])
}

/// The n-th function that a card makes.
fn function(board: &Board, physical: PciAddress, n: u16) -> PciAddress {
    let shape = board.pci.sriov.unwrap();
    let further = shape.offset + n * shape.stride;
    let [device, function] = [further >> 3, further & 7].map(|part| u8::try_from(part).unwrap());
    PciAddress { device, function, ..physical }
}

pub fn to_vfio(address: PciAddress, driver: &str) -> Vec<Step> {
    let vfio = || "vfio-pci".to_owned();
    vec![
        Step::Unbind { address, driver: driver.to_owned() },
        Step::SetDriverOverride { address, from: None, to: Some(vfio()) },
        Step::Bind { address, driver: vfio() },
    ]
}

fn from_vfio(address: PciAddress, driver: &str) -> Vec<Step> {
    let vfio = || "vfio-pci".to_owned();
    vec![
        Step::Reset { address, methods: vec!["flr".to_owned()] },
        Step::Unbind { address, driver: vfio() },
        Step::SetDriverOverride { address, from: Some(vfio()), to: None },
        Step::Bind { address, driver: driver.to_owned() },
    ]
}

fn mig_vgpu_mode(gpu: PciAddress) -> Vec<Step> {
    vec![Step::SetMigMode { gpu, from: false, to: true }, Step::SriovManage { gpu, enable: true }]
}

/// A MIG-backed type of a board, its profile, and where that may sit.
fn mig_backed(board: &Board) -> Option<(String, String, Vec<Span>)> {
    let shape = board.gpu.as_ref()?;
    let mig = shape.mig.as_ref()?;
    shape.vgpu_types.iter().find_map(|known| {
        let VgpuKind::MigBacked { profile } = &known.kind else { return None };
        let profile = mig.profile_named(profile).filter(|profile| profile.max > 1)?;
        let spans = profile.starts.iter().map(|&start| Span { start, size: profile.memory_slices }).collect();
        Some((known.name.clone(), profile.name.to_owned(), spans))
    })
}

/// One more piece of a board is carved beside one in use, and given back.
fn carve(board: &Board) -> Vec<Scene> {
    let Some((type_name, profile, spans)) = mig_backed(board) else { return Vec::new() };
    let (gpu, hardware) = (at(GPU), one(board));
    let piece = |n: u16, placement: Span| {
        let create = Step::CreateGpuInstance { gpu, profile: profile.clone(), placement };
        vec![
            create,
            Step::SetVgpuType {
                function: function(board, gpu, n),
                type_name: type_name.clone(),
                placement: Some(placement),
            },
        ]
    };
    let (one, other) = (piece(0, spans[0]), piece(1, *spans.last().unwrap()));
    let in_use = [mig_vgpu_mode(gpu), one].concat();
    let with_other = [in_use.clone(), other.clone()].concat();
    let give_back = other.iter().rev().filter_map(Step::undo).collect();
    let scene = |what: &str, before, plan| {
        let name = format!("{}: {what}", board.name);
        Scene { name, hardware: hardware.clone(), before, plan }
    };
    vec![scene("carve beside one in use", in_use, other), scene("give back beside one in use", with_other, give_back)]
}

/// vGPUs in turns, of several sizes.
fn time_sliced(board: &Board) -> Option<Scene> {
    let shape = board.gpu.as_ref()?;
    let type_name =
        shape.vgpu_types.iter().find(|known| matches!(known.kind, VgpuKind::TimeSliced { .. }))?.name.clone();
    let (gpu, hardware) = (at(GPU), one(board));
    board.pci.sriov?;
    let before = vec![Step::SriovManage { gpu, enable: true }];
    let mixed = Step::SetHeterogeneous { gpu, placement: None, from: false, to: true };
    let vgpu =
        |n| Step::SetVgpuType { function: function(board, gpu, n), type_name: type_name.clone(), placement: None };
    Some(Scene { name: format!("{}: time-sliced", board.name), hardware, before, plan: vec![mixed, vgpu(0), vgpu(1)] })
}

/// Mediated devices, on an older kernel.
fn mediated() -> Scene {
    let hardware = SimHost::preset("a100x4").unwrap();
    let gpu = hardware.slots[0].address();
    let parent = function(&boards::A100_SXM_80GB, gpu, 0);
    let shape = boards::A100_SXM_80GB.gpu.as_ref().unwrap();
    let id = shape.vgpu_types.iter().find(|known| matches!(known.kind, VgpuKind::TimeSliced { .. })).unwrap().id;
    let (type_id, uuid) = (format!("nvidia-{id}"), "8c2a6f0e-5a0b-4f0e-9d0c-0123456789ab".to_owned());
    let create = Step::CreateMdev { parent: parent.to_string(), type_id, uuid };
    let remove = create.undo().unwrap();
    let before = vec![Step::SriovManage { gpu, enable: true }];
    Scene { name: "a100_sxm_80gb: mdev".to_owned(), hardware, before, plan: vec![create.clone(), remove, create] }
}

/// Each in a thread of its own, as far as there are processors.
pub fn in_each(scenes: Vec<Scene>, trial: impl Fn(Scene) + Sync) {
    let scenes = std::sync::Mutex::new(scenes.into_iter());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let Some(scene) = scenes.lock().unwrap().next() else { break };
                    trial(scene);
                }
            });
        }
    });
}

pub fn scenes() -> Vec<Scene> {
    let (gpu, nic) = (at(GPU), at(NIC));
    let scene = |name: &str, before: Vec<Step>, plan: Vec<Step>| Scene {
        name: name.to_owned(),
        hardware: machine(),
        before,
        plan,
    };
    let whole = Span { start: 0, size: 4 };
    let carved = [
        vec![Step::SetPersistence { gpu, from: false, to: true }],
        mig_vgpu_mode(gpu),
        vec![Step::CreateGpuInstance { gpu, profile: "3g.40gb".to_owned(), placement: whole }],
    ]
    .concat();
    let idle: Vec<Step> = carved.iter().rev().filter_map(Step::undo).collect();
    let functions = vec![
        Step::SetAutoprobe { physical: nic, from: true, to: false },
        Step::SetVirtualFunctions { physical: nic, from: 0, to: 4 },
    ];
    let vf = function(&boards::NIC_IGB, nic, 1);
    let open_vf = vec![
        Step::SetDriverOverride { address: vf, from: None, to: Some("vfio-pci".to_owned()) },
        Step::Bind { address: vf, driver: "vfio-pci".to_owned() },
    ];
    let mut scenes = vec![
        scene("nic: passthrough", vec![], to_vfio(nic, "igb")),
        scene("nic: return", to_vfio(nic, "igb"), from_vfio(nic, "igb")),
        scene("nic: functions", vec![], functions.clone()),
        scene("nic: a function for a guest", functions.clone(), open_vf),
        scene("nic: no functions", functions.clone(), functions.iter().rev().filter_map(Step::undo).collect()),
        scene("gpu: passthrough", carved, [idle, to_vfio(gpu, "nvidia")].concat()),
        scene("gpu: return", to_vfio(gpu, "nvidia"), from_vfio(gpu, "nvidia")),
        mediated(),
    ];
    let hardware = SimHost::preset("h100x8").unwrap();
    let partition = vec![Step::ActivateFabricPartition { id: 1 }, Step::DeactivateFabricPartition { id: 1 }];
    scenes.push(Scene {
        name: "h100x8: fabric".to_owned(),
        hardware,
        before: vec![],
        plan: [partition.clone(), partition[..1].to_vec()].concat(),
    });
    // A change of mode is the slowest thing here, and the same on every board but for what an architecture remembers.
    for board in [&boards::A100_SXM_80GB, &boards::H100_SXM_80GB] {
        let (name, plan) = (format!("{}: mode", board.name), mig_vgpu_mode(gpu));
        scenes.push(Scene { name, hardware: one(board), before: vec![], plan });
    }
    // Every board goes through its plans in croft-nvml-sim's tests, by the library; here one of each kind does.
    const KINDS: [&Board; 3] = [&boards::H100_SXM_80GB, &boards::L40S_48GB, &boards::RTX_PRO_6000_96GB];
    for board in if sample::full() { boards::ALL } else { &KINDS } {
        scenes.extend(carve(board));
        scenes.extend(time_sliced(board));
    }
    scenes
}
