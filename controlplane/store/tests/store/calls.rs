//! What every mutating call has in common.

use std::collections::BTreeMap;

use croft_core::access::{Principal, Role};
use croft_core::audit::{AuditEntry, Call};
use croft_core::id::AuditUid;
use croft_core::{Clock, Reason};
use croft_store::{Command, Done, HistoryRows, Page};

use crate::bed::{Bed, call, call_with, dry, h, refused, small, t, to};

#[tokio::test]
async fn a_retry_replays_the_first_answer_as_it_is_now() {
    let bed = Bed::new().await;
    let tenant = bed.new_tenant("acme", None);
    let create = call_with("r1", 1);
    let Done::New(first) = bed.store.tenant_create(&create, tenant.clone()).await.unwrap() else { panic!("new") };
    let rename = |tenant: &mut croft_core::tenant::Tenant| {
        tenant.display_name = "later".to_owned();
        Ok(())
    };
    bed.store.tenant_update(&call(), &t("acme"), "", rename).await.unwrap();
    let before = bed.dump().await;

    let Done::Replayed(again) = bed.store.tenant_create(&create, tenant.clone()).await.unwrap() else {
        panic!("replay")
    };
    assert_eq!((again.meta.uid, again.display_name.as_str()), (first.meta.uid.clone(), "later"));
    let reused = refused(bed.store.tenant_create(&call_with("r1", 2), tenant.clone()).await);
    assert_eq!(reused.reason(), Reason::RequestIdReused);
    assert_eq!(bed.dump().await, before, "neither leaves a row");

    bed.store.tenant_delete(&call(), &t("acme"), "").await.unwrap();
    let gone = bed.store.tenant_create(&create, tenant.clone()).await.unwrap();
    assert_eq!(gone, Done::Replayed(first), "as it was then");
    assert_eq!(bed.store.tenant_get(&t("acme")).await.unwrap(), None, "a retry makes nothing anew");
}

#[tokio::test]
async fn a_request_id_is_the_callers_and_the_methods_own() {
    let bed = Bed::new().await;
    bed.store.tenant_create(&call_with("r1", 1), bed.new_tenant("a", None)).await.unwrap();
    let other = Call {
        principal: Principal::Token { id: "other".into(), role: Role::PlatformAdmin, tenant: None },
        ..call_with("r1", 9)
    };
    assert!(matches!(bed.store.tenant_create(&other, bed.new_tenant("b", None)).await, Ok(Done::New(_))));
    let method = Call { method: "/croft.v1.Test/Other", ..call_with("r1", 9) };
    assert!(matches!(bed.store.tenant_create(&method, bed.new_tenant("c", None)).await, Ok(Done::New(_))));
}

#[tokio::test]
async fn a_call_that_failed_is_tried_again_by_its_retry() {
    let bed = Bed::new().await;
    let child = bed.new_tenant("child", Some("parent"));
    refused(bed.store.tenant_create(&call_with("r1", 1), child.clone()).await);
    bed.tenant("parent", None).await;
    assert!(matches!(bed.store.tenant_create(&call_with("r1", 1), child).await, Ok(Done::New(_))));
}

#[tokio::test]
async fn a_delete_replays_too() {
    let bed = Bed::new().await;
    bed.tenant("acme", None).await;
    bed.store.tenant_delete(&call_with("d1", 1), &t("acme"), "").await.unwrap();
    bed.store.tenant_delete(&call_with("d1", 1), &t("acme"), "").await.unwrap();
}

#[tokio::test]
async fn after_a_day_a_request_id_is_forgotten() {
    let bed = Bed::new().await;
    bed.store.tenant_create(&call_with("r1", 1), bed.new_tenant("a", None)).await.unwrap();
    bed.advance(24 * 3600);
    assert_eq!(bed.store.janitor(Some(bed.clock.now())).await.unwrap().idempotency, 0, "a day is not over yet");
    bed.advance(1);
    assert_eq!(bed.store.janitor(Some(bed.clock.now())).await.unwrap().idempotency, 1);
    assert!(matches!(bed.store.tenant_create(&call_with("r1", 2), bed.new_tenant("b", None)).await, Ok(Done::New(_))));
}

#[tokio::test]
async fn a_dry_run_answers_like_the_call_and_changes_no_row() {
    let bed = Bed::furnished().await;
    let instance = bed.running("acme", "vm").await;
    let before = bed.dump().await;
    let dry = Call { request_id: "r1".to_owned(), ..dry() };
    let store = &bed.store;

    assert!(matches!(store.tenant_create(&dry, bed.new_tenant("x", None)).await, Ok(Done::New(_))));
    assert_eq!(refused(store.tenant_create(&dry, bed.new_tenant("acme", None)).await).reason(), Reason::AlreadyExists);
    assert_eq!(
        store.quota_set(&dry, &t("acme"), "vcpus", "", to(Some(9))).await.unwrap().into_inner().quota.limit,
        Some(9)
    );
    assert_eq!(refused(store.tenant_delete(&dry, &t("acme"), "").await).reason(), Reason::TenantNotEmpty);
    let (_, after) =
        store.instance_command(&dry, &t("acme"), "vm", "", Command::Delete { force: true }).await.unwrap().into_inner();
    assert!(after.meta.delete_time.is_some());
    assert!(store.host_cordon(&dry, &h("h1"), true).await.unwrap().into_inner().cordoned);
    store.host_fence(&dry, &h("h1")).await.unwrap();
    let (_, would) = bed.claim(dry.clone(), small("acme", "other")).await.unwrap();
    assert_eq!(would.name(), "tenants/acme/instances/other");
    assert_eq!(refused(bed.claim(dry, small("acme", "vm")).await).reason(), Reason::AlreadyExists);

    assert_eq!(bed.dump().await, before);
    assert_eq!(bed.get(instance.uid).await, instance);
}

#[tokio::test]
async fn each_call_leaves_one_audit_row_in_its_own_commit() {
    let bed = Bed::furnished().await;
    let count = async || bed.store.audit_list(None, &Page::first(1000)).await.unwrap().0.len();
    let start = count().await;
    let call = Call { method: "/croft.v1.Instances/CreateInstance", ..bed.fresh() };
    let request = bed.place(call.clone(), small("acme", "vm")).await;
    bed.store.instance_claim(vec![request.clone()]).await.unwrap();
    bed.store.instance_claim(vec![request]).await.unwrap();
    assert_eq!(count().await, start + 1, "the retry leaves none");
    refused(bed.store.tenant_delete(&bed.fresh(), &t("acme"), "").await);
    assert_eq!(count().await, start + 1, "what is refused is audited by whoever refuses");

    let (rows, _) = bed.store.audit_list(Some(&t("acme")), &Page::first(1000)).await.unwrap();
    let row = rows.iter().find(|row| row.target == "tenants/acme/instances/vm").unwrap();
    let expected = AuditEntry {
        uid: row.uid,
        time: bed.clock.now(),
        actor: "token:root".to_owned(),
        method: "/croft.v1.Instances/CreateInstance".to_owned(),
        tenant: Some(t("acme")),
        target: "tenants/acme/instances/vm".to_owned(),
        request_id: call.request_id,
        result: "OK".to_owned(),
        message: String::new(),
        peer: "127.0.0.1:1".to_owned(),
    };
    assert_eq!(*row, expected);
}

#[tokio::test]
async fn denied_calls_are_appended_and_listed_newest_first() {
    let bed = Bed::new().await;
    bed.tenant("acme", None).await;
    let mut names = Vec::new();
    for (second, tenant) in [(1, Some("acme")), (2, None), (3, Some("nobody"))] {
        bed.advance(1);
        let now = bed.clock.now();
        let target = format!("target-{second}");
        names.push(target.clone());
        let entry = AuditEntry {
            uid: AuditUid::new(now),
            time: now,
            actor: "anonymous".to_owned(),
            method: "/croft.v1.Hosts/FenceHost".to_owned(),
            tenant: tenant.map(t),
            target,
            request_id: String::new(),
            result: "PERMISSION_DENIED".to_owned(),
            message: "no".to_owned(),
            peer: String::new(),
        };
        bed.store.audit_append(entry).await.unwrap();
    }
    let mut listed = Vec::new();
    let mut page = Page::first(2);
    loop {
        let (rows, next) = bed.store.audit_list(None, &page).await.unwrap();
        listed.extend(rows.into_iter().map(|row| row.target));
        page.token = next;
        if page.token.is_none() {
            break;
        }
    }
    assert_eq!(listed, ["target-3", "target-2", "target-1", "tenants/acme"]);
    let (own, _) = bed.store.audit_list(Some(&t("acme")), &Page::first(10)).await.unwrap();
    let own: Vec<_> = own.into_iter().map(|row| row.target).collect();
    assert_eq!(own, ["target-1", "tenants/acme"], "what concerns nobody is the platform's");
}

#[tokio::test]
async fn audit_is_kept_for_400_days() {
    let bed = Bed::new().await;
    bed.tenant("acme", None).await;
    bed.advance(400 * 24 * 3600);
    let rows = HistoryRows { audit_least: 0, ..HistoryRows::default() };
    let trimmed = async || bed.store.janitor_keeping(Some(bed.clock.now()), rows).await.unwrap().audit;
    assert_eq!(trimmed().await, 0);
    bed.advance(1);
    assert_eq!(trimmed().await, 1);
}

#[tokio::test]
async fn a_caller_who_leaves_does_not_leave_half_a_call() {
    let bed = Bed::furnished().await;
    let mut rows = BTreeMap::new();
    for number in 0..40_u32 {
        let request = bed.place(bed.fresh(), small("acme", &format!("vm-{number}"))).await;
        let claim = bed.store.instance_claim(vec![request]);
        // Polled for a while and dropped: at another point each time.
        let _ = tokio::time::timeout(std::time::Duration::from_micros(u64::from(number) * 50), claim).await;
        // A later write waits for whatever goes on alone.
        bed.store.quota_set(&call(), &t("acme"), "instances", "", to(None)).await.unwrap();
        bed.consistent().await;
        rows.insert(number, bed.used("acme", "instances").await);
    }
    let finished = rows[&39];
    assert!(finished > 0, "some went on to their end");
}
