use croft_core::quota::PLAIN;
use croft_core::{Error, Reason};
use croft_store::Done;

use crate::bed::{Bed, call, call_with, labels, refused, small, t, to};

#[tokio::test]
async fn limits_are_set_read_and_taken_away() {
    let bed = Bed::new().await;
    bed.tenant("acme", None).await;
    let unset = bed.store.quota_get(&t("acme"), "vcpus").await.unwrap().quota;
    assert_eq!((unset.limit, unset.used, unset.generation), (None, 0, 0));
    let set =
        bed.store.quota_set(&call(), &t("acme"), "vcpus", &unset.etag(), to(Some(8))).await.unwrap().into_inner().quota;
    assert_eq!((set.limit, set.generation), (Some(8), 1));
    let late = refused(bed.store.quota_set(&call(), &t("acme"), "vcpus", &unset.etag(), to(Some(9))).await);
    assert_eq!(late.reason(), Reason::EtagMismatch);
    bed.store.quota_set(&call(), &t("acme"), "vcpus", &set.etag(), to(None)).await.unwrap();
    assert_eq!(bed.store.quota_get(&t("acme"), "vcpus").await.unwrap().quota.limit, None);
    for result in [
        bed.store.quota_get(&t("nobody"), "vcpus").await,
        bed.store.quota_set(&call(), &t("nobody"), "vcpus", "", to(Some(1))).await.map(Done::into_inner),
    ] {
        assert_eq!(refused(result), Error::not_found("tenants/nobody"));
    }
}

#[tokio::test]
async fn what_is_available_is_the_tightest_on_the_way_to_the_root() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    assert_eq!(bed.store.quota_available(&t("child"), "vcpus").await.unwrap(), None, "unlimited");
    bed.limit("child", "vcpus", 6).await;
    bed.limit("acme", "vcpus", 4).await;
    bed.instance("acme", "one").await;
    bed.instance("child", "two").await;
    assert_eq!(bed.store.quota_available(&t("child"), "vcpus").await.unwrap(), Some(2));
    assert_eq!(bed.used("child", "vcpus").await, 1);
    assert_eq!(bed.used("acme", "vcpus").await, 2);

    let list = bed.store.quota_list(&t("child")).await.unwrap();
    let resources: Vec<_> = list.iter().map(|(own, _)| own.quota.resource.as_str()).collect();
    assert_eq!(resources, PLAIN);
    assert_eq!((list[0].0.quota.limit, list[0].0.quota.used, list[0].1), (Some(6), 1, Some(2)));
    assert_eq!((list[1].0.quota.limit, list[1].0.quota.used, list[1].1), (None, 1024, None));
    assert_eq!(bed.store.quota_all().await.unwrap().len(), 8, "four resources of two tenants");
}

#[tokio::test]
async fn every_limit_that_binds_is_named_and_a_limit_below_use_only_stops_growth() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    let kept = bed.instance("child", "kept").await;
    bed.limit("acme", "vcpus", 0).await;
    bed.limit("child", "memory_mib", 2000).await;
    let Error::QuotaExceeded(violations) = refused(bed.claim(call(), small("child", "more")).await) else {
        panic!("quota")
    };
    let mut named: Vec<_> = violations
        .iter()
        .map(|one| (one.tenant.as_str(), one.resource.as_str(), one.limit, one.used, one.requested))
        .collect();
    named.sort_unstable();
    assert_eq!(named, [("acme", "vcpus", 0, 1, 1), ("child", "memory_mib", 2000, 1024, 1024)]);
    assert_eq!(bed.store.quota_available(&t("child"), "vcpus").await.unwrap(), Some(0), "never below nothing");
    assert_eq!(bed.get(kept.uid).await, kept);
    bed.consistent().await;
}

#[tokio::test]
async fn charges_stay_while_stopped_and_leave_with_the_instance() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    let instance = bed.running("child", "vm").await;
    let stop = croft_store::Command::Stop { timeout: None };
    bed.command(&instance, stop).await.unwrap();
    bed.see(instance.uid, croft_core::instance::Phase::Off).await;
    bed.settle(instance.uid).await;
    assert_eq!(bed.used("acme", "disk_gib").await, 10);
    bed.delete(&bed.get(instance.uid).await).await;
    for tenant in ["acme", "child"] {
        for resource in PLAIN {
            assert_eq!(bed.used(tenant, resource).await, 0, "{tenant} {resource}");
        }
    }
    bed.consistent().await;
}

#[tokio::test]
async fn a_replayed_limit_is_as_it_is_now() {
    let bed = Bed::new().await;
    bed.tenant("acme", None).await;
    bed.store.quota_set(&call_with("q", 1), &t("acme"), "vcpus", "", to(Some(8))).await.unwrap();
    bed.limit("acme", "vcpus", 9).await;
    let again = bed.store.quota_set(&call_with("q", 1), &t("acme"), "vcpus", "", to(Some(8))).await.unwrap();
    assert!(again.is_replayed());
    assert_eq!(again.into_inner().quota.limit, Some(9));
}

#[tokio::test]
async fn labels_of_a_quota_stay_while_its_use_and_its_limit_change() {
    let bed = Bed::furnished().await;
    let note = |own: &mut croft_core::quota::Labelled| {
        own.labels = labels(&[("tier", "gold")]);
        own.annotations = labels(&[("contract", "No. 7")]);
        Ok(())
    };
    let noted = bed.store.quota_set(&call(), &t("acme"), "vcpus", "", note).await.unwrap().into_inner();
    assert_eq!((noted.quota.limit, noted.quota.generation), (None, 1));
    bed.instance("acme", "one").await;
    bed.limit("acme", "vcpus", 4).await;
    bed.store.quota_set(&call(), &t("acme"), "vcpus", "", to(None)).await.unwrap();
    let now = bed.store.quota_get(&t("acme"), "vcpus").await.unwrap();
    assert_eq!((now.quota.used, &now.labels, &now.annotations), (1, &noted.labels, &noted.annotations));
    assert_eq!(bed.store.quota_list(&t("acme")).await.unwrap()[0].0, now);
    // A row that a charge made has none.
    assert!(bed.store.quota_get(&t("acme"), "memory_mib").await.unwrap().labels.is_empty());
}
