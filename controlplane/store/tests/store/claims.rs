//! Admission of one: what is refused, in which order, and what is written.

use croft_core::instance::{State, seed};
use croft_core::operation::Verb;
use croft_core::quota::PLAIN;
use croft_core::{Error, Reason};
use croft_store::{ClaimAnswer, InstanceFilter, Page};

use crate::bed::{Bed, call, call_with, h, labels, refused, small, t};

#[tokio::test]
async fn an_admitted_instance_holds_all_that_it_needs() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    let mut new = small("child", "vm");
    new.labels = labels(&[("app", "web")]);
    let (operation, instance) = bed.claim(bed.fresh(), new.clone()).await.unwrap();
    assert_eq!(bed.get(instance.uid).await, instance);
    assert_eq!(bed.store.instance_get(&t("child"), "vm").await.unwrap(), Some(instance.clone()));
    assert_eq!(instance.status.state, State::Pending);
    assert_eq!(instance.host(), Some(&h("h1")));
    assert_eq!(instance.meta.labels, new.labels);
    assert_eq!(instance.intent.power_generation, 1);
    let image = bed.store.image_get(None, "debian").await.unwrap().unwrap();
    assert_eq!(instance.spec.image_uid, image.uid);
    assert_eq!(instance.spec.cloud_init.user_data_digest, seed::digest(new.user_data.as_bytes()));
    assert_eq!(bed.operation(&operation).await, operation);
    assert_eq!((operation.verb, operation.counter, operation.done), (Verb::Create, 1, false));
    assert_eq!(operation.actor, "token:root");
    for tenant in ["child", "acme"] {
        let used: Vec<i64> = [bed.used(tenant, PLAIN[0]).await, bed.used(tenant, PLAIN[1]).await].into();
        assert_eq!(used, [1, 1024], "{tenant}");
    }
    let (events, _, _) =
        bed.store.events_list(Some(&t("acme")), Some(&instance.name()), &Page::first(9)).await.unwrap();
    assert_eq!(events[0].reason, "InstanceCreated");
    // A look at it has nothing to add.
    let revision = bed.store.revision().await.unwrap();
    bed.settle(instance.uid).await;
    assert_eq!(bed.store.revision().await.unwrap(), revision);
    bed.consistent().await;
}

#[tokio::test]
async fn refusals_come_in_order_and_leave_nothing() {
    let bed = Bed::furnished().await;
    bed.instance("acme", "taken").await;
    bed.limit("acme", "instances", 1).await;
    let before = bed.dump().await;
    // Each of these is wrong in all later ways, too.
    let mut new = small("nobody", "taken");
    new.spec.image = "images/none".to_owned();
    new.spec.disks[0].size_gib = 1;
    new.spec.interfaces[0].network = "wan".into();
    new.spec.vcpus = 1000;
    let reason = async |new: &croft_core::ports::NewInstance| refused(bed.claim(call(), new.clone()).await);

    assert_eq!(reason(&new).await, Error::not_found("tenants/nobody"));
    new.tenant = t("acme");
    assert_eq!(reason(&new).await, Error::AlreadyExists { name: "tenants/acme/instances/taken".to_owned() });
    new.id = "free".to_owned();
    assert!(reason(&new).await.to_string().starts_with("instance.spec.image:"));
    new.spec.image = "images/debian".to_owned();
    assert!(
        reason(&new)
            .await
            .to_string()
            .starts_with("instance.spec.disks[0].size_gib: images/debian needs at least 4 GiB")
    );
    new.spec.disks[0].size_gib = 10;
    assert!(reason(&new).await.to_string().starts_with("instance.spec.interfaces[0].network:"));
    new.spec.interfaces.clear();
    assert_eq!(reason(&new).await.reason(), Reason::QuotaExceeded);
    assert_eq!(bed.dump().await, before);
    bed.limit("acme", "instances", 2).await;
    assert_eq!(reason(&new).await.reason(), Reason::NoCapacity);
    new.spec.vcpus = 1;
    bed.claim(call(), new).await.unwrap();
}

#[tokio::test]
async fn anothers_image_does_not_exist() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    bed.image("childs", Some("child")).await;
    bed.image("own", Some("acme")).await;
    let mut new = small("acme", "vm");
    new.spec.image = "tenants/child/images/childs".to_owned();
    assert!(refused(bed.claim(call(), new.clone()).await).to_string().contains("does not exist"));
    new.spec.image = "not a name".to_owned();
    assert!(refused(bed.claim(call(), new).await).to_string().contains("does not exist"));
    let mut new = small("child", "vm");
    new.spec.image = "tenants/acme/images/own".to_owned();
    bed.claim(call(), new).await.unwrap();
}

#[tokio::test]
async fn a_host_that_moved_on_makes_a_claim_stale() {
    let bed = Bed::furnished().await;
    let early = bed.place(call(), small("acme", "early")).await;
    bed.instance("acme", "other").await;
    let before = bed.dump().await;
    assert_eq!(bed.store.instance_claim(vec![early]).await.unwrap(), [ClaimAnswer::Stale]);
    assert_eq!(bed.dump().await, before);
    let again = bed.place(call(), small("acme", "early")).await;
    assert!(matches!(bed.store.instance_claim(vec![again]).await.unwrap()[0], ClaimAnswer::Admitted { .. }));
}

#[tokio::test]
async fn a_retried_create_is_the_same_instance() {
    let bed = Bed::furnished().await;
    let (operation, instance) = bed.claim(call_with("c", 1), small("acme", "vm")).await.unwrap();
    bed.see(instance.uid, croft_core::instance::Phase::Running).await;
    bed.settle(instance.uid).await;

    let request = bed.place(call_with("c", 1), small("acme", "vm")).await;
    let answers = bed.store.instance_claim(vec![request]).await.unwrap();
    let ClaimAnswer::Admitted { operation: then, instance: now, replayed: true } = &answers[0] else {
        panic!("{answers:?}")
    };
    assert_eq!((then.uid, then.done, now.uid, now.status.state), (operation.uid, true, instance.uid, State::Running));
    let other = bed.place(call_with("c", 2), small("acme", "vm2")).await;
    let answers = bed.store.instance_claim(vec![other]).await.unwrap();
    assert!(matches!(&answers[0], ClaimAnswer::Refused(error) if error.reason() == Reason::RequestIdReused));

    bed.delete(&bed.get(instance.uid).await).await;
    let request = bed.place(call_with("c", 1), small("acme", "vm")).await;
    let answers = bed.store.instance_claim(vec![request]).await.unwrap();
    assert!(matches!(&answers[0], ClaimAnswer::Admitted { replayed: true, .. }), "also after it is gone");
    assert_eq!(bed.used("acme", "instances").await, 0);
}

#[tokio::test]
async fn instances_are_listed_by_what_they_are() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    bed.tenant("other", None).await;
    for (tenant, id, pairs) in [
        ("acme", "a", &[("app", "web"), ("env", "prod")][..]),
        ("acme", "b", &[("app", "web")][..]),
        ("child", "c", &[("app", "db")][..]),
        ("other", "d", &[][..]),
    ] {
        let mut new = small(tenant, id);
        new.labels = labels(pairs);
        bed.claim(call(), new).await.unwrap();
    }
    let list = async |filter: InstanceFilter| {
        let mut ids = Vec::new();
        let mut page = Page::first(1);
        loop {
            let (instances, next, _) = bed.store.instance_list(&filter, &page).await.unwrap();
            ids.extend(instances.into_iter().map(|instance| instance.id));
            page.token = next;
            if page.token.is_none() {
                return ids.join("");
            }
        }
    };
    let all = InstanceFilter::default;
    assert_eq!(list(all()).await, "abcd");
    assert_eq!(list(InstanceFilter { within: Some(t("acme")), ..all() }).await, "abc");
    assert_eq!(list(InstanceFilter { tenant: Some(t("acme")), ..all() }).await, "ab");
    assert_eq!(list(InstanceFilter { labels: labels(&[("app", "web")]), ..all() }).await, "ab");
    assert_eq!(list(InstanceFilter { labels: labels(&[("app", "web"), ("env", "prod")]), ..all() }).await, "a");
    assert_eq!(list(InstanceFilter { labels: labels(&[("app", "WEB")]), ..all() }).await, "");
    assert_eq!(list(InstanceFilter { host: Some(h("h1")), within: Some(t("child")), ..all() }).await, "c");
    assert_eq!(list(InstanceFilter { host: Some(h("h2")), ..all() }).await, "");
    let counts = bed.store.instances_by_state().await.unwrap();
    let told: Vec<_> = counts.iter().map(|one| (one.tenant.clone(), one.state, one.instances)).collect();
    assert_eq!(
        told,
        [(t("acme"), State::Pending, 2), (t("child"), State::Pending, 1), (t("other"), State::Pending, 1)]
    );
    assert!(counts.iter().all(|one| one.since == bed.store.now()), "{counts:?}");
    assert_eq!(bed.store.instance_on_host(&h("h1")).await.unwrap().len(), 4);
}

#[tokio::test]
async fn an_update_is_seen_by_selectors() {
    let bed = Bed::furnished().await;
    let instance = bed.instance("acme", "vm").await;
    let relabel = |instance: &mut croft_core::instance::Instance| {
        instance.meta.labels = labels(&[("app", "new")]);
        instance.intent.restart = croft_core::instance::Restart::Never;
        Ok(())
    };
    let etag = instance.meta.etag();
    let updated = bed.store.instance_update(&call(), &t("acme"), "vm", &etag, relabel).await.unwrap().into_inner();
    assert_eq!(updated.meta.generation, 2);
    assert_eq!(bed.get(instance.uid).await, updated);
    let filter = InstanceFilter { labels: labels(&[("app", "new")]), ..InstanceFilter::default() };
    assert_eq!(bed.store.instance_list(&filter, &Page::first(5)).await.unwrap().0, [updated]);
    let late = refused(bed.store.instance_update(&call(), &t("acme"), "vm", &etag, |_| Ok(())).await);
    assert_eq!(late.reason(), Reason::EtagMismatch);
    assert_eq!(bed.store.instance_unsettled().await.unwrap(), [instance.uid]);
}
