//! Exact pieces: claimed, charged, shown, and never with two owners.

use croft_core::Reason;
use croft_core::device::Mode;
use croft_core::instance::Phase;
use croft_store::{ClaimAnswer, Command};

use super::{GPU, MODEL, with};
use crate::bed::{Bed, call, h, refused, small};
use crate::boards::{gpu, h100, mig, vgpu};

#[tokio::test]
async fn exact_pieces_are_claimed_charged_shown_and_given_back() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let vm = bed.have("vm", vec![mig("a", "2g.20gb"), mig("b", "1g.10gb")]).await.unwrap();
    let pieces = &vm.placement.as_ref().unwrap().devices;
    assert_eq!(pieces.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(bed.used("acme", &format!("gpu_slices/{MODEL}/2g.20gb")).await, 1);
    assert_eq!(bed.used("acme", "gpu_memory_mib").await, 20480 + 10240);
    let record = bed.record("h1", GPU).await;
    assert_eq!(record.promise.unwrap().mode, Mode::MigVgpu);
    assert_eq!(record.holders.len(), 1);
    assert_eq!(record.holders[0].name, "tenants/acme/instances/vm");
    assert_eq!(record.holders[0].mig_profiles, ["1g.10gb", "2g.20gb"]);
    assert!(!record.in_use(), "there is room");
    bed.consistent().await;
    assert_eq!(bed.get(vm.uid).await.placement, vm.placement, "as it was answered");

    bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    bed.see(vm.uid, Phase::Off).await;
    bed.settle(vm.uid).await;
    assert_eq!(bed.mode(GPU).await, Mode::MigVgpu, "stopped, it keeps what it has");
    bed.command(&vm, Command::Delete { force: false }).await.unwrap();
    assert_eq!(bed.record("h1", GPU).await.holders.len(), 1, "until the host says that nothing is left");
    bed.see(vm.uid, Phase::Absent).await;
    bed.settle(vm.uid).await;
    let record = bed.record("h1", GPU).await;
    assert_eq!((record.promise.unwrap().mode, record.holders.len()), (Mode::Idle, 0));
    assert_eq!(bed.used("acme", "gpu_memory_mib").await, 0);
    bed.consistent().await;
    bed.have("next", vec![gpu("gpu")]).await.unwrap();
    assert!(bed.record("h1", GPU).await.in_use());
    bed.consistent().await;
}

#[tokio::test]
async fn of_two_that_ask_for_the_last_slice_one_gets_it() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    bed.have("first", vec![mig("mig", "3g.40gb")]).await.unwrap();
    // Both were placed on the same look, as two replicas would.
    let one = bed.place(call(), with("one", vec![mig("mig", "3g.40gb")])).await;
    let two = bed.place(call(), with("two", vec![mig("mig", "3g.40gb")])).await;
    let three = bed.place(call(), small("acme", "three")).await;
    let answers = bed.store.instance_claim(vec![one, two.clone(), three]).await.unwrap();
    assert!(matches!(answers[0], ClaimAnswer::Admitted { .. }));
    assert_eq!(answers[1], ClaimAnswer::Stale);
    assert!(matches!(answers[2], ClaimAnswer::Admitted { .. }), "its neighbour is not disturbed");
    assert_eq!(bed.store.instance_claim(vec![two]).await.unwrap(), [ClaimAnswer::Stale], "the host moved on");
    let error = refused(bed.have("two", vec![mig("mig", "3g.40gb")]).await);
    assert!(error.to_string().contains("no place is left for 3g.40gb"), "{error}");
    bed.consistent().await;
}

#[tokio::test]
async fn a_batch_never_makes_one_gpu_two_things() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let mut batch = Vec::new();
    for (id, request) in [
        ("mig", mig("d", "1g.10gb")),
        ("shared", vgpu("d", "H100XM-20C")),
        ("whole", gpu("d")),
        ("other-size", vgpu("d", "H100XM-40C")),
    ] {
        batch.push(bed.place(call(), with(id, vec![request])).await);
    }
    let answers = bed.store.instance_claim(batch).await.unwrap();
    let admitted: Vec<bool> = answers.iter().map(|one| matches!(one, ClaimAnswer::Admitted { .. })).collect();
    assert_eq!(admitted, [true, false, false, false]);
    assert_eq!(bed.mode(GPU).await, Mode::MigVgpu);
    bed.consistent().await;
}

#[tokio::test]
async fn time_sliced_vgpus_of_one_gpu_have_one_size_and_its_framebuffer() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let mut batch = Vec::new();
    for id in ["small", "large"] {
        let type_name = if id == "small" { "H100XM-20C" } else { "H100XM-40C" };
        batch.push(bed.place(call(), with(id, vec![vgpu("d", type_name)])).await);
    }
    let answers = bed.store.instance_claim(batch).await.unwrap();
    assert_eq!(answers[1], ClaimAnswer::Stale, "placed on the same look, of another size");
    let error = refused(bed.have("large", vec![vgpu("d", "H100XM-40C")]).await);
    assert!(error.to_string().contains("cannot mix sizes"), "{error}");
    for id in ["two", "three", "four"] {
        bed.have(id, vec![vgpu("d", "H100XM-20C")]).await.unwrap();
    }
    let promise = bed.record("h1", GPU).await.promise.unwrap();
    assert_eq!((promise.framebuffer_mib, promise.framebuffer_used_mib, promise.vgpu_size_mib), (81920, 81920, 20480));
    assert!(bed.record("h1", GPU).await.in_use());
    assert_eq!(refused(bed.have("five", vec![vgpu("d", "H100XM-20C")]).await).reason(), Reason::NoCapacity);
    bed.consistent().await;
    for id in ["small", "two", "three", "four"] {
        let vm = bed.store.instance_get(&"acme".into(), id).await.unwrap().unwrap();
        assert_eq!(bed.mode(GPU).await, Mode::Vgpu);
        bed.delete(&vm).await;
        bed.consistent().await;
    }
    assert_eq!(bed.mode(GPU).await, Mode::Idle, "the last one has left");
    bed.have("large", vec![vgpu("d", "H100XM-40C")]).await.unwrap();
}

#[tokio::test]
async fn a_killed_plane_finds_everything_where_it_was() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let vm = bed.have("vm", vec![mig("mig", "3g.40gb")]).await.unwrap();
    let bed = bed.reopen().await;
    bed.consistent().await;
    let view = bed.store.host_view(&h("h1")).await.unwrap().unwrap();
    let gpu = &view.devices.0[&GPU.into()];
    assert_eq!((gpu.mode, gpu.taken.len()), (Mode::MigVgpu, vm.placement.unwrap().devices[0].atoms.len()));
    assert_eq!(bed.store.host_views().await.unwrap(), [view]);
}
