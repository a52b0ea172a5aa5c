//! What operators do with devices: list, quarantine, release, lay out.

use croft_core::Reason;
use croft_core::device::{Kind, Mode, State as DeviceState};
use croft_store::{DeviceFilter, Page};

use super::GPU;
use crate::bed::{Bed, call, h, refused, told};
use crate::boards::{gpu, h100, mig, nic, of_pool, pool};

#[tokio::test]
async fn a_quarantine_keeps_new_ones_away_and_a_release_is_told_to_the_host() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let vm = bed.have("vm", vec![mig("mig", "1g.10gb")]).await.unwrap();
    let kept = bed.store.device_quarantine(&call(), &h("h1"), &GPU.into(), "smells").await.unwrap().into_inner();
    assert_eq!((kept.quarantine.as_deref(), kept.holders.len()), (Some("smells"), 1));
    assert!(refused(bed.have("two", vec![mig("mig", "1g.10gb")]).await).to_string().contains("is quarantined"));
    bed.devices("h1", vec![h100(GPU)]).await;
    assert!(bed.record("h1", GPU).await.quarantine.is_some(), "a report does not end it");

    let mut sick = h100(GPU);
    (sick.state, sick.message) = (DeviceState::Stuck, "a write never returned".to_owned());
    bed.devices("h1", vec![sick]).await;
    let error = refused(bed.store.device_release(&call(), &h("h1"), &GPU.into()).await);
    assert_eq!(error.reason(), Reason::DeviceFaulty);
    assert!(error.to_string().contains("a write never returned"), "{error}");
    // A fault that is found is mended first; of one that was only told of, nobody else can say that it is over.
    for (reason, ends) in [("LinkDegraded", false), ("XidError", true)] {
        let mut sick = h100(GPU);
        (sick.state, sick.reason) = (DeviceState::Unhealthy, reason.to_owned());
        bed.devices("h1", vec![sick]).await;
        let released = bed.store.device_release(&call(), &h("h1"), &GPU.into()).await;
        assert_eq!(released.is_ok(), ends, "{reason}");
    }
    bed.devices("h1", vec![h100(GPU)]).await;
    let first = bed.store.device_release(&call(), &h("h1"), &GPU.into()).await.unwrap().into_inner();
    let again = bed.store.device_release(&call(), &h("h1"), &GPU.into()).await.unwrap().into_inner();
    assert!(again.release_counter > first.release_counter && first.release_counter > 0);
    let told = bed.store.host_desired(&h("h1")).await.unwrap().releases;
    assert_eq!(told, [(GPU.into(), again.release_counter)]);
    bed.have("two", vec![mig("mig", "1g.10gb")]).await.unwrap();
    bed.delete(&vm).await;
    assert_eq!(bed.mode(GPU).await, Mode::MigVgpu, "one is left");
    let nobody = bed.store.device_release(&call(), &h("h1"), &"0000:99:00.0".into()).await;
    assert_eq!(refused(nobody).reason(), Reason::NotFound);
    bed.consistent().await;
}

#[tokio::test]
async fn devices_are_listed_by_kind_and_pool_in_pages() {
    let bed = Bed::with_devices(nic().into_iter().chain([h100(GPU)]).collect()).await;
    bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap();
    let ids = |records: &[croft_core::device::Record]| -> Vec<String> {
        records.iter().map(|one| one.device.id.to_string()).collect()
    };
    let all = DeviceFilter::default();
    let (first, next) = bed.store.device_list(&all, &Page::first(3)).await.unwrap();
    assert_eq!(ids(&first), ["0000:01:00.0", "0000:01:10.0", "0000:01:10.1"]);
    let (second, end) = bed.store.device_list(&all, &Page { size: 3, token: next }).await.unwrap();
    assert_eq!((ids(&second), end), (vec![GPU.to_owned()], None));
    let gpus = DeviceFilter { kinds: vec![Kind::Gpu], host: Some(h("h1")), ..all.clone() };
    assert_eq!(ids(&bed.store.device_list(&gpus, &Page::first(9)).await.unwrap().0), [GPU]);
    let of = DeviceFilter { pool: Some("vfs".into()), ..all.clone() };
    assert_eq!(bed.store.device_list(&of, &Page::first(9)).await.unwrap().0.len(), 2);
    let none = DeviceFilter { pool: Some("none".into()), ..all };
    assert_eq!(refused(bed.store.device_list(&none, &Page::first(9)).await).reason(), Reason::NotFound);
    assert_eq!(bed.store.device_all().await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_layout_keeps_gpus_for_one_use_and_takes_nothing_away() {
    use croft_core::device::DeviceLayout;
    let bed = Bed::with_devices(nic().into_iter().chain([h100(GPU)]).collect()).await;
    let keep = |gpu_mode| vec![DeviceLayout { device: GPU.into(), virtual_functions: 0, gpu_mode }];
    let functions =
        |count| vec![DeviceLayout { device: "0000:01:00.0".into(), virtual_functions: count, gpu_mode: None }];
    let set = |devices| {
        let store = bed.store.clone();
        async move { store.host_layout_set(&call(), &h("h1"), "", devices).await.map(croft_store::Done::into_inner) }
    };
    let vm = bed.have("vm", vec![mig("mig", "1g.10gb")]).await.unwrap();
    assert_eq!(refused(set(keep(Some(Mode::Vgpu))).await).reason(), Reason::DeviceInUse);
    let layout = set(keep(Some(Mode::MigVgpu))).await.unwrap();
    assert_eq!((layout.generation, layout.settled()), (1, false));
    bed.delete(&vm).await;
    let error = refused(bed.have("vm", vec![gpu("gpu")]).await);
    assert!(error.to_string().contains("kept for MIG_VGPU"), "{error}");
    set(keep(Some(Mode::Idle))).await.unwrap();
    assert_eq!(refused(bed.have("vm", vec![mig("mig", "1g.10gb")]).await).reason(), Reason::NoCapacity);
    bed.have("vm", vec![gpu("gpu")]).await.unwrap();

    assert_eq!(refused(set(functions(8)).await).reason(), Reason::InvalidArgument, "it has 7");
    let wrong = vec![DeviceLayout { device: "0000:99:00.0".into(), virtual_functions: 0, gpu_mode: None }];
    assert_eq!(refused(set(wrong).await).reason(), Reason::InvalidArgument);
    let layout = set(functions(2)).await.unwrap();
    bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap();
    bed.limit("acme", "devices/vfs", 8).await;
    let holder = bed.have("holder", vec![of_pool("nic", "vfs")]).await.unwrap();
    for smaller in [functions(0), vec![]] {
        let error = refused(set(smaller).await);
        assert_eq!(error.reason(), Reason::DeviceInUse);
        assert!(error.to_string().contains("tenants/acme/instances/holder"), "{error}");
    }
    bed.delete(&holder).await;
    set(functions(0)).await.unwrap();

    let mut answer = told(Some(nic().into_iter().chain([h100(GPU)]).collect()));
    answer.layout_generation = layout.generation;
    answer.layout_problems = vec!["0000:01:00.0: busy".to_owned()];
    assert!(bed.store.device_report(&h("h1"), answer).await.unwrap());
    let now = bed.store.host_layout_get(&h("h1")).await.unwrap();
    assert_eq!((now.told_generation, now.problems.len(), now.settled()), (layout.generation, 1, false));
    assert_eq!(bed.store.host_desired(&h("h1")).await.unwrap().layout, now);
    let stale = bed.store.host_layout_set(&call(), &h("h1"), &layout.etag(), vec![]).await;
    assert_eq!(refused(stale).reason(), Reason::EtagMismatch);
}
