//! Pools: what is in one is decided where it is taken, not where somebody looked.

use croft_core::Reason;
use croft_core::device::{Kind, Mode, Pool};
use croft_core::instance::Instance;
use croft_store::{AttachAnswer, AttachRequest, ClaimAnswer, Page, PlaceAnswer};

use super::with;
use crate::bed::{Bed, call, h, labels, refused};
use crate::boards::{h100, nic, of_pool, pool};

#[tokio::test]
async fn a_pool_lives_as_long_as_somebody_holds_something_of_it() {
    let bed = Bed::with_devices(nic()).await;
    let made =
        bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap().into_inner();
    let twice = bed.store.pool_create(&call(), pool("vfs", Kind::Usb, "1:1")).await;
    assert_eq!(refused(twice).reason(), Reason::AlreadyExists);
    bed.limit("acme", "devices/vfs", 1).await;
    let vm = bed.have("vm", vec![of_pool("nic", "vfs")]).await.unwrap();
    assert_eq!(bed.used("acme", "devices/vfs").await, 1);
    assert_eq!(refused(bed.have("two", vec![of_pool("nic", "vfs")]).await).reason(), Reason::QuotaExceeded);
    let held = refused(bed.store.pool_delete(&call(), &"vfs".into(), "").await);
    assert_eq!(held.reason(), Reason::PoolInUse);
    assert!(held.to_string().contains("are held by tenants/acme/instances/vm;"), "{held}");
    let change = |pool: &mut Pool| {
        pool.matches.ids = vec!["dead:beef".to_owned()];
        Ok(())
    };
    let etag = made.meta.etag();
    let changed = bed.store.pool_update(&call(), &"vfs".into(), &etag, change).await.unwrap().into_inner();
    assert_eq!(changed.meta.generation, 2);
    assert_eq!(bed.store.pool_get(&"vfs".into()).await.unwrap(), Some(changed.clone()));
    let stale = bed.store.pool_update(&call(), &"vfs".into(), &made.meta.etag(), |_| Ok(())).await;
    assert_eq!(refused(stale).reason(), Reason::EtagMismatch);
    bed.consistent().await;
    bed.delete(&vm).await;
    assert_eq!(bed.store.pool_list(None, &Page::first(9)).await.unwrap().0, [changed]);
    bed.store.pool_delete(&call(), &"vfs".into(), "").await.unwrap();
    assert_eq!(bed.store.pool_all().await.unwrap(), []);
    bed.consistent().await;
}

/// What an operator does between the look and the claim.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    Other,
    Deleted,
}

impl Meanwhile {
    async fn happens(self, bed: &Bed) {
        let id = "vfs".into();
        match self {
            Self::Deleted => bed.store.pool_delete(&call(), &id, "").await.unwrap(),
            Self::Other => {
                let change = |pool: &mut Pool| {
                    pool.matches.ids = vec!["dead:beef".to_owned()];
                    Ok(())
                };
                bed.store.pool_update(&call(), &id, "", change).await.unwrap();
            }
        }
    }
}

async fn granted() -> Bed {
    let bed = Bed::with_devices(nic()).await;
    bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap();
    bed.limit("acme", "devices/vfs", 8).await;
    bed
}

#[tokio::test]
async fn nothing_is_taken_of_a_pool_that_has_changed_since_it_was_looked_at() {
    for meanwhile in [Meanwhile::Other, Meanwhile::Deleted] {
        let bed = granted().await;
        let old = bed.place(call(), with("vm", vec![of_pool("nic", "vfs")])).await;
        assert!(old.placed.is_ok());
        meanwhile.happens(&bed).await;
        let before = bed.dump().await;
        assert_eq!(bed.store.instance_claim(vec![old]).await.unwrap(), [ClaimAnswer::Stale], "{meanwhile:?}");
        assert_eq!(bed.dump().await, before, "{meanwhile:?}");
        assert_eq!(refused(bed.have("vm", vec![of_pool("nic", "vfs")]).await).reason(), Reason::NoCapacity);
    }
}

#[tokio::test]
async fn a_pool_that_has_changed_says_so_when_its_device_is_attached() {
    for meanwhile in [Meanwhile::Other, Meanwhile::Deleted] {
        let bed = granted().await;
        let vm = bed.running("acme", "vm").await;
        let device = of_pool("nic", "vfs");
        let placed = bed.extension(&vm, &device).await;
        assert!(placed.is_ok());
        meanwhile.happens(&bed).await;
        let before = bed.dump().await;
        let Instance { tenant, id, .. } = vm;
        let request = AttachRequest { call: call(), tenant, id, etag: String::new(), device, placed };
        assert_eq!(bed.store.instance_attach(request).await.unwrap(), AttachAnswer::Stale, "{meanwhile:?}");
        assert_eq!(bed.dump().await, before, "{meanwhile:?}");
    }
}

#[tokio::test]
async fn a_new_host_gives_nothing_of_a_pool_that_has_changed() {
    for meanwhile in [Meanwhile::Other, Meanwhile::Deleted] {
        let bed = granted().await;
        let vm = bed.have("vm", vec![of_pool("nic", "vfs")]).await.unwrap();
        bed.store.host_fence(&call(), &h("h1")).await.unwrap();
        bed.host("h2", 8).await;
        bed.devices("h2", nic()).await;
        let again = bed.place(call(), with("vm", vm.spec.devices)).await;
        let (placement, claim, version) = again.placed.unwrap();
        meanwhile.happens(&bed).await;
        let before = bed.dump().await;
        let answer = bed.store.instance_place(vm.uid, placement, claim, version).await.unwrap();
        assert_eq!(answer, PlaceAnswer::Stale, "{meanwhile:?}");
        assert_eq!(bed.dump().await, before, "{meanwhile:?}");
    }
}

#[tokio::test]
async fn a_pool_of_some_hosts_still_has_their_devices_when_they_are_claimed() {
    let bed = granted().await;
    let rack = labels(&[("rack", "7")]);
    let selector = rack.clone();
    let change = move |pool: &mut Pool| {
        pool.matches.host_selector = selector;
        Ok(())
    };
    bed.store.pool_update(&call(), &"vfs".into(), "", change).await.unwrap();
    assert_eq!(refused(bed.have("vm", vec![of_pool("nic", "vfs")]).await).reason(), Reason::NoCapacity);
    let label = move |host: &mut croft_core::host::Host| {
        host.meta.labels = rack;
        Ok(())
    };
    bed.store.host_update(&call(), &h("h1"), "", label).await.unwrap();
    bed.have("vm", vec![of_pool("nic", "vfs")]).await.unwrap();
    bed.consistent().await;
}

#[tokio::test]
async fn a_tenant_sees_what_it_or_one_below_it_was_granted_in_full_pages() {
    let bed = Bed::with_devices(vec![]).await;
    bed.tenant("child", Some("acme")).await;
    bed.tenant("other", None).await;
    for id in ["a", "b", "c", "d", "e", "f"] {
        bed.store.pool_create(&call(), pool(id, Kind::Usb, "1050:0030")).await.unwrap();
    }
    for (tenant, id, limit) in
        [("acme", "b", 1), ("child", "d", 2), ("other", "c", 1), ("acme", "e", 0), ("acme", "f", 1)]
    {
        bed.limit(tenant, &format!("devices/{id}"), limit).await;
    }
    let sees = async |tenant: Option<&str>, size: i64| {
        let (tenant, mut page, mut pages) = (tenant.map(crate::bed::t), Page::first(size), Vec::new());
        loop {
            let (pools, next) = bed.store.pool_list(tenant.as_ref(), &page).await.unwrap();
            pages.push(pools.iter().map(|pool| pool.id.to_string()).collect::<String>());
            match next {
                Some(_) => page.token = next,
                None => break pages.join(" "),
            }
        }
    };
    assert_eq!(sees(None, 4).await, "abcd ef");
    assert_eq!(sees(Some("acme"), 2).await, "bd f", "no page is short before the last");
    assert_eq!((sees(Some("child"), 9).await, sees(Some("other"), 9).await), ("d".to_owned(), "c".to_owned()));
    let seen = async |tenant: &str, id: &str| bed.store.pool_seen(&id.into(), &tenant.into()).await.unwrap().is_some();
    assert!(seen("acme", "d").await && seen("child", "d").await && seen("other", "c").await);
    assert!(!seen("child", "b").await && !seen("acme", "e").await && !seen("other", "d").await);
}

/// Granted by the pool alone, and counted as what it is, too.
#[tokio::test]
async fn a_pool_of_gpus_gives_whole_ones() {
    let bed = Bed::furnished().await;
    bed.devices("h1", vec![h100("0000:41:00.0"), h100("0000:42:00.0")]).await;
    bed.store.pool_create(&call(), pool("gpu-h100", Kind::Gpu, "10de:2330")).await.unwrap();
    bed.limit("acme", "gpus", 8).await;
    let wish = || vec![of_pool("gpu", "gpu-h100")];
    assert_eq!(refused(bed.have("vm", wish()).await).reason(), Reason::DeviceNotGranted, "another grant is none here");
    bed.limit("acme", "devices/gpu-h100", 8).await;
    let vm = bed.have("vm", wish()).await.unwrap();
    assert_eq!(bed.mode("0000:41:00.0").await, Mode::Passthrough);
    let used = async |resource: &str| bed.used("acme", resource).await;
    assert_eq!((used("devices/gpu-h100").await, used("gpus").await, used("gpus/h100_sxm_80gb").await), (1, 1, 1));
    bed.limit("acme", "gpus", 1).await;
    assert_eq!(refused(bed.have("more", wish()).await).reason(), Reason::QuotaExceeded, "every limit binds");
    bed.limit("acme", "gpus", 8).await;
    bed.see(vm.uid, croft_core::instance::Phase::Running).await;
    bed.settle(vm.uid).await;
    let vm = bed.get(vm.uid).await;
    assert_eq!(refused(bed.attach(&vm, of_pool("two", "gpu-h100")).await).reason(), Reason::DeviceNeedsStop);
    assert_eq!(refused(bed.detach(&vm, "gpu").await).reason(), Reason::DeviceNeedsStop);
    bed.consistent().await;
    bed.delete(&vm).await;
    assert_eq!((used("devices/gpu-h100").await, used("gpus").await), (0, 0));
    bed.consistent().await;
}
