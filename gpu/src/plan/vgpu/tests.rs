use super::*;
use crate::gpu::Mig;
use crate::host::Host;
use crate::plan::testing::{HostBuilder, at, function, h100, nobodys, owners, piece};
use crate::plan::{Owners, Wish};

const GPU: &str = "0000:41:00.0";
const VFS: [&str; 3] = ["0000:41:00.4", "0000:41:00.5", "0000:41:00.6"];
const TIME: &str = "H100XM-20C";
const MIG: &str = "H100XM-2-20C";

fn wish(type_name: &str, gpu_instance: Option<MigPiece>) -> Wish {
    Wish::Vgpu { function: at(VFS[0]), type_name: type_name.to_owned(), gpu_instance }
}

fn none(gpu_instance: Option<MigPiece>) -> Wish {
    Wish::NoVgpu { function: at(VFS[0]), gpu_instance }
}

/// Of the types in use here the one that stands on `two`.
fn set(type_name: &str) -> Step {
    let placement = (type_name == MIG).then(|| two().placement);
    Step::SetVgpuType { function: at(VFS[0]), type_name: type_name.to_owned(), placement }
}

fn clear(type_name: &str) -> Step {
    let placement = (type_name == MIG).then(|| two().placement);
    Step::ClearVgpuType { function: at(VFS[0]), type_name: type_name.to_owned(), placement }
}

fn create(MigPiece { profile, placement }: MigPiece) -> Step {
    Step::CreateGpuInstance { gpu: at(GPU), profile, placement }
}

fn destroy(MigPiece { profile, placement }: MigPiece) -> Step {
    Step::DestroyGpuInstance { gpu: at(GPU), profile, placement }
}

fn sliced() -> HostBuilder {
    HostBuilder::new().gpu(h100(GPU), &VFS).creatable(VFS[0], &[(1, TIME), (2, "H100XM-40C")])
}

fn mig() -> HostBuilder {
    HostBuilder::new().gpu(h100(GPU).mig_on(), &VFS)
}

fn with_instances(instances: &[(u32, &str, u8, u8)]) -> HostBuilder {
    let carved = instances
        .iter()
        .fold(h100(GPU).mig_on(), |gpu, &(id, profile, start, size)| gpu.instance(id, profile, start, size));
    HostBuilder::new().gpu(carved, &VFS)
}

fn two() -> MigPiece {
    piece("2g.20gb", 4, 2)
}

fn refused(host: HostBuilder, wish: Wish) -> (Reason, String) {
    let refusal = host.plan(wish).unwrap_err();
    (refusal.reason, refusal.to_string())
}

#[test]
fn a_time_sliced_type_is_taken_by_name_from_the_creatable_list() {
    assert_eq!(sliced().plan(wish(TIME, None)).unwrap(), [set(TIME)]);
    let (reason, text) = refused(sliced(), wish("H100XM-21C", None));
    assert_eq!(reason, Reason::UnknownVgpuType);
    assert!(text.ends_with("it may be H100XM-20C, H100XM-40C"), "{text}");
    // Of one size, the list shrinks to what is there.
    let beside = || sliced().carries(VFS[1], 2, "H100XM-40C", None).creatable(VFS[0], &[(2, "H100XM-40C")]);
    let (reason, text) = refused(beside(), wish(TIME, None));
    assert_eq!(reason, Reason::VgpuTypeNotCreatable);
    assert!(text.contains("H100XM-40C on 0000:41:00.5") && text.contains("vgpu_mixed"), "{text}");
    assert_eq!(beside().plan(wish("H100XM-40C", None)).unwrap(), [set("H100XM-40C")]);
    let (reason, text) = refused(sliced().creatable(VFS[0], &[]), wish(TIME, None));
    assert_eq!((reason, text.contains("nvidia-vgpud")), (Reason::VgpuTypeNotCreatable, true), "{text}");
}

#[test]
fn a_mig_backed_type_gets_its_instance_first_and_leaves_the_others_alone() {
    assert_eq!(mig().plan(wish(MIG, Some(two()))).unwrap(), [create(two()), set(MIG)]);
    let beside = with_instances(&[(13, "2g.20gb", 0, 2), (11, "1g.10gb", 6, 1)])
        .carries(VFS[1], 3, MIG, Some(13))
        .carries(VFS[2], 4, "H100XM-1-10C", None)
        .holder(VFS[1], "qemu");
    assert_eq!(beside.plan(wish(MIG, Some(two()))).unwrap(), [create(two()), set(MIG)]);
    // Made before a crash: only the type is missing, and the list must have it now.
    let made = || with_instances(&[(3, "2g.20gb", 4, 2)]);
    assert_eq!(made().creatable(VFS[0], &[(3, MIG)]).plan(wish(MIG, Some(two()))).unwrap(), [set(MIG)]);
    assert_eq!(refused(made(), wish(MIG, Some(two()))).0, Reason::VgpuTypeNotCreatable);
    // Made by half: without its compute instance.
    let mut half = made().build();
    half.gpus.devices[0].mig_mut().instances[0].compute_instances.clear();
    let steps = crate::plan::plan(&half, &nobodys(), &wish(MIG, Some(two()))).unwrap().steps;
    assert_eq!(steps, [destroy(two()), create(two()), set(MIG)]);
}

#[test]
fn the_piece_must_exist_on_this_board_and_be_free() {
    let (reason, text) = refused(mig(), wish(MIG, Some(piece("2g.35gb", 4, 2))));
    assert_eq!(
        (reason, text.contains("it has 1g.10gb, 1g.10gb+me, 1g.20gb, 2g.20gb")),
        (Reason::UnknownProfile, true),
        "{text}"
    );
    for wrong in [piece("2g.20gb", 6, 2), piece("2g.20gb", 4, 4)] {
        let (reason, text) = refused(mig(), wish(MIG, Some(wrong)));
        assert_eq!((reason, text.contains("it may be at 0:2, 2:2, 4:2")), (Reason::UnknownPlacement, true), "{text}");
    }
    let (reason, text) = refused(with_instances(&[(9, "1g.10gb", 5, 1)]), wish(MIG, Some(two())));
    assert_eq!((reason, text.contains("instance 9 (1g.10gb at 5)")), (Reason::PlacementTaken, true), "{text}");
    let owned = nobodys().instance(GPU, piece("1g.10gb", 5, 1), "acme-1");
    let refusal = with_instances(&[(9, "1g.10gb", 5, 1)]).plan_for(&owned, wish(MIG, Some(two()))).unwrap_err();
    assert!(refusal.message.ends_with("of acme-1"), "{refusal}");
    let ones = [(1, "1g.10gb", 0, 1), (2, "1g.10gb", 1, 1), (3, "1g.20gb", 2, 2), (5, "1g.10gb", 6, 1)];
    let more = [(6, "1g.10gb", 4, 1), (7, "1g.10gb+me", 5, 1)];
    let full = with_instances(&[&ones[..], &more].concat());
    let (reason, text) = refused(full, wish("H100XM-1-20C", Some(piece("1g.20gb", 6, 2))));
    assert_eq!((reason, text.contains("overlaps instance 5")), (Reason::PlacementTaken, true), "{text}");
    let threes =
        with_instances(&[(1, "4g.40gb", 0, 4), (2, "1g.10gb", 4, 1), (3, "1g.10gb", 5, 1), (4, "1g.10gb", 7, 1)]);
    assert_eq!(
        refused(threes, wish("H100XM-1-10C", Some(piece("1g.10gb", 6, 1)))).0,
        Reason::GpuModeUnknown,
        "7 is no start"
    );
    let media = with_instances(&[(1, "1g.10gb+me", 0, 1)]);
    let (reason, text) = refused(media, wish("H100XM-1-10CME", Some(piece("1g.10gb+me", 1, 1))));
    assert_eq!((reason, text.contains("media")), (Reason::PlacementTaken, true), "{text}");
    let mut drained = mig().build();
    drained.gpus.devices[0].mig_mut().profiles[3].remaining = Some(0);
    let refusal = crate::plan::plan(&drained, &nobodys(), &wish(MIG, Some(two()))).unwrap_err();
    assert_eq!((refusal.reason, refusal.message.contains("no more")), (Reason::PlacementTaken, true));
}

/// Graphics instances carry several vGPUs: one that is half full is another tenant's, and the driver would fill it up.
#[test]
fn nobody_is_put_beside_another_tenant_on_a_half_full_instance() {
    let half = |most| {
        let mut gpu = h100(GPU).mig_on().instance(1, "2g.20gb", 0, 2);
        let kind = |id, name: &str, gigabytes: u64, max_count| crate::gpu::SupportedVgpu {
            id,
            name: name.to_owned(),
            framebuffer_mib: gigabytes * 1024,
            mig_profile: Some("2g.20gb".to_owned()),
            max_count,
        };
        gpu.vgpu_types.extend([kind(20, "H100XM-2-10C", 10, most), kind(21, "H100XM-2-5C", 5, Some(4))]);
        HostBuilder::new().gpu(gpu, &VFS)
    };
    let ten = || wish("H100XM-2-10C", Some(two()));
    let one_of_two = half(Some(2)).carries(VFS[1], 20, "H100XM-2-10C", Some(1));
    let (reason, text) = refused(one_of_two, ten());
    assert_eq!((reason, text.contains("2g.20gb at 0 with room")), (Reason::GpuInstanceAmbiguous, true), "{text}");
    // Unless the driver cannot: it is full, or of another framebuffer size.
    let full = half(Some(2)).carries(VFS[1], 20, "H100XM-2-10C", Some(1)).carries(VFS[2], 20, "H100XM-2-10C", Some(1));
    assert!(full.plan(ten()).is_ok());
    assert!(half(Some(2)).carries(VFS[1], 21, "H100XM-2-5C", Some(1)).plan(ten()).is_ok());
    // What the driver does not say is not assumed: neither how many there is room for, nor where one stands.
    assert_eq!(refused(half(None).carries(VFS[1], 20, "H100XM-2-10C", Some(1)), ten()).0, Reason::GpuInstanceAmbiguous);
    assert_eq!(refused(half(Some(2)).carries(VFS[1], 20, "H100XM-2-10C", None), ten()).0, Reason::GpuInstanceAmbiguous);
}

#[test]
fn the_driver_is_left_no_choice_of_instance() {
    let (reason, text) = refused(with_instances(&[(13, "2g.20gb", 0, 2)]), wish(MIG, Some(two())));
    assert_eq!((reason, text.contains("another 2g.20gb at 0")), (Reason::GpuInstanceAmbiguous, true), "{text}");
    // One of two is spoken for by a vGPU whose instance the driver does not tell: the other is free.
    let three = || with_instances(&[(1, "2g.20gb", 0, 2), (2, "2g.20gb", 2, 2)]).carries(VFS[1], 3, MIG, None);
    assert_eq!(refused(three(), wish(MIG, Some(two()))).0, Reason::GpuInstanceAmbiguous);
    assert!(three().carries(VFS[2], 3, MIG, None).plan(wish(MIG, Some(two()))).is_ok());
    // A free one of another profile is no choice.
    assert!(with_instances(&[(1, "1g.20gb", 0, 2)]).plan(wish(MIG, Some(two()))).is_ok());
}

#[test]
fn type_instance_and_mode_go_together() {
    assert_eq!(refused(mig(), wish("H100XM-1-20C", Some(two()))).0, Reason::VgpuTypeMismatch);
    assert_eq!(refused(sliced(), wish(MIG, None)).0, Reason::VgpuTypeMismatch);
    assert_eq!(refused(mig(), wish(TIME, None)).0, Reason::GpuModeWrong);
    assert_eq!(refused(sliced(), wish(MIG, Some(two()))).0, Reason::GpuModeWrong);
    let mut host = sliced().build();
    host.gpus.devices[0].mig = Mig::Unsupported;
    let refusal = crate::plan::plan(&host, &nobodys(), &wish(MIG, Some(two()))).unwrap_err();
    assert_eq!(refusal.reason, Reason::NotMigCapable);
}

#[test]
fn boards_with_graphics_put_vgpus_on_graphics_instances_alone() {
    let mut host = mig().build();
    let mig = host.gpus.devices[0].mig_mut();
    (mig.memory_slices, mig.compute_slices) = (4, 4);
    mig.profiles.truncate(1);
    mig.profiles[0].name = "1g.24gb".to_owned();
    mig.profiles[0].placements.truncate(4);
    let graphics = crate::gpu::GpuInstanceProfile { name: "1g.24gb+gfx".to_owned(), id: 47, ..mig.profiles[0].clone() };
    mig.profiles.push(graphics);
    let planned = |profile| crate::plan::plan(&host, &nobodys(), &wish("DC-1-24Q", Some(piece(profile, 3, 1))));
    let refusal = planned("1g.24gb").unwrap_err();
    assert_eq!((refusal.reason, refusal.fix.contains("1g.24gb+gfx")), (Reason::VgpuTypeMismatch, true));
    let there = piece("1g.24gb+gfx", 3, 1);
    let (type_name, placement) = ("DC-1-24Q".to_owned(), Some(there.placement));
    let set = Step::SetVgpuType { function: at(VFS[0]), type_name, placement };
    assert_eq!(planned("1g.24gb+gfx").unwrap().steps, [create(there), set]);
}

#[test]
fn what_is_there_already_needs_no_step_and_is_nobody_elses() {
    let there = || with_instances(&[(3, "2g.20gb", 4, 2)]).carries(VFS[0], 3, MIG, Some(3));
    let mine = owners("me", &[(VFS[0], "me")]);
    assert_eq!(there().holder(VFS[0], "qemu").plan_for(&mine, wish(MIG, Some(two()))).unwrap(), []);
    assert_eq!(there().plan(wish(MIG, Some(two()))).unwrap(), []);
    assert_eq!(refused(there().holder(VFS[0], "qemu"), wish(MIG, Some(two()))).0, Reason::DeviceHeldOpen);
    let hers = owners("me", &[(VFS[0], "her")]);
    assert_eq!(there().plan_for(&hers, wish(MIG, Some(two()))).unwrap_err().reason, Reason::DeviceOwned);
    let (reason, text) = refused(there(), wish("H100XM-1-20C", Some(piece("1g.20gb", 0, 2))));
    assert_eq!((reason, text.contains(MIG)), (Reason::VgpuFunctionTaken, true), "{text}");
    let (reason, text) = refused(there(), wish(MIG, Some(piece("2g.20gb", 0, 2))));
    assert_eq!((reason, text.contains("stands on 2g.20gb at 4")), (Reason::VgpuFunctionTaken, true), "{text}");
}

#[test]
fn a_function_must_be_free_and_on_its_driver() {
    assert_eq!(refused(sliced().holder(VFS[0], "qemu"), wish(TIME, None)).0, Reason::DeviceHeldOpen);
    let changed = |change: fn(&mut Host)| {
        let mut host = sliced().build();
        change(&mut host);
        crate::plan::plan(&host, &nobodys(), &wish(TIME, None)).unwrap_err().reason
    };
    assert_eq!(changed(|host| host.pci.devices[1].driver = Some("vfio-pci".to_owned())), Reason::DriverUnsuitable);
    assert_eq!(changed(|host| host.pci.devices[0].driver = None), Reason::DriverUnsuitable);
    assert_eq!(changed(|host| host.vgpus.clear()), Reason::VgpuFrameworkMissing);
    assert_eq!(changed(|host| host.gpus.devices.clear()), Reason::GpuModeUnknown);
    assert_eq!(refused(sliced().mdev_types(VFS[0], &[]), wish(TIME, None)).0, Reason::VgpuFrameworkMissing);
    assert_eq!(refused(sliced().gpu_error(GPU), wish(TIME, None)).0, Reason::DeviceNotSeen);
    let faulty = HostBuilder::new().gpu(h100(GPU).faulty("FellOffTheBus"), &VFS);
    assert_eq!(refused(faulty, wish(TIME, None)).0, Reason::GpuUnhealthy);
    let plain = HostBuilder::new().function(function(VFS[0]));
    assert_eq!(refused(plain, wish(TIME, None)).0, Reason::DeviceUnsuitable);
    let whole = owners("me", &[(GPU, "her")]);
    assert_eq!(sliced().plan_for(&whole, wish(TIME, None)).unwrap_err().reason, Reason::DeviceOwned);
}

#[test]
fn giving_back_takes_the_vgpu_and_its_own_instance() {
    let mine = || owners("me", &[(VFS[0], "me")]).instance(GPU, two(), "me");
    let there = || with_instances(&[(3, "2g.20gb", 4, 2)]).carries(VFS[0], 3, MIG, None);
    assert_eq!(there().plan_for(&mine(), none(Some(two()))).unwrap(), [clear(MIG), destroy(two())]);
    assert_eq!(sliced().carries(VFS[0], 1, TIME, None).plan_for(&mine(), none(None)).unwrap(), [clear(TIME)]);
    // A crash between the two: the instance is left.
    let left = with_instances(&[(3, "2g.20gb", 4, 2)]);
    assert_eq!(left.plan_for(&mine(), none(Some(two()))).unwrap(), [destroy(two())]);
    assert_eq!(mig().plan_for(&mine(), none(Some(two()))).unwrap(), []);
    // The functions are gone with their mode.
    let gone = HostBuilder::new().gpu(h100(GPU), &[]);
    assert_eq!(gone.plan_for(&mine(), none(Some(two()))).unwrap(), []);
    // Beside others of the same kind only his own goes.
    let others = || with_instances(&[(3, "2g.20gb", 4, 2), (4, "2g.20gb", 0, 2)]).carries(VFS[0], 3, MIG, None);
    let steps = others().carries(VFS[1], 3, MIG, Some(4)).plan_for(&mine(), none(Some(two()))).unwrap();
    assert_eq!(steps, [clear(MIG), destroy(two())]);
    let steps = others().carries(VFS[1], 3, MIG, None).plan_for(&mine(), none(Some(two()))).unwrap();
    assert_eq!(steps, [clear(MIG), destroy(two())]);
    let steps = others().carries(VFS[1], 3, MIG, Some(3)).plan_for(&mine(), none(Some(two()))).unwrap();
    assert_eq!(steps, [clear(MIG)], "another vGPU stands on it");
    let steps = there().carries(VFS[1], 3, MIG, None).plan_for(&mine(), none(Some(two()))).unwrap();
    assert_eq!(steps, [clear(MIG)], "another vGPU can only stand on it");
}

#[test]
fn nothing_is_given_back_that_is_not_the_askers_or_still_in_use() {
    let there = || sliced().carries(VFS[0], 1, TIME, None);
    let refused = |host: HostBuilder, owners: &Owners| host.plan_for(owners, none(None)).unwrap_err().reason;
    let mine = owners("me", &[(VFS[0], "me")]);
    assert_eq!(refused(there().holder(VFS[0], "qemu"), &mine), Reason::DeviceHeldOpen);
    assert_eq!(refused(there(), &owners("me", &[(VFS[0], "her")])), Reason::DeviceOwned);
    assert_eq!(refused(there(), &owners("me", &[])), Reason::DeviceOwned, "a stranger's, by the journal");
    assert_eq!(there().plan(none(None)).unwrap(), [clear(TIME)], "nobody's, and the host itself asks");
    let hers = Owners { asker: None, ..owners("her", &[(VFS[0], "her")]) };
    assert_eq!(refused(there(), &hers), Reason::DeviceOwned);
    assert_eq!(refused(there().pci_error(VFS[0]), &mine), Reason::DeviceNotSeen);
    assert_eq!(refused(HostBuilder::new().bus_error(), &mine), Reason::DeviceNotSeen, "not seen, not gone");
    let faulty = HostBuilder::new().gpu(h100(GPU).faulty("XidError"), &VFS).carries(VFS[0], 1, TIME, None);
    assert!(faulty.plan_for(&mine, none(None)).is_ok(), "a fault keeps nobody from giving back");
}
