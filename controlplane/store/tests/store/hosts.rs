use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use croft_core::host::{Resources, State};
use croft_core::{Clock, Error, Reason};
use croft_store::{Command, HostReport, Page};

use crate::bed::{Bed, call, h, labels, refused, report, small, t};

#[tokio::test]
async fn a_token_enrols_one_host_once() {
    let bed = Bed::new().await;
    let expire = bed.clock.now().plus(Duration::from_secs(60));
    bed.store.host_enrolment_create(&call(), &h("h1"), [1; 32], expire).await.unwrap();
    let signed = Arc::new(AtomicUsize::new(0));
    let enrol = async |host: &str, token: u8, csr: u8| {
        let signed = signed.clone();
        bed.store
            .host_enrol("10.0.0.1:5", &h(host), [token; 32], [csr; 32], move |uid| {
                let number = signed.fetch_add(1, Ordering::SeqCst);
                Ok(format!("{uid} {number}"))
            })
            .await
    };
    for (host, token) in [("h2", 1), ("h1", 2)] {
        assert_eq!(refused(enrol(host, token, 1).await).reason(), Reason::EnrolmentTokenInvalid);
    }
    let certificate = enrol("h1", 1, 1).await.unwrap();
    let host = bed.get_host("h1").await;
    assert_eq!(certificate, format!("{} 0", host.meta.uid));
    assert_eq!((host.state, host.epoch), (State::Enrolled, 1));
    bed.advance(120);
    assert_eq!(enrol("h1", 1, 1).await.unwrap(), certificate, "a lost answer is given again, also after the end");
    assert_eq!(refused(enrol("h1", 1, 2).await).reason(), Reason::EnrolmentTokenInvalid, "another CSR");
    assert_eq!(signed.load(Ordering::SeqCst), 1);

    bed.store.host_enrolment_create(&call(), &h("h1"), [3; 32], bed.clock.now()).await.unwrap();
    assert!(refused(enrol("h1", 3, 1).await).to_string().contains("expired"));
    let (rows, _) = bed.store.audit_list(None, &Page::first(100)).await.unwrap();
    let enrols: Vec<_> = rows.iter().filter(|row| row.method.ends_with("/Enrol")).collect();
    assert_eq!(enrols.iter().filter(|row| row.result == "OK" && row.actor == "host:h1").count(), 2);
    assert_eq!(enrols.iter().filter(|row| row.result == "UNAUTHENTICATED" && row.actor == "anonymous").count(), 4);
}

#[tokio::test]
async fn a_signature_that_fails_spends_nothing() {
    let bed = Bed::new().await;
    let expire = bed.clock.now().plus(Duration::from_secs(60));
    bed.store.host_enrolment_create(&call(), &h("h1"), [1; 32], expire).await.unwrap();
    let fails = bed.store.host_enrol("p", &h("h1"), [1; 32], [1; 32], |_| Err(Error::internal("no key"))).await;
    refused(fails);
    assert_eq!(bed.store.host_get(&h("h1")).await.unwrap(), None);
    bed.store.host_enrol("p", &h("h1"), [1; 32], [1; 32], |_| Ok("cert".to_owned())).await.unwrap();
}

#[tokio::test]
async fn a_host_is_ready_when_it_has_said_what_it_has_and_not_before() {
    let bed = Bed::new().await;
    let expire = bed.clock.now().plus(Duration::from_secs(60));
    bed.store.host_enrolment_create(&call(), &h("h1"), [1; 32], expire).await.unwrap();
    bed.store.host_enrol("p", &h("h1"), [1; 32], [1; 32], |_| Ok("cert".to_owned())).await.unwrap();
    assert_eq!(bed.heard("h1").await, [], "connected");
    assert_eq!(bed.get_host("h1").await.state, State::Enrolled);
    bed.store.host_report(&h("h1"), report(8)).await.unwrap();
    assert_eq!(bed.get_host("h1").await.state, State::Ready);
    assert_eq!(bed.store.host_lease_expire(bed.clock.now()).await.unwrap(), [], "not before its first renewal");
}

#[tokio::test]
async fn a_report_is_written_where_it_differs() {
    let bed = Bed::new().await;
    let host = bed.host("h1", 8).await;
    assert_eq!((host.state, host.capacity.vcpus), (State::Ready, 8));
    let version = async || bed.store.host_versions().await.unwrap()[0].1;
    let before = version().await;
    assert!(!bed.store.host_report(&h("h1"), report(8)).await.unwrap());
    let mut news = report(8);
    news.boot_id = "boot-2".to_owned();
    assert!(bed.store.host_report(&h("h1"), news.clone()).await.unwrap());
    assert_eq!(version().await, before, "placement does not look at boots");
    news.foreign = Some(Resources { vcpus: 1, memory_mib: 2, disk_gib: 3 });
    assert!(bed.store.host_report(&h("h1"), news).await.unwrap());
    assert_eq!(version().await, before + 1);
    assert_eq!(bed.get_host("h1").await.foreign.disk_gib, 3);
    let blind = HostReport { foreign: None, boot_id: "boot-3".to_owned(), ..report(8) };
    assert!(bed.store.host_report(&h("h1"), blind).await.unwrap());
    assert_eq!(bed.get_host("h1").await.foreign.disk_gib, 3, "not seen is not free");
    assert_eq!(refused(bed.store.host_report(&h("nobody"), report(8)).await), Error::not_found("hosts/nobody"));
}

#[tokio::test]
async fn a_lease_is_renewed_and_ends() {
    let bed = Bed::new().await;
    bed.host("h1", 8).await;
    bed.host("h2", 8).await;
    assert_eq!(bed.heard("h1").await, [], "ready already");
    bed.advance(1800);
    bed.heard("h2").await;
    bed.advance(1800);
    assert_eq!(bed.store.host_lease_expire(bed.clock.now()).await.unwrap(), [h("h1")]);
    assert_eq!(bed.get_host("h1").await.state, State::Unreachable);
    assert_eq!(bed.get_host("h2").await.state, State::Ready);
    assert_eq!(bed.store.host_lease_expire(bed.clock.now()).await.unwrap(), [], "once");
    assert_eq!(bed.heard("h1").await, [h("h1")]);
    assert_eq!(bed.heard("nobody").await, []);
    let (events, _, _) = bed.store.events_list(None, Some("hosts/h1"), &Page::first(10)).await.unwrap();
    let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["HostEnrolled", "HostReady", "HostUnreachable", "HostReady"]);
}

#[tokio::test]
async fn leases_begin_anew_whatever_they_said() {
    let bed = Bed::new().await;
    for id in ["h1", "h2", "h3"] {
        bed.host(id, 8).await;
    }
    let later = |seconds| bed.clock.now().plus(Duration::from_secs(seconds));
    bed.store.host_lease_renew(&[h("h2")], later(1_000_000)).await.unwrap();
    bed.store.host_fence(&call(), &h("h3")).await.unwrap();
    bed.store.host_lease_anew(later(30)).await.unwrap();
    assert_eq!(bed.get_host("h3").await.state, State::Fenced);
    bed.advance(29);
    assert_eq!(bed.store.host_lease_expire(bed.clock.now()).await.unwrap(), []);
    bed.advance(1);
    let mut gone = bed.store.host_lease_expire(bed.clock.now()).await.unwrap();
    gone.sort();
    assert_eq!(gone, [h("h1"), h("h2")]);
}

#[tokio::test]
async fn renewing_a_lease_wakes_nobody() {
    let bed = Bed::new().await;
    bed.host("h1", 8).await;
    let before = bed.store.revision().await.unwrap();
    bed.advance(1);
    bed.heard("h1").await;
    assert_eq!(bed.store.revision().await.unwrap(), before);
}

#[tokio::test]
async fn operators_change_a_host_and_placement_hears_of_it() {
    let bed = Bed::furnished().await;
    let view = async || bed.store.host_view(&h("h1")).await.unwrap().unwrap();
    let before = view().await;
    let change = |host: &mut croft_core::host::Host| {
        host.meta.labels = labels(&[("zone", "a")]);
        host.reserve = Resources { vcpus: 2, memory_mib: 4096, disk_gib: 20 };
        host.overhead_memory_mib = 128;
        host.cpu_overcommit_percent = 100;
        Ok(())
    };
    let host = bed.store.host_update(&call(), &h("h1"), "", change).await.unwrap().into_inner();
    assert_eq!(bed.get_host("h1").await, host);
    bed.store.host_cordon(&call(), &h("h1"), true).await.unwrap();
    let after = view().await;
    assert!(after.version > before.version && after.cordoned);
    assert_eq!((after.reserve.vcpus, after.overhead_memory_mib, after.cpu_overcommit_percent), (2, 128, 100));
    assert_eq!(after.labels, labels(&[("zone", "a")]));
    assert_eq!(refused(bed.claim(call(), small("acme", "vm")).await).reason(), Reason::NoCapacity);
    bed.store.host_cordon(&call(), &h("h1"), false).await.unwrap();
    bed.claim(call(), small("acme", "vm")).await.unwrap();
    let stale = refused(bed.store.host_update(&call(), &h("h1"), &host.meta.etag(), |_| Ok(())).await);
    assert_eq!(stale.reason(), Reason::EtagMismatch, "cordoned since");
}

#[tokio::test]
async fn views_carry_what_is_claimed() {
    let bed = Bed::furnished().await;
    let empty = bed.store.host_view(&h("h1")).await.unwrap().unwrap();
    let mut pinned = small("acme", "pinned");
    pinned.spec.cpu.dedicated = true;
    pinned.spec.vcpus = 4;
    bed.claim(call(), pinned).await.unwrap();
    let shared = bed.instance("acme", "shared").await;
    let view = bed.store.host_view(&h("h1")).await.unwrap().unwrap();
    assert_eq!((view.dedicated.len(), view.instances, view.claimed.vcpus), (4, 2, 1));
    assert_eq!(view.claimed.memory_mib, 2 * (1024 + 256));
    assert_eq!(bed.store.host_views().await.unwrap(), std::slice::from_ref(&view));
    let claimed = bed.get_host("h1").await.claimed;
    assert_eq!(claimed, Resources { vcpus: 5, memory_mib: 2560, disk_gib: 20 }, "operators see all of it");
    bed.delete(&shared).await;
    let less = bed.store.host_view(&h("h1")).await.unwrap().unwrap();
    assert_eq!((less.dedicated.len(), less.instances, less.claimed.vcpus), (4, 1, 0));
    assert_eq!(less.free().disk_gib, empty.free().disk_gib - 10);
    bed.consistent().await;
}

#[tokio::test]
async fn a_host_that_holds_instances_is_not_deleted() {
    let bed = Bed::furnished().await;
    let instance = bed.instance("acme", "vm").await;
    assert_eq!(refused(bed.store.host_delete(&call(), &h("h1"), "").await).reason(), Reason::HostNotEmpty);
    bed.delete(&instance).await;
    bed.store.host_delete(&call(), &h("h1"), "").await.unwrap();
    assert_eq!(bed.store.host_get(&h("h1")).await.unwrap(), None);
    let spent = bed.store.host_enrol("p", &h("h1"), [0; 32], [1; 32], |_| Ok(String::new())).await;
    assert_eq!(refused(spent).reason(), Reason::EnrolmentTokenInvalid);
    let again = bed.host("h1", 8).await;
    assert_eq!(again.epoch, 2, "its epoch goes on");
    bed.consistent().await;
}

#[tokio::test]
async fn a_host_is_told_what_to_run_and_what_not() {
    let bed = Bed::furnished().await;
    let stays = bed.instance("acme", "stays").await;
    let leaves = bed.instance("acme", "leaves").await;
    bed.command(&leaves, Command::Delete { force: true }).await.unwrap();
    let desired = bed.store.host_desired(&h("h1")).await.unwrap();
    assert_eq!((desired.epoch, desired.revision), (1, bed.store.revision().await.unwrap()));
    let (instance, image, tenant, networks) = &desired.instances[0];
    assert_eq!(desired.instances.len(), 1);
    assert_eq!((instance, image.name().as_str(), &tenant.id), (&stays, "images/debian", &t("acme")));
    assert!(networks.is_empty(), "the default network has no row");
    let [grave] = desired.tombstones.as_slice() else { panic!("{:?}", desired.tombstones) };
    assert_eq!((grave.uid, grave.force, grave.stop_timeout), (leaves.uid, true, Duration::from_secs(90)));
    assert!(grave.generation > leaves.meta.generation, "the delete's own generation");
    assert_eq!(refused(bed.store.host_desired(&h("nobody")).await), Error::not_found("hosts/nobody"));
}

#[tokio::test]
async fn a_seed_is_for_the_host_that_runs_it_and_encrypted() {
    let bed = Bed::furnished().await;
    bed.host("h2", 2).await;
    let instance = bed.instance("acme", "vm").await;
    let digest = &instance.intent.seed_digest;
    let host = instance.host().unwrap().clone();
    let other = if host == h("h1") { h("h2") } else { h("h1") };
    let bytes = bed.store.blob_get(&host, digest).await.unwrap().unwrap();
    assert_eq!(&croft_core::instance::seed::digest(&bytes), digest);
    assert!(String::from_utf8(bytes).unwrap().contains("hunter2"));
    assert_eq!(bed.store.blob_get(&other, digest).await.unwrap(), None);
    assert_eq!(bed.store.blob_get(&host, "sha256:0").await.unwrap(), None);
    let dump = format!("{:?}", bed.dump().await);
    assert!(!dump.contains("hunter2"), "nowhere in clear");
    bed.delete(&instance).await;
    assert_eq!(bed.store.blob_get(&host, digest).await.unwrap(), None);
    assert!(bed.dump().await["secrets"].is_empty());
}
