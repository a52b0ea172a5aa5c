//! What is wished of each board, on which machine, and what must be true before.

use croft_gpu::gpu::{Mig, Span};
use croft_gpu::host::Host;
use croft_gpu::pci::{PciAddress, Sriov};
use croft_gpu::plan::usb::UsbIdentity;
use croft_gpu::plan::{MigPiece, Mode, Wish};
use croft_gpu_sim::boards::{self, Board, VgpuKind};
use croft_gpu_sim::driver::tray;
use croft_gpu_sim::kernel::{Hardware, SimHost, Slot};
use croft_gpu_sim::state::{FabricManager, Flavour};

const CARD: &str = "0000:41:00.0";
const UUIDS: [&str; 2] = ["8c2a6f0e-5a0b-4f0e-9d0c-0123456789ab", "8c2a6f0e-5a0b-4f0e-9d0c-0123456789ac"];

/// What is wished, seen a host.
pub type Wished = Box<dyn Fn(&Host) -> Wish>;

pub struct Scene {
    pub name: String,
    pub hardware: Hardware,
    pub before: Vec<Wished>,
    pub wish: Wished,
    /// Is what gives `wish` back tried instead, once it is true?
    pub back: bool,
}

/// Always in the same order.
pub fn scenes() -> Vec<Scene> {
    let mut all = Scenes(Vec::new());
    for board in boards::ALL.iter().copied() {
        match &board.gpu {
            Some(_) => all.gpu(board),
            None if board.name != "nvswitch" => all.card(board),
            None => {}
        }
    }
    for preset in ["h100x8", "h200x8"] {
        let hardware = SimHost::preset(preset).unwrap();
        let wish = || -> Wished { Box::new(|_| Wish::FabricPartition { id: 1, active: true }) };
        all.there_and_back(preset, "partition", &hardware, Vec::new, wish);
    }
    let key = |host: &Host| Wish::NoUsb { device: UsbIdentity::of(&host.usb.devices[0]) };
    all.there("devbox", "USB", &SimHost::preset("devbox").unwrap(), Vec::new(), Box::new(key));
    all.0
}

struct Scenes(Vec<Scene>);

impl Scenes {
    fn there(&mut self, on: &str, what: &str, hardware: &Hardware, before: Vec<Wished>, wish: Wished) {
        let (name, hardware) = (format!("{on}: {what}"), hardware.clone());
        self.0.push(Scene { name, hardware, before, wish, back: false });
    }

    fn there_and_back(
        &mut self,
        on: &str,
        what: &str,
        hardware: &Hardware,
        before: impl Fn() -> Vec<Wished>,
        wish: impl Fn() -> Wished,
    ) {
        self.there(on, what, hardware, before(), wish());
        let (name, hardware) = (format!("{on}: {what}, return"), hardware.clone());
        self.0.push(Scene { name, hardware, before: before(), wish: wish(), back: true });
    }

    /// A network card, a drive.
    fn card(&mut self, board: &Board) {
        let hardware = Hardware::new(vec![Slot::new(board, 0x41)]);
        let four =
            || -> Wished { Box::new(|_| Wish::VirtualFunctions { physical: at(CARD), count: 4, autoprobe: false }) };
        self.there_and_back(board.name, "passthrough", &hardware, Vec::new, passthrough);
        self.there_and_back(board.name, "functions", &hardware, Vec::new, four);
        let one = || -> Wished { Box::new(|host| Wish::Passthrough { address: function(host, 2) }) };
        self.there_and_back(board.name, "passthrough of a function", &hardware, || vec![four()], one);
    }

    fn gpu(&mut self, board: &Board) {
        let mut hardware = Hardware::new(vec![Slot::new(board, 0x41)]);
        let shape = board.gpu.as_ref().unwrap();
        if shape.nvswitch {
            hardware.fabric = Some(tray(FabricManager::SharedNvswitch, &[at(CARD)]));
        }
        let older = Hardware { flavour: Flavour::VgpuMdev, ..hardware.clone() };
        self.there_and_back(board.name, "passthrough", &hardware, Vec::new, passthrough);
        let slices = |kind: &VgpuKind| matches!(kind, VgpuKind::TimeSliced { .. });
        let time_sliced = shape.vgpu_types.iter().any(|known| slices(&known.kind));
        if board.pci.sriov.is_none() {
            if time_sliced {
                self.there_and_back(board.name, "time-sliced mdev", &older, Vec::new, || time_sliced_mdev(on_board));
            }
            return;
        }
        let modes = [("mode vgpu", Mode::Vgpu), ("mode mixed", Mode::VgpuMixed), ("mode mig_vgpu", Mode::MigVgpu)];
        for (what, to) in modes.into_iter().filter(|(_, to)| *to != Mode::MigVgpu || shape.mig.is_some()) {
            self.there_and_back(board.name, what, &hardware, Vec::new, || mode(to));
        }
        if time_sliced {
            let before = || vec![mode(Mode::Vgpu)];
            self.there_and_back(board.name, "time-sliced vGPU", &hardware, before, || Box::new(time_sliced_vgpu));
            self.there_and_back(board.name, "time-sliced mdev", &older, before, || time_sliced_mdev(first));
        }
        if shape.vgpu_types.iter().any(|known| !slices(&known.kind)) {
            let before = || vec![mode(Mode::MigVgpu)];
            self.there_and_back(board.name, "MIG-backed vGPU", &hardware, before, || {
                mig_backed(0, Flavour::VgpuVendor)
            });
            self.there_and_back(board.name, "MIG-backed mdev", &older, before, || mig_backed(0, Flavour::VgpuMdev));
            let beside = || vec![mode(Mode::MigVgpu), mig_backed(0, Flavour::VgpuVendor)];
            let other = || mig_backed(1, Flavour::VgpuVendor);
            self.there_and_back(board.name, "MIG-backed vGPU beside one in use", &hardware, beside, other);
            self.there(board.name, "passthrough out of mode mig_vgpu", &hardware, before(), passthrough());
        }
    }
}

fn at(address: &str) -> PciAddress {
    address.parse().unwrap()
}

fn passthrough() -> Wished {
    Box::new(|_| Wish::Passthrough { address: at(CARD) })
}

fn mode(mode: Mode) -> Wished {
    Box::new(move |_| Wish::Mode { gpu: at(CARD), mode })
}

fn function(host: &Host, n: usize) -> PciAddress {
    let physical = host.pci.devices.iter().find(|function| function.address == at(CARD)).unwrap();
    let Sriov::Physical { functions, .. } = &physical.sriov else { panic!("{physical:?}") };
    functions[n].address
}

fn on_board(_: &Host) -> PciAddress {
    at(CARD)
}

fn first(host: &Host) -> PciAddress {
    function(host, 0)
}

fn time_sliced_type(host: &Host) -> String {
    host.gpus.devices[0].vgpu_types.iter().find(|known| known.mig_profile.is_none()).unwrap().name.clone()
}

fn time_sliced_vgpu(host: &Host) -> Wish {
    Wish::Vgpu { function: function(host, 0), type_name: time_sliced_type(host), gpu_instance: None }
}

fn time_sliced_mdev(parent: fn(&Host) -> PciAddress) -> Wished {
    Box::new(move |host| Wish::Mdev {
        parent: parent(host).to_string(),
        type_name: time_sliced_type(host),
        uuid: UUIDS[0].to_owned(),
        gpu_instance: None,
    })
}

/// The n-th piece of a profile that fits twice, on the n-th function.
fn mig_backed(n: usize, flavour: Flavour) -> Wished {
    Box::new(move |host| {
        let gpu = &host.gpus.devices[0];
        let Mig::Supported(mig) = &gpu.mig else { panic!("{:?}", gpu.mig) };
        let fitting = gpu.vgpu_types.iter().find_map(|known| {
            let profile = mig.profiles.iter().find(|other| Some(&other.name) == known.mig_profile.as_ref())?;
            // One that fills its instance: into the room of another the driver might put the next.
            let alone = known.max_count == Some(1) && profile.max_count > 1;
            (profile.placements.len() > 1 && alone).then_some((known.name.clone(), profile))
        });
        let (type_name, profile) = fitting.unwrap();
        let placement: Span = profile.placements[n];
        let gpu_instance = Some(MigPiece { profile: profile.name.clone(), placement });
        let function = function(host, n);
        match flavour {
            Flavour::VgpuMdev => {
                Wish::Mdev { parent: function.to_string(), type_name, uuid: UUIDS[n].to_owned(), gpu_instance }
            }
            _ => Wish::Vgpu { function, type_name, gpu_instance },
        }
    })
}
