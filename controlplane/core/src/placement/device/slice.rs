//! Slices of GPUs: MIG-backed vGPUs, cut at an exact place, and time-sliced ones.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use croft_gpu_geometry::{Claim, Profile};

use super::super::fit::{Failure, Predicate};
use super::choice::{Choices, Score, blank, kept, near};
use super::same::alike;
use super::{DeviceView, DeviceViews, Wishes};
use crate::device::{Assignment, Atom, Gpu, Mode, VgpuType};

const ANOTHER: &str = "wait for a slice, or add a host";

pub fn mig(
    views: &DeviceViews,
    wishes: &Wishes,
    cells: &BTreeSet<i32>,
    id: &str,
    profile: &str,
    model: Option<&str>,
) -> Result<Vec<Assignment>, Failure> {
    let mut choices = Choices::default();
    let of_model = |(_, gpu): &(&DeviceView, &Gpu)| model.is_none_or(|wanted| wanted == gpu.model);
    for (view, gpu) in gpus(views, wishes, cells, id).into_iter().filter(of_model) {
        // The type that has the whole GPU instance to itself.
        let of_profile = gpu.vgpu_types.iter().filter(|one| one.mig_profile == profile);
        let Some(vgpu_type) = of_profile.max_by_key(|one| (one.framebuffer_mib, one.name.ends_with('C'))) else {
            if gpu.board.as_ref().is_some_and(|board| board.profile(profile).is_some()) {
                let message = format!("no vGPU type stands on {profile} of {} ({})", view.device.id, gpu.model);
                choices.fail(Predicate::DeviceFlavour, message, "hosts of flavour `vgpu` have the vGPU host driver");
            }
            continue;
        };
        cut(&mut choices, cells, id, (view, gpu), vgpu_type);
    }
    choices.finish(|| Failure {
        predicate: Predicate::DeviceModel,
        message: format!("no GPU of it has the MIG profile {profile}"),
        fix: "see `croft gpu list` for the profiles of each model".to_owned(),
    })
}

pub fn vgpu(
    views: &DeviceViews,
    wishes: &Wishes,
    cells: &BTreeSet<i32>,
    id: &str,
    type_name: &str,
) -> Result<Vec<Assignment>, Failure> {
    let mut choices = Choices::default();
    for (view, gpu) in gpus(views, wishes, cells, id) {
        let Some(vgpu_type) = gpu.vgpu_types.iter().find(|one| one.name == type_name) else { continue };
        if vgpu_type.mig_profile.is_empty() {
            share(&mut choices, cells, id, (view, gpu), vgpu_type);
        } else {
            cut(&mut choices, cells, id, (view, gpu), vgpu_type);
        }
    }
    choices.finish(|| Failure {
        predicate: Predicate::DeviceModel,
        message: format!("no GPU of it makes the vGPU type {type_name}"),
        fix: "see `croft gpu show` for the types of each GPU".to_owned(),
    })
}

/// One of those that are alike: the first, as the score would have it.
fn gpus<'a>(
    views: &'a DeviceViews,
    wishes: &Wishes,
    cells: &BTreeSet<i32>,
    id: &str,
) -> Vec<(&'a DeviceView, &'a Gpu)> {
    let all = views.0.values().filter_map(|view| Some((view, view.gpu()?)));
    let mut kept: Vec<(&DeviceView, &Gpu)> = Vec::new();
    for (view, gpu) in all.filter(|(_, gpu)| wishes.allows(id, &gpu.model)) {
        if !kept.iter().any(|(other, _)| near(other, cells) == near(view, cells) && alike(other, view)) {
            kept.push((view, gpu));
        }
    }
    kept
}

/// What both kinds need: a healthy GPU of a vGPU host, in the mode or empty, with a virtual function left.
fn open(view: &DeviceView, gpu: &Gpu, mode: Mode) -> Result<u16, (Predicate, String, &'static str)> {
    let id = &view.device.id;
    if let Some(why) = view.closed() {
        return Err((Predicate::DeviceHealth, why, "`croft device show` tells an operator more"));
    }
    if gpu.vgpu_framework == "none" {
        let message = format!("{id}: the host's driver makes no vGPUs");
        return Err((Predicate::DeviceFlavour, message, "slices need a host of flavour `vgpu`"));
    }
    if view.mode != mode && view.mode != Mode::Idle {
        let message = format!("{id} is held as {}", view.mode.as_str());
        return Err((Predicate::GpuMode, message, ANOTHER));
    }
    if let Some((message, fix)) = kept(view, mode) {
        return Err((Predicate::GpuMode, message, fix));
    }
    view.free_function().ok_or_else(|| {
        let total = view.device.functions_total;
        (Predicate::Functions, format!("{id}: all {total} virtual functions are taken"), ANOTHER)
    })
}

/// A GPU instance of its own, with a vGPU on all of it.
fn cut(choices: &mut Choices, cells: &BTreeSet<i32>, id: &str, (view, gpu): (&DeviceView, &Gpu), vgpu_type: &VgpuType) {
    let profile = vgpu_type.mig_profile.as_str();
    let function = match open(view, gpu, Mode::MigVgpu) {
        Ok(function) => function,
        Err((predicate, message, fix)) => return choices.fail(predicate, message, fix),
    };
    let Some((board, found)) = view.board.as_deref().and_then(|board| Some((board, board.profile(profile)?))) else {
        let message = format!("{} tells no placements of {profile}", view.device.id);
        return choices.fail(Predicate::MigGeometry, message, "see the host's probe errors");
    };
    let taken = view.occupancy();
    let mut fits = false;
    for claim in found.starts.iter().filter_map(|&start| taken.fits(board, found, start).ok()) {
        fits = true;
        let score = Score {
            ready: view.mode == Mode::MigVgpu || gpu.mode == Mode::MigVgpu,
            near: near(view, cells),
            loss: Reverse(taken.loss(board, &claim)),
            taken: view.taken.len(),
            id: Reverse(view.device.id.clone()),
        };
        choices.add(score, mig_assignment(view, gpu, id, vgpu_type, (function, found, claim)));
    }
    if !fits {
        let message = format!("{}: no place is left for {profile} beside what is cut", view.device.id);
        choices.fail(Predicate::MigGeometry, message, ANOTHER);
    }
}

fn mig_assignment(
    view: &DeviceView,
    gpu: &Gpu,
    id: &str,
    vgpu_type: &VgpuType,
    (function, profile, claim): (u16, &Profile, Claim),
) -> Assignment {
    let nominal = gpu.board.as_ref().and_then(|board| board.profile(&profile.name)).map_or(0, |one| one.memory_mib);
    let mut assignment = blank(view, id, None);
    assignment.atoms = claim.atoms.atoms().map(Atom::Mig).chain([Atom::Function(function)]).collect();
    assignment.mig_profile.clone_from(&profile.name);
    (assignment.mig_start, assignment.mig_size) = (claim.placement.start, claim.placement.size);
    assignment.vgpu_type.clone_from(&vgpu_type.name);
    assignment.function_index = Some(function);
    assignment.charged_memory_mib = nominal.max(vgpu_type.framebuffer_mib);
    assignment
}

/// Time-sliced: a share of the framebuffer.
fn share(
    choices: &mut Choices,
    cells: &BTreeSet<i32>,
    id: &str,
    (view, gpu): (&DeviceView, &Gpu),
    vgpu_type: &VgpuType,
) {
    let (device, size) = (&view.device.id, vgpu_type.framebuffer_mib);
    let function = match open(view, gpu, Mode::Vgpu) {
        Ok(function) => function,
        Err((predicate, message, fix)) => return choices.fail(predicate, message, fix),
    };
    if view.vgpu_size_mib != 0 && view.vgpu_size_mib != size && !gpu.heterogeneous_capable {
        let message = format!("{device} holds vGPUs of {} MiB and cannot mix sizes", view.vgpu_size_mib);
        return choices.fail(Predicate::Framebuffer, message, "ask for a type of that size, or wait for another GPU");
    }
    let left = gpu.shared_framebuffer_mib() - view.framebuffer_used_mib;
    let alike = view.framebuffer_used_mib / size.max(1);
    if size > left || (!gpu.heterogeneous_capable && alike >= vgpu_type.max_count) {
        let message = format!("{device}: {size} MiB of framebuffer asked, {} left", left.max(0));
        return choices.fail(Predicate::Framebuffer, message, ANOTHER);
    }
    let mut assignment = blank(view, id, None);
    assignment.atoms = vec![Atom::Function(function)];
    assignment.vgpu_type.clone_from(&vgpu_type.name);
    assignment.function_index = Some(function);
    (assignment.framebuffer_mib, assignment.charged_memory_mib) = (size, size);
    let score = Score {
        ready: view.mode == Mode::Vgpu || gpu.mode == Mode::Vgpu,
        near: near(view, cells),
        loss: Reverse::default(),
        taken: view.taken.len(),
        id: Reverse(device.clone()),
    };
    choices.add(score, assignment);
}
