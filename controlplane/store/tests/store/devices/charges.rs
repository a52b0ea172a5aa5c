//! What devices cost: nothing without a grant, each limit above binds, and a fence gives it back.

use croft_core::device::Mode;
use croft_core::ports::NewInstance;
use croft_core::{Error, Reason};
use croft_store::PlaceAnswer;

use super::{GPU, MODEL};
use crate::bed::{Bed, call, dry, h, refused, small};
use crate::boards::{gpu, h100, l40s, mig};

#[tokio::test]
async fn quota_denies_without_a_grant_and_every_limit_above_binds() {
    let bed = Bed::furnished().await;
    bed.devices("h1", vec![h100(GPU), l40s("0000:51:00.0")]).await;
    bed.tenant("child", Some("acme")).await;
    let ask = |request| {
        let mut new = small("child", "vm");
        new.spec.devices = vec![request];
        new
    };
    let slice = || ask(mig("mig", "2g.20gb"));
    let denied = refused(bed.claim(call(), slice()).await);
    assert_eq!(denied.reason(), Reason::DeviceNotGranted);
    assert!(denied.to_string().contains("gpu_slices/h100_sxm_80gb/2g.20gb"), "{denied}");
    bed.limit("acme", "gpus", 8).await;
    bed.limit("acme", &format!("gpu_slices/{MODEL}/2g.20gb"), 1).await;
    assert_eq!(refused(bed.claim(call(), slice()).await).reason(), Reason::DeviceNotGranted, "above is no grant");
    bed.limit("child", "gpu_memory_mib", 100_000).await;
    bed.claim(dry(), slice()).await.unwrap();
    assert_eq!(bed.used("acme", "gpu_memory_mib").await, 0, "a dry run charges nothing");
    let (_, vm) = bed.claim(call(), slice()).await.unwrap();
    assert_eq!(bed.used("acme", "gpu_memory_mib").await, 20480, "also what is not limited there");
    let mut second = slice();
    second.id = "second".to_owned();
    let Error::QuotaExceeded(violations) = refused(bed.claim(call(), second.clone()).await) else { panic!("quota") };
    assert_eq!((violations[0].tenant.as_str(), violations[0].used, violations[0].limit), ("acme", 1, 1));
    bed.delete(&vm).await;
    bed.claim(call(), second).await.unwrap();
    bed.consistent().await;
}

#[tokio::test]
async fn a_fence_gives_devices_and_their_charges_back_and_a_new_host_charges_what_it_gives() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let vm = bed.have("vm", vec![gpu("gpu")]).await.unwrap();
    assert_eq!(bed.used("acme", "gpus/h100_sxm_80gb").await, 1);
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    assert_eq!((bed.mode(GPU).await, bed.record("h1", GPU).await.holders.len()), (Mode::Idle, 0));
    assert_eq!((bed.used("acme", "gpus").await, bed.used("acme", "instances").await), (0, 1));
    bed.consistent().await;
    assert_eq!(refused(bed.have("other", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity, "its host is fenced");

    bed.host("h2", 8).await;
    bed.devices("h2", vec![l40s(GPU)]).await;
    assert!(matches!(bed.place_again(vm.uid).await, PlaceAnswer::Placed(_)));
    assert_eq!((bed.used("acme", "gpus/l40s_48gb").await, bed.used("acme", "gpus/h100_sxm_80gb").await), (1, 0));
    bed.consistent().await;
    bed.store.host_fence(&call(), &h("h2")).await.unwrap();
    bed.limit("acme", "gpus", 0).await;
    bed.host("h3", 8).await;
    bed.devices("h3", vec![l40s(GPU)]).await;
    let again = bed.place(call(), NewInstance { spec: bed.get(vm.uid).await.spec, ..small("any", "any") }).await;
    let (placement, claim, version) = again.placed.unwrap();
    let error = refused(bed.store.instance_place(vm.uid, placement, claim, version).await);
    assert_eq!(
        error.reason(),
        Reason::QuotaExceeded,
        "what it was is charged no more, what it would be is not granted"
    );
    bed.consistent().await;
}
