//! What hosts tell of their devices: written where it differs, and never as "free".

use croft_core::Reason;
use croft_core::device::{Device, Kind, State as DeviceState};
use croft_store::Page;

use super::GPU;
use crate::bed::{Bed, call, h, refused, told};
use crate::boards::{device, gpu, h100, nic, of_pool, pool};

#[tokio::test]
async fn a_report_writes_what_is_new_and_moves_the_host_for_what_placement_looks_at() {
    let bed = Bed::furnished().await;
    let view = bed.store.host_view(&h("h1")).await.unwrap().unwrap();
    assert!(!view.devices_seen);
    assert!(bed.devices("h1", vec![h100(GPU)]).await);
    assert!(bed.store.host_view(&h("h1")).await.unwrap().unwrap().devices_seen);
    let (version, before) = (bed.version().await, bed.dump().await);
    assert!(!bed.devices("h1", vec![h100(GPU)]).await, "nothing new");
    assert_eq!(bed.dump().await, before);

    let mut shown = h100(GPU);
    shown.gpu.as_mut().unwrap().mig_enabled = true;
    assert!(bed.devices("h1", vec![shown.clone()]).await);
    assert_eq!(bed.version().await, version, "only shown");
    assert!(bed.record("h1", GPU).await.device.gpu.unwrap().mig_enabled);
    (shown.state, shown.message) = (DeviceState::Unhealthy, "Xid 79".to_owned());
    assert!(bed.devices("h1", vec![shown]).await);
    assert_eq!(bed.version().await, version + 1);
    let events = bed.store.events_list(None, Some("hosts/h1/devices/0000:41:00.0"), &Page::first(9)).await.unwrap().0;
    assert_eq!(events.last().unwrap().message, "AVAILABLE to UNHEALTHY: Xid 79");

    // A host that started again has to look before anything is placed there.
    let boot = croft_store::HostReport { boot_id: "boot-2".to_owned(), ..crate::bed::report(16) };
    bed.store.host_report(&h("h1"), boot).await.unwrap();
    assert!(!bed.store.host_view(&h("h1")).await.unwrap().unwrap().devices_seen);
    bed.limit("acme", "gpus", 1).await;
    let error = refused(bed.have("vm", vec![gpu("gpu")]).await);
    assert!(error.to_string().contains("has not told of its devices since it started"), "{error}");
}

#[tokio::test]
async fn only_what_differs_is_written() {
    let others = (0x42..0x60).map(|at| h100(&format!("0000:{at:02x}:00.0")));
    let all: Vec<_> = std::iter::once(h100(GPU)).chain(others).collect();
    let bed = Bed::with_devices(all.clone()).await;
    let before = bed.dump().await;
    bed.advance(60);
    assert!(!bed.devices("h1", all.clone()).await);
    assert_eq!(bed.dump().await, before, "a report that says nothing new writes nothing");
    let mut news = all.clone();
    news[0].gpu.as_mut().unwrap().mig_enabled = true;
    assert!(bed.devices("h1", news.clone()).await);
    let after = bed.dump().await;
    for (table, rows) in before {
        let same = rows.iter().filter(|row| after[&table].contains(row)).count();
        let differ = if table == "devices" { 1 } else { 0 };
        assert_eq!(rows.len() - same, differ, "{table}");
    }
    news[0].gpu.as_mut().unwrap().heterogeneous_capable = true;
    news.truncate(5);
    assert!(bed.devices("h1", news).await);
    let gone: Vec<_> = bed.store.device_all().await.unwrap().into_iter().skip(5).collect();
    assert_eq!(gone.len(), 26);
    assert!(gone.iter().all(|one| one.device.state == DeviceState::Missing));
    let modes = &bed.dump().await["gpu_modes"];
    assert_eq!(modes.iter().filter(|row| !after["gpu_modes"].contains(row)).count(), 1, "sizes may be mixed on it now");
}

#[tokio::test]
async fn a_look_that_failed_changes_nothing() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let before = bed.dump().await;
    let mut blind = told(None);
    blind.boot_id = "boot-9".to_owned();
    blind.layout_problems = vec!["who knows".to_owned()];
    assert!(!bed.store.device_report(&h("h1"), blind).await.unwrap());
    assert_eq!(bed.dump().await, before);
}

#[tokio::test]
async fn a_device_that_is_missing_keeps_its_holder() {
    let bed = Bed::with_devices(nic().into_iter().chain([h100(GPU)]).collect()).await;
    bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap();
    bed.limit("acme", "devices/vfs", 8).await;
    let vm = bed.have("vm", vec![gpu("gpu"), of_pool("nic", "vfs")]).await.unwrap();
    assert!(bed.devices("h1", vec![]).await);
    let record = bed.record("h1", GPU).await;
    assert_eq!((record.device.state, record.holders.len()), (DeviceState::Missing, 1));
    assert_eq!(bed.record("h1", "0000:01:10.0").await.device.state, DeviceState::Missing, "held");
    let gone = bed.store.device_get(&h("h1"), &"0000:01:10.1".into()).await.unwrap();
    assert_eq!(gone, None, "a function that nobody holds comes and goes");
    assert!(!bed.devices("h1", vec![]).await, "known by now");
    bed.consistent().await;
    assert_eq!(refused(bed.have("other", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity);

    bed.delete(&vm).await;
    assert_eq!(bed.record("h1", GPU).await.device.state, DeviceState::Missing, "free, and still not there");
    assert_eq!(refused(bed.have("other", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity);
    // Released, it is forgotten with the next look that does not find it.
    bed.store.device_release(&call(), &h("h1"), &GPU.into()).await.unwrap();
    assert!(bed.devices("h1", vec![]).await);
    assert_eq!(bed.store.device_get(&h("h1"), &GPU.into()).await.unwrap(), None);
    bed.devices("h1", vec![h100(GPU)]).await;
    bed.have("other", vec![gpu("gpu")]).await.unwrap();
    bed.consistent().await;
}

#[tokio::test]
async fn a_host_that_is_deleted_takes_its_devices_along() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    bed.store.host_delete(&call(), &h("h1"), "").await.unwrap();
    let dump = bed.dump().await;
    for table in ["devices", "gpu_modes", "host_layouts"] {
        assert!(dump[table].is_empty(), "{table}");
    }
}

/// A stick that was moved to another port has one name; one that somebody holds, or closed, keeps the old one too.
#[tokio::test]
async fn a_device_that_goes_by_another_name_is_no_longer_missing_under_its_old_one() {
    let named = |id: &str, serial: &str| Device { serial: serial.to_owned(), ..device(id, Kind::Function) };
    let (first, second, other) = ("0000:01:00.0", "0000:01:00.1", "0000:02:00.0");
    // Two functions of a card say the same of themselves.
    let bed = Bed::with_devices(vec![named(first, "A"), named(second, "A"), named(other, "")]).await;
    let known = async || {
        let all = bed.store.device_all().await.unwrap();
        all.into_iter().map(|one| (one.device.id.to_string(), one.device.state)).collect::<Vec<_>>()
    };
    let is = |id: &str, state| (id.to_owned(), state);
    let (there, gone) = (DeviceState::Available, DeviceState::Missing);
    // One function less, and a nameless one is no other's.
    assert!(bed.devices("h1", vec![named(second, "A"), named("0000:03:00.0", "")]).await);
    assert_eq!(known().await, [is(first, gone), is(second, there), is(other, gone), is("0000:03:00.0", there)]);
    // All of the card sits elsewhere.
    let moved = vec![named("0000:04:00.0", "A"), named("0000:04:00.1", "A"), named("0000:03:00.0", "")];
    assert!(bed.devices("h1", moved).await);
    let now = [is(other, gone), is("0000:03:00.0", there), is("0000:04:00.0", there), is("0000:04:00.1", there)];
    assert_eq!(known().await, now);
}
