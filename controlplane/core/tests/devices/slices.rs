//! Slices of GPUs: cut at an exact place, or shared by size.

use croft_core::device::Atom;
use croft_core::placement::fit::Predicate;

use super::fixtures::{any_gpu, give, h100, host, mig, predicate, vgpu};

#[test]
fn slices_fill_a_gpu_before_they_open_another_and_keep_room_for_large_ones() {
    let mut host = host(vec![h100("0000:41:00.0", "vendor"), h100("0000:42:00.0", "vendor")]);
    let first = give(&mut host, &[mig("1g.10gb")]).unwrap().remove(0);
    assert_eq!(first.mig_start, 6, "where it leaves 3g and 2g most room");
    assert_eq!((first.function_index, first.vgpu_type.as_str()), (Some(0), "H100XM-1-10C"));
    let second = give(&mut host, &[mig("4g.40gb")]).unwrap().remove(0);
    assert_eq!(second.device, first.device);
    assert_eq!(second.function_index, Some(1));
    let whole = give(&mut host, &[any_gpu()]).unwrap().remove(0);
    assert_ne!(whole.device, first.device, "the other one was left whole");
    assert_eq!(predicate(give(&mut host, &[mig("7g.80gb")])), Predicate::MigGeometry);
    assert_eq!(predicate(give(&mut host, &[vgpu("H100XM-20C")])), Predicate::GpuMode, "never both kinds on one GPU");
}

#[test]
fn several_slices_of_one_request_are_found_in_whatever_order() {
    let mut host = host(vec![h100("0000:41:00.0", "vendor")]);
    let given = give(&mut host, &[mig("1g.10gb"), mig("2g.20gb"), mig("4g.40gb")]).unwrap();
    let ids: Vec<_> = given.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["d-0", "d-1", "d-2"], "answered in the order of the requests");
    assert_eq!(given[2].mig_start, 0);
}

#[test]
fn time_sliced_vgpus_share_framebuffer_of_one_size() {
    let mut host = host(vec![h100("0000:41:00.0", "vendor")]);
    for _ in 0..2 {
        give(&mut host, &[vgpu("H100XM-20C")]).unwrap();
    }
    assert_eq!(predicate(give(&mut host, &[vgpu("H100XM-40C")])), Predicate::Framebuffer);
    let third = give(&mut host, &[vgpu("H100XM-20C")]).unwrap().remove(0);
    assert_eq!(third.atoms, [Atom::Function(2)]);
    // Nominal sizes count: four of 20480 fit, though the board's 81559 MiB are 361 short of that.
    give(&mut host, &[vgpu("H100XM-20C")]).unwrap();
    assert_eq!(predicate(give(&mut host, &[vgpu("H100XM-20C")])), Predicate::Framebuffer);
}

#[test]
fn what_is_given_back_is_free_and_the_gpu_idle() {
    let mut host = host(vec![h100("0000:41:00.0", "vendor")]);
    let untouched = host.clone();
    let given = give(&mut host, &[vgpu("H100XM-20C")]).unwrap();
    let claims = host.devices.claims(&given[0]);
    host.devices.give_back(&claims);
    assert_eq!(host, untouched);
    give(&mut host, &[mig("7g.80gb")]).unwrap();
}

#[test]
fn a_host_without_the_vgpu_driver_gives_whole_gpus_only() {
    let mut host = host(vec![h100("0000:41:00.0", "none")]);
    assert_eq!(predicate(give(&mut host, &[mig("2g.20gb")])), Predicate::DeviceFlavour);
    let unknown = give(&mut host, &[mig("9g.90gb")]).unwrap_err();
    assert!(unknown.message.contains("9g.90gb"), "{unknown:?}");
    give(&mut host, &[any_gpu()]).unwrap();
}

#[test]
fn more_vgpus_than_there_is_framebuffer_for_are_refused_by_counting() {
    let mut host = host(vec![h100("0000:41:00.0", "vendor"), h100("0000:42:00.0", "vendor")]);
    give(&mut host, &[mig("1g.10gb")]).unwrap();
    let asked = |count: usize| vec![vgpu("H100XM-40C"); count];
    let refused = give(&mut host, &asked(3)).unwrap_err();
    assert_eq!(refused.predicate, Predicate::Framebuffer);
    assert!(
        refused.message.contains("3 of H100XM-40C asked, and its GPUs have framebuffer for 2"),
        "{}",
        refused.message
    );
    give(&mut host, &asked(2)).unwrap();
}
