//! One device more for an instance that exists, or one less.

use croft_core::Reason;
use croft_core::device::{Kind, Mode};
use croft_core::instance::{Phase, State};
use croft_store::Command;

use super::GPU;
use crate::bed::{Bed, call, h, refused, seen};
use crate::boards::{gpu, h100, mig, nic, of_pool, pool};

#[tokio::test]
async fn attached_to_what_runs_and_detached_by_the_hosts_word() {
    let bed = Bed::with_devices(nic()).await;
    bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap();
    let vm = bed.running("acme", "vm").await;
    let denied = refused(bed.attach(&vm, of_pool("nic", "vfs")).await);
    assert_eq!(denied.reason(), Reason::DeviceNotGranted);
    bed.limit("acme", "devices/vfs", 1).await;
    let (attach, with) = bed.attach(&vm, of_pool("nic", "vfs")).await.unwrap();
    assert_eq!((attach.subject.as_str(), with.meta.generation), ("nic", vm.meta.generation + 1));
    assert_eq!(with.placement.as_ref().unwrap().devices[0].device.as_str(), "0000:01:10.0");
    assert_eq!((bed.used("acme", "devices/vfs").await, bed.record("h1", "0000:01:10.0").await.holders.len()), (1, 1));
    assert_eq!(refused(bed.attach(&with, of_pool("nic", "vfs")).await).reason(), Reason::AlreadyExists);
    assert_eq!(refused(bed.attach(&with, of_pool("more", "vfs")).await).reason(), Reason::QuotaExceeded);
    assert_eq!(refused(bed.attach(&with, gpu("gpu")).await).reason(), Reason::DeviceNeedsStop);
    bed.consistent().await;
    bed.settle(vm.uid).await;
    assert!(!bed.operation(&attach).await.done, "the host has not answered to it");
    bed.see(vm.uid, Phase::Running).await;
    bed.settle(vm.uid).await;
    assert!(bed.operation(&attach).await.done);
    let desired = bed.store.host_desired(&h("h1")).await.unwrap();
    assert_eq!(desired.instances[0].0.placement, with.placement);

    assert_eq!(refused(bed.detach(&with, "none").await).reason(), Reason::InvalidArgument);
    let (detach, leaving) = bed.detach(&with, "nic").await.unwrap();
    let (again, _) = bed.detach(&with, "nic").await.unwrap();
    assert_eq!(again.uid, detach.uid, "the one under way");
    bed.consistent().await;
    // Word from before it was told proves nothing.
    let mut early = seen(&leaving, Phase::Running);
    early.generation -= 1;
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, early)], true).await.unwrap();
    assert_eq!(bed.record("h1", "0000:01:10.0").await.holders.len(), 1);
    let still = croft_core::instance::Observed { released_devices: vec![], ..seen(&leaving, Phase::Running) };
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, still)], true).await.unwrap();
    assert_eq!(bed.used("acme", "devices/vfs").await, 1, "still in the guest");
    bed.see(vm.uid, Phase::Running).await;
    assert!(bed.operation(&detach).await.done);
    let without = bed.get(vm.uid).await;
    assert!(without.spec.devices.is_empty() && without.intent.detaching.is_empty());
    assert_eq!(without.placement.as_ref().unwrap().devices, []);
    assert_eq!(without.status.state, State::Running);
    assert_eq!((bed.used("acme", "devices/vfs").await, bed.record("h1", "0000:01:10.0").await.holders.len()), (0, 0));
    bed.consistent().await;
    // The same word again, now that the id is in use once more.
    let (_, anew) = bed.attach(&without, of_pool("nic", "vfs")).await.unwrap();
    let old =
        croft_core::instance::Observed { released_devices: vec!["nic".to_owned()], ..seen(&anew, Phase::Running) };
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, old)], true).await.unwrap();
    assert_eq!(bed.record("h1", "0000:01:10.0").await.holders.len(), 1);
    bed.delete(&anew).await;
    bed.consistent().await;
}

#[tokio::test]
async fn a_stopped_one_gets_a_gpu_and_a_fence_ends_a_detach() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let vm = bed.running("acme", "vm").await;
    bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    bed.see(vm.uid, Phase::Off).await;
    bed.settle(vm.uid).await;
    let (attach, _) = bed.attach(&bed.get(vm.uid).await, gpu("gpu")).await.unwrap();
    assert_eq!(bed.mode(GPU).await, Mode::Passthrough);
    bed.see(vm.uid, Phase::Off).await;
    bed.settle(vm.uid).await;
    assert!(bed.operation(&attach).await.done, "it is there with the next start");
    let stale = {
        let device = mig("x", "1g.10gb");
        let placed = Ok(None);
        let (tenant, id) = (vm.tenant.clone(), vm.id.clone());
        croft_store::AttachRequest { call: call(), tenant, id, etag: String::new(), device, placed }
    };
    assert_eq!(bed.store.instance_attach(stale).await.unwrap(), croft_store::AttachAnswer::Stale);

    bed.command(&vm, Command::Start).await.unwrap();
    let runs = refused(bed.detach(&vm, "gpu").await);
    assert_eq!(runs.reason(), Reason::DeviceNeedsStop, "{runs}");
    assert!(bed.get(vm.uid).await.intent.detaching.is_empty());
    bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    bed.see(vm.uid, Phase::Off).await;
    bed.settle(vm.uid).await;
    let (detach, _) = bed.detach(&vm, "gpu").await.unwrap();
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    assert!(bed.operation(&detach).await.done, "off is out of the guest");
    assert!(bed.get(vm.uid).await.spec.devices.is_empty());
    assert_eq!(bed.mode(GPU).await, Mode::Idle);
    bed.consistent().await;
    // Without a host: asked for, given with the next one; and let go of at once.
    let (attach, homeless) = bed.attach(&bed.get(vm.uid).await, gpu("gpu")).await.unwrap();
    bed.settle(vm.uid).await;
    assert!(bed.operation(&attach).await.done && homeless.placement.is_none());
    assert_eq!(bed.used("acme", "gpus").await, 0);
    let (detach, _) = bed.detach(&homeless, "gpu").await.unwrap();
    bed.settle(vm.uid).await;
    assert!(bed.operation(&detach).await.done);
    assert!(bed.get(vm.uid).await.spec.devices.is_empty());
    bed.consistent().await;
}
