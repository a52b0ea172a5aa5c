//! GPU instances, one at a time beside others that are in use: with an explicit placement, and no instance but the wished
//! one touched.
//!
//! Which instance a vGPU lands on is the driver's choice: it takes one of the right profile that has room. So that it can only
//! be the wished one, no other instance of that profile may have any meanwhile.

use croft_gpu_geometry::{Board, Media, Occupancy, Profile};

use crate::gpu::{Gpu, GpuInstance, GpuInstanceProfile, MigState};
use crate::host::{MdevType, VgpuFunction};
use crate::pci::{PciAddress, PciFunction};

use super::look::{Look, mig_state};
use super::refusal::{Reason, Refusal};
use super::step::Step;
use super::{MigPiece, TypeName};

/// The steps to an instance for `owner`'s vGPU of this type; none if it is there and free.
pub(super) fn ensure(
    look: Look<'_>,
    physical: &PciFunction,
    gpu: &Gpu,
    piece: &MigPiece,
    type_name: &str,
) -> Result<Vec<Step>, Refusal> {
    let mig = in_mig_mode(gpu)?;
    let profile = profile(gpu.address, mig, piece)?;
    hosts_type(gpu, mig, profile, type_name)?;
    not_anothers(look, gpu.address, piece)?;
    let create =
        Step::CreateGpuInstance { gpu: gpu.address, profile: piece.profile.clone(), placement: piece.placement };
    let steps = match mig.instances.iter().find(|instance| is(instance, piece)) {
        Some(whole) if !whole.compute_instances.is_empty() => Vec::new(),
        // Made by half: whoever made it was stopped before its compute instance.
        Some(_) => vec![destroy(gpu.address, piece), create],
        None => room(gpu.address, look, mig, profile, piece).map(|()| vec![create])?,
    };
    unambiguous(gpu, mig, piece, type_name, &carried(look, physical)?)?;
    Ok(steps)
}

/// The step that takes the instance away, if it is there and nothing but the vGPU that goes stands on it.
pub(super) fn release(
    look: Look<'_>,
    physical: &PciFunction,
    gpu: &Gpu,
    piece: &MigPiece,
    going: PciAddress,
) -> Result<Vec<Step>, Refusal> {
    not_anothers(look, gpu.address, piece)?;
    // With MIG off there are no instances, and of a board without MIG there never were.
    let Some(mig) = mig_state(gpu)? else { return Ok(Vec::new()) };
    let Some(instance) = mig.instances.iter().find(|instance| is(instance, piece)) else { return Ok(Vec::new()) };
    let mut others = carried(look, physical)?;
    others.retain(|carried| carried.function != going);
    let on_it = others.iter().any(|other| other.instance == Some(instance.id));
    // Where the driver does not say who stands on what: instances of the profile that the others need among them.
    let standing = |other: &&Carried<'_>| {
        other.instance.is_none() && stands_on(gpu, other.type_name, &piece.profile) != Some(false)
    };
    let unplaced = others.iter().filter(standing).count();
    let known: Vec<_> = others.iter().filter_map(|other| other.instance).collect();
    let elsewhere = mig
        .instances
        .iter()
        .filter(|other| other.profile == piece.profile && other.id != instance.id && !known.contains(&other.id));
    let step = destroy(gpu.address, piece);
    Ok(if on_it || unplaced > elsewhere.count() { Vec::new() } else { vec![step] })
}

/// Does the vGPU that the function carries stand on this piece, as far as the driver says?
pub(super) fn carries(look: Look<'_>, gpu: &Gpu, function: PciAddress, piece: &MigPiece) -> Result<(), Refusal> {
    let Some(VgpuFunction::Vendor { gpu_instance: Some(id), .. }) = look.host.vgpus.get(&function) else {
        return Ok(());
    };
    let Some(mig) = mig_state(gpu)? else { return Ok(()) };
    match mig.instances.iter().find(|instance| instance.id == *id) {
        Some(below) if !is(below, piece) => {
            let (found, at) = (&below.profile, below.placement.start);
            let wished = format!("{} at {}", piece.profile, piece.placement.start);
            let message = format!("the vGPU on {function} stands on {found} at {at}, not on {wished}");
            Err(Refusal::new(
                Reason::VgpuFunctionTaken,
                function,
                message,
                "take it away first, or take another function",
            ))
        }
        _ => Ok(()),
    }
}

/// A vGPU that exists, and the instance below it where the driver says which.
#[derive(Debug)]
struct Carried<'a> {
    function: PciAddress,
    type_name: &'a str,
    instance: Option<u32>,
}

fn carried<'a>(look: Look<'a>, physical: &PciFunction) -> Result<Vec<Carried<'a>>, Refusal> {
    let mut all = Vec::new();
    for vf in look.virtual_functions(physical)? {
        let function = vf.address;
        match look.host.vgpus.get(&function) {
            Some(VgpuFunction::Vendor { current: Some(current), gpu_instance, .. }) => {
                all.push(Carried { function, type_name: &current.name, instance: *gpu_instance });
            }
            Some(VgpuFunction::Mdev { types }) => all.extend(look.mdevs_on(function)?.into_iter().map(|mdev| {
                let listed = types.iter().find(|listed| listed.id == mdev.type_id);
                let type_name = listed.map_or(mdev.type_id.as_str(), mdev_type_name);
                Carried { function, type_name, instance: None }
            })),
            Some(VgpuFunction::Vendor { current: None, .. }) | None => {}
        }
    }
    Ok(all)
}

/// The name that the driver's own list has it by, without the brand.
pub(super) fn mdev_type_name(kind: &MdevType) -> &str {
    let name = kind.name.as_ref().unwrap_or(&kind.id);
    ["GRID ", "NVIDIA "].iter().find_map(|brand| name.strip_prefix(brand)).unwrap_or(name)
}

/// Does a vGPU of this type stand on instances of this profile? By the driver's list of types, or else by the name.
fn stands_on(gpu: &Gpu, type_name: &str, profile: &str) -> Option<bool> {
    match gpu.vgpu_types.iter().find(|listed| listed.name == type_name) {
        Some(listed) => Some(listed.mig_profile.as_deref() == Some(profile)),
        None => TypeName::parse(type_name).map(|name| name.stands_on(profile)),
    }
}

fn is(instance: &GpuInstance, piece: &MigPiece) -> bool {
    instance.profile == piece.profile && instance.placement == piece.placement
}

fn destroy(gpu: PciAddress, piece: &MigPiece) -> Step {
    Step::DestroyGpuInstance { gpu, profile: piece.profile.clone(), placement: piece.placement }
}

fn in_mig_mode(gpu: &Gpu) -> Result<&MigState, Refusal> {
    let refuse = |reason, message: String, fix: &str| Err(Refusal::new(reason, gpu.address, message, fix));
    match mig_state(gpu)? {
        None => refuse(Reason::NotMigCapable, format!("{} has no MIG", gpu.address), "take a GPU that has"),
        Some(mig) if mig.current != mig.pending => {
            let message = format!("MIG of {} is about to change with its next reset", gpu.address);
            refuse(Reason::MigPending, message, "reset the GPU while nobody uses it, or reboot the host")
        }
        Some(mig) if !mig.current => {
            refuse(Reason::GpuModeWrong, format!("MIG of {} is off", gpu.address), "wish for mode mig_vgpu first")
        }
        Some(mig) => Ok(mig),
    }
}

fn profile<'a>(gpu: PciAddress, mig: &'a MigState, piece: &MigPiece) -> Result<&'a GpuInstanceProfile, Refusal> {
    let Some(profile) = mig.profiles.iter().find(|profile| profile.name == piece.profile) else {
        let names: Vec<_> = mig.profiles.iter().map(|profile| profile.name.as_str()).collect();
        let message = format!("{gpu} has no profile {}", piece.profile);
        return Err(Refusal::new(Reason::UnknownProfile, gpu, message, format!("it has {}", names.join(", "))));
    };
    if !profile.placements.contains(&piece.placement) {
        let starts: Vec<_> = profile.placements.iter().map(|span| format!("{}:{}", span.start, span.size)).collect();
        let wished = piece.placement;
        let message = format!("{} of {gpu} is never placed at {}:{}", profile.name, wished.start, wished.size);
        return Err(Refusal::new(
            Reason::UnknownPlacement,
            gpu,
            message,
            format!("it may be at {}", starts.join(", ")),
        ));
    }
    Ok(profile)
}

/// Boards that list profiles with graphics (RTX PRO) put vGPUs on those alone.
fn hosts_type(gpu: &Gpu, mig: &MigState, profile: &GpuInstanceProfile, type_name: &str) -> Result<(), Refusal> {
    let refuse = |message, fix| Err(Refusal::new(Reason::VgpuTypeMismatch, gpu.address, message, fix));
    let graphics = |profile: &GpuInstanceProfile| profile.name.ends_with("+gfx");
    if mig.profiles.iter().any(graphics) && !graphics(profile) {
        let able: Vec<_> =
            mig.profiles.iter().filter(|profile| graphics(profile)).map(|profile| profile.name.as_str()).collect();
        let message = format!("on {} no vGPU stands on {}", gpu.address, profile.name);
        return refuse(message, format!("take one of {}", able.join(", ")));
    }
    if stands_on(gpu, type_name, &profile.name) == Some(false) {
        let message = format!("vGPU type {type_name} does not stand on an instance of {}", profile.name);
        return refuse(message, "take the profile that the type's name says".to_owned());
    }
    Ok(())
}

fn not_anothers(look: Look<'_>, gpu: PciAddress, piece: &MigPiece) -> Result<(), Refusal> {
    let mut owned = look.owners.gpu_instances.iter().filter(|owned| owned.gpu == gpu && owned.piece == *piece);
    let Some(other) = owned.find(|owned| look.owners.asker.as_ref() != Some(&owned.owner)) else { return Ok(()) };
    let message = format!("{} at {} of {gpu} is {}'s", piece.profile, piece.placement.start, other.owner);
    Err(Refusal::new(Reason::DeviceOwned, gpu, message, "take another placement"))
}

fn unambiguous(
    gpu: &Gpu,
    mig: &MigState,
    piece: &MigPiece,
    type_name: &str,
    carried: &[Carried<'_>],
) -> Result<(), Refusal> {
    let most = most_on_one(gpu, type_name, &piece.profile);
    let framebuffer = |name: &str| Some(gpu.vgpu_types.iter().find(|listed| listed.name == name)?.framebuffer_mib);
    // All vGPUs of an instance are of one framebuffer size.
    let room = |instance: &GpuInstance| {
        let mut on_it = carried.iter().filter(|carried| carried.instance == Some(instance.id));
        let count = on_it.clone().count();
        let alike = on_it.all(|other| framebuffer(other.type_name) == framebuffer(type_name));
        if alike { most.saturating_sub(count) } else { 0 }
    };
    let standing = |carried: &&Carried<'_>| stands_on(gpu, carried.type_name, &piece.profile) == Some(true);
    let mut unplaced = carried.iter().filter(|carried| carried.instance.is_none()).filter(standing).count();
    let twin = |other: &&GpuInstance| other.profile == piece.profile && other.placement != piece.placement;
    for other in mig.instances.iter().filter(twin) {
        let room = room(other);
        if room > unplaced {
            let (profile, start) = (&other.profile, other.placement.start);
            let message = format!(
                "{} has another {profile} at {start} with room for a {type_name}, and the driver might choose that one",
                gpu.address
            );
            let fix = "fill it or take it away first";
            return Err(Refusal::new(Reason::GpuInstanceAmbiguous, gpu.address, message, fix));
        }
        unplaced -= room;
    }
    Ok(())
}

/// How many vGPUs of a type an instance carries at most, by the driver's word, or else where the name says that one fills it.
fn most_on_one(gpu: &Gpu, type_name: &str, profile: &str) -> usize {
    let listed = gpu.vgpu_types.iter().find(|listed| listed.name == type_name).and_then(|listed| listed.max_count);
    match listed {
        Some(most) => usize::try_from(most).unwrap_or(usize::MAX),
        None if TypeName::parse(type_name).is_some_and(|name| name.fills(profile)) => 1,
        None => usize::MAX,
    }
}

/// Is there room for the piece beside the instances that exist?
fn room(
    gpu: PciAddress,
    look: Look<'_>,
    mig: &MigState,
    profile: &GpuInstanceProfile,
    piece: &MigPiece,
) -> Result<(), Refusal> {
    let taken =
        |message: String| Err(Refusal::new(Reason::PlacementTaken, gpu, message, "take another placement or GPU"));
    let (start, end) = (piece.placement.start, piece.placement.start + piece.placement.size);
    let below =
        |other: &&GpuInstance| other.placement.start < end && start < other.placement.start + other.placement.size;
    let wished = format!("{} at {start} of {gpu}", profile.name);
    if let Some(other) = mig.instances.iter().find(below) {
        let piece = MigPiece { profile: other.profile.clone(), placement: other.placement };
        let owner = look.owners.gpu_instances.iter().find(|owned| owned.gpu == gpu && owned.piece == piece);
        let of = owner.map(|owned| format!(" of {}", owned.owner)).unwrap_or_default();
        let there = format!("instance {} ({} at {}){of}", other.id, other.profile, other.placement.start);
        return taken(format!("{wished} overlaps {there}"));
    }
    let (board, occupied) = occupancy(gpu, mig)?;
    let same = board.profile(&profile.name).ok_or_else(|| contradiction(gpu, &profile.name))?;
    if let Err(misfit) = occupied.fits(&board, same, start) {
        return taken(format!("{wished} does not fit: {misfit}"));
    }
    // The driver counts what the rulers do not show (the maximum of a profile).
    let count = mig.instances.iter().filter(|other| other.profile == profile.name).count();
    if profile.remaining == Some(0) || count >= usize::try_from(profile.max_count).unwrap_or(usize::MAX) {
        return taken(format!("{wished} does not fit: the driver makes no more of {} now", profile.name));
    }
    Ok(())
}

/// The board as its driver reports it, and what of it is taken.
fn occupancy(gpu: PciAddress, mig: &MigState) -> Result<(Board, Occupancy), Refusal> {
    let profiles = mig.profiles.iter().map(|profile| Profile {
        name: profile.name.clone(),
        memory_slices: profile.placements.first().map_or(0, |span| span.size),
        starts: profile.placements.iter().map(|span| span.start).collect(),
        compute_slices: profile.compute_slices,
        media: Media::of(&profile.name),
    });
    let board = Board::new(mig.memory_slices, mig.compute_slices, profiles.collect())
        .map_err(|error| contradiction(gpu, &error.to_string()))?;
    let mut occupied = Occupancy::EMPTY;
    for instance in &mig.instances {
        let profile = board.profile(&instance.profile).ok_or_else(|| contradiction(gpu, &instance.profile))?;
        let claim = occupied.fits(&board, profile, instance.placement.start);
        let claim = claim.map_err(|misfit| contradiction(gpu, &format!("{}: {misfit}", instance.profile)))?;
        occupied = occupied.union(claim.atoms);
    }
    Ok((board, occupied))
}

fn contradiction(gpu: PciAddress, what: &str) -> Refusal {
    let message = format!("the driver's account of {gpu} contradicts itself: {what}");
    Refusal::new(Reason::GpuModeUnknown, gpu, message, "look at the host again; reset the GPU if it stays so")
}
