//! A host's devices as placement sees them: the host's word, and what is promised of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use croft_gpu_geometry::{Board, Occupancy};
use serde::{Deserialize, Serialize};

use super::Wishes;
use super::choice::kept;
use crate::device::{Assignment, Atom, Device, Gpu, Mode, State};
use crate::id::DeviceId;

/// All of one host. Cheap to clone: what the host said is shared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceViews(pub BTreeMap<DeviceId, DeviceView>);

#[derive(Debug, Clone, PartialEq)]
pub struct DeviceView {
    pub device: Arc<Device>,
    /// `None`: no MIG, or a report that contradicts itself.
    pub board: Option<Arc<Board>>,
    /// By an operator.
    pub quarantined: bool,
    pub taken: BTreeSet<Atom>,
    /// What the GPU is promised for. IDLE: nobody holds any of it.
    pub mode: Mode,
    pub framebuffer_used_mib: i64,
    /// The one size that time-sliced vGPUs of a homogeneous GPU have; 0: none yet.
    pub vgpu_size_mib: i64,
    /// GPUs: of the row that says so. A claim rests on it.
    pub version: i64,
    /// GPUs: all that an operator lets it be made into; `None`: whatever is asked for.
    pub kept_for: Option<Mode>,
}

/// What one assignment takes of one device; the store writes it as rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceClaim {
    /// The request that it is for.
    pub request: String,
    pub device: DeviceId,
    pub atoms: Vec<Atom>,
    /// GPUs: what it is promised for from now on.
    pub mode: Option<Mode>,
    pub framebuffer_mib: i64,
    pub vgpu_size_mib: i64,
    /// GPUs: the version of the row that this was decided against. No part of what is held.
    #[serde(skip)]
    pub version: i64,
}

impl DeviceView {
    #[must_use]
    pub fn new(device: Arc<Device>, quarantined: bool) -> Self {
        let report = device.gpu.as_ref().and_then(|gpu| gpu.board.as_ref());
        Self {
            board: report.and_then(|report| report.board().ok()).map(Arc::new),
            device,
            quarantined,
            taken: BTreeSet::new(),
            mode: Mode::Idle,
            framebuffer_used_mib: 0,
            vgpu_size_mib: 0,
            version: 0,
            kept_for: None,
        }
    }

    /// Why nothing new may be placed on it, whatever is free; `None`: it is healthy and ours to give.
    #[must_use]
    pub fn closed(&self) -> Option<String> {
        let device = &self.device;
        if self.quarantined {
            return Some(format!("{} is quarantined; `croft device release` ends that", device.id));
        }
        if device.state != State::Available {
            // The host's own words may name processes and other tenants' VMs: they are for operators.
            let why = if device.reason.is_empty() { String::new() } else { format!(" ({})", device.reason) };
            return Some(format!("{} is {}{why}", device.id, device.state.as_str()));
        }
        None
    }

    /// Could a MIG slice be placed on it, if one fits?
    #[must_use]
    pub fn takes_slices(&self) -> bool {
        let Some(gpu) = self.gpu() else { return false };
        self.closed().is_none()
            && matches!(self.mode, Mode::Idle | Mode::MigVgpu)
            && kept(self, Mode::MigVgpu).is_none()
            && gpu.vgpu_framework != "none"
            && !gpu.model.is_empty()
            && self.free_function().is_some()
    }

    #[must_use]
    pub fn gpu(&self) -> Option<&Gpu> {
        self.device.gpu.as_ref()
    }

    /// The MIG pieces that are promised.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        self.taken.iter().filter_map(|atom| if let Atom::Mig(atom) = atom { Some(*atom) } else { None }).collect()
    }

    /// Every atom that it has: what a claim on all of it holds.
    #[must_use]
    pub fn whole(&self) -> Vec<Atom> {
        let functions = (0..self.device.functions_total).map(Atom::Function);
        let mig = self.board.iter().flat_map(|board| Occupancy::whole(board).atoms()).map(Atom::Mig);
        std::iter::once(Atom::Whole).chain(functions).chain(mig).collect()
    }

    /// The lowest index that nobody holds. It need not exist yet.
    #[must_use]
    pub fn free_function(&self) -> Option<u16> {
        (0..self.device.functions_total).find(|index| !self.taken.contains(&Atom::Function(*index)))
    }
}

impl DeviceViews {
    /// Those that the wishes can mean, to be searched: a host has hundreds of functions beside its GPUs.
    #[must_use]
    pub(super) fn meant(&self, wishes: &Wishes) -> Self {
        if wishes.requests.iter().any(|request| !request.wanted.is_gpu()) {
            return self.clone();
        }
        let gpus = || self.0.values().filter(|view| view.gpu().is_some());
        let along = gpus().flat_map(|gpu| &gpu.device.companions).filter_map(|id| self.0.get(id));
        Self(gpus().chain(along).map(|view| (view.device.id.clone(), view.clone())).collect())
    }

    /// What `assignment` takes, device by device.
    #[must_use]
    pub fn claims(&self, assignment: &Assignment) -> Vec<DeviceClaim> {
        let gpu_mode = |device: &DeviceId| {
            self.0.get(device).and_then(DeviceView::gpu).map(|_| match () {
                () if !assignment.mig_profile.is_empty() => Mode::MigVgpu,
                () if !assignment.vgpu_type.is_empty() => Mode::Vgpu,
                () => Mode::Passthrough,
            })
        };
        let claim = |device: &DeviceId, atoms: &[Atom], mode| DeviceClaim {
            request: assignment.id.clone(),
            device: device.clone(),
            atoms: atoms.to_vec(),
            mode,
            framebuffer_mib: 0,
            vgpu_size_mib: 0,
            version: self.0.get(device).map_or(0, |view| view.version),
        };
        let own = DeviceClaim {
            framebuffer_mib: assignment.framebuffer_mib,
            vgpu_size_mib: assignment.framebuffer_mib,
            ..claim(&assignment.device, &assignment.atoms, gpu_mode(&assignment.device))
        };
        let along = assignment.companions.iter().map(|(device, atoms)| claim(device, atoms, gpu_mode(device)));
        // A virtual function's physical one.
        let physical = self.0.get(&assignment.device).and_then(|view| view.device.physical.clone());
        let above = physical.map(|(device, index)| claim(&device, &[Atom::Function(index)], None));
        std::iter::once(own).chain(along).chain(above).collect()
    }

    pub fn take(&mut self, claims: &[DeviceClaim]) {
        for claim in claims {
            let Some(view) = self.0.get_mut(&claim.device) else { continue };
            view.taken.extend(&claim.atoms);
            view.framebuffer_used_mib += claim.framebuffer_mib;
            if let Some(mode) = claim.mode {
                view.mode = mode;
            }
            if claim.vgpu_size_mib > 0 {
                view.vgpu_size_mib = claim.vgpu_size_mib;
            }
        }
    }

    /// As those stand now that `claims` change: to be put back.
    #[must_use]
    pub fn only(&self, claims: &[DeviceClaim]) -> Vec<(DeviceId, DeviceView)> {
        let view = |claim: &DeviceClaim| Some((claim.device.clone(), self.0.get(&claim.device)?.clone()));
        claims.iter().filter_map(view).collect()
    }

    pub fn give_back(&mut self, claims: &[DeviceClaim]) {
        for claim in claims {
            let Some(view) = self.0.get_mut(&claim.device) else { continue };
            view.taken.retain(|atom| !claim.atoms.contains(atom));
            view.framebuffer_used_mib -= claim.framebuffer_mib;
            if view.taken.is_empty() {
                (view.mode, view.vgpu_size_mib) = (Mode::Idle, 0);
            }
        }
    }
}
