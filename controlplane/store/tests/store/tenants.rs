use croft_core::meta::Labels;
use croft_core::{Error, Reason};
use croft_store::{Page, TenantFilter};

use crate::bed::{Bed, call, refused, t};

#[tokio::test]
async fn a_tree_of_tenants() {
    let bed = Bed::new().await;
    let root = bed.tenant("acme", None).await;
    bed.tenant("acme-dev", Some("acme")).await;
    bed.tenant("acme-dev-x", Some("acme-dev")).await;
    bed.tenant("other", None).await;

    assert_eq!(bed.store.tenant_get(&t("acme")).await.unwrap(), Some(root));
    assert_eq!(bed.store.tenant_get(&t("nobody")).await.unwrap(), None);
    for (inner, outer, expected) in [
        ("acme", "acme", true),
        ("acme-dev-x", "acme", true),
        ("acme", "acme-dev", false),
        ("other", "acme", false),
        ("nobody", "acme", false),
    ] {
        assert_eq!(bed.store.tenant_within(&t(inner), &t(outer)).await.unwrap(), expected, "{inner} in {outer}");
    }
    let exists = refused(bed.store.tenant_create(&call(), bed.new_tenant("acme", None)).await);
    assert_eq!(exists, Error::AlreadyExists { name: "tenants/acme".to_owned() });
    let orphan = refused(bed.store.tenant_create(&call(), bed.new_tenant("x", Some("nobody"))).await);
    assert_eq!(orphan, Error::not_found("tenants/nobody"));
    bed.consistent().await;
}

#[tokio::test]
async fn the_tree_is_only_so_deep() {
    let bed = Bed::new().await;
    bed.tenant("l1", None).await;
    for level in 2..=croft_core::tenant::DEPTH_MAX {
        bed.tenant(&format!("l{level}"), Some(&format!("l{}", level - 1))).await;
    }
    let deeper = refused(bed.store.tenant_create(&call(), bed.new_tenant("l9", Some("l8"))).await);
    assert!(deeper.to_string().starts_with("tenant.parent: tenants/l8 is at level 8 already"), "{deeper}");
}

#[tokio::test]
async fn lists_come_in_pages_and_filtered() {
    let bed = Bed::new().await;
    for id in ["a", "b", "c", "d", "e"] {
        bed.tenant(id, None).await;
    }
    bed.tenant("b-1", Some("b")).await;
    bed.tenant("b-1-1", Some("b-1")).await;

    let mut ids = Vec::new();
    let mut page = Page::first(3);
    loop {
        let (tenants, next) = bed.store.tenant_list(&TenantFilter::default(), &page).await.unwrap();
        assert!(tenants.len() <= 3);
        ids.extend(tenants.into_iter().map(|tenant| tenant.id.0));
        page.token = next;
        if page.token.is_none() {
            break;
        }
    }
    assert_eq!(ids, ["a", "b", "b-1", "b-1-1", "c", "d", "e"]);

    let list = async |filter: TenantFilter| {
        let (tenants, _) = bed.store.tenant_list(&filter, &Page::first(10)).await.unwrap();
        tenants.into_iter().map(|tenant| tenant.id.0).collect::<Vec<_>>()
    };
    assert_eq!(list(TenantFilter { within: Some(t("b")), parent: None }).await, ["b", "b-1", "b-1-1"]);
    assert_eq!(list(TenantFilter { within: None, parent: Some(t("b")) }).await, ["b-1"]);

    let (_, next) = bed.store.tenant_list(&TenantFilter::default(), &Page::first(2)).await.unwrap();
    let elsewhere = TenantFilter { within: Some(t("b")), parent: None };
    let wrong = refused(bed.store.tenant_list(&elsewhere, &Page { size: 2, token: next }).await);
    assert_eq!(wrong.reason(), Reason::PageTokenInvalid);
}

#[tokio::test]
async fn an_update_is_against_an_etag_and_a_refused_one_changes_nothing() {
    let bed = Bed::new().await;
    let tenant = bed.tenant("acme", None).await;
    let rename = |name: &'static str| {
        move |tenant: &mut croft_core::tenant::Tenant| {
            tenant.display_name = name.to_owned();
            Ok(())
        }
    };
    bed.advance(5);
    let etag = tenant.meta.etag();
    let updated = bed.store.tenant_update(&call(), &t("acme"), &etag, rename("One")).await.unwrap().into_inner();
    assert_eq!((updated.display_name.as_str(), updated.meta.generation), ("One", 2));
    assert!(updated.meta.update_time > updated.meta.create_time);
    let late = refused(bed.store.tenant_update(&call(), &t("acme"), &etag, rename("Two")).await);
    assert_eq!(late.reason(), Reason::EtagMismatch);
    let veto = |tenant: &mut croft_core::tenant::Tenant| {
        tenant.display_name = "Three".to_owned();
        Err(Error::invalid("tenant.display_name", "no"))
    };
    refused(bed.store.tenant_update(&call(), &t("acme"), "", veto).await);
    assert_eq!(bed.store.tenant_get(&t("acme")).await.unwrap(), Some(updated));
}

#[tokio::test]
async fn what_is_in_the_way_of_a_delete_is_named() {
    let bed = Bed::furnished().await;
    bed.tenant("acme-dev", Some("acme")).await;
    bed.image("own", Some("acme")).await;
    let instance = bed.instance("acme", "vm").await;
    let error = refused(bed.store.tenant_delete(&call(), &t("acme"), "").await);
    assert_eq!(error.reason(), Reason::TenantNotEmpty);
    let text = error.to_string();
    assert!(text.contains("child tenants: 1, instances: 1, images: 1"), "{text}");

    bed.delete(&instance).await;
    bed.store.image_delete(&call(), Some(&t("acme")), "own", "").await.unwrap();
    bed.store.tenant_delete(&call(), &t("acme-dev"), "").await.unwrap();
    bed.store.tenant_delete(&call(), &t("acme"), "").await.unwrap();
    assert_eq!(refused(bed.store.tenant_delete(&call(), &t("acme"), "").await), Error::not_found("tenants/acme"));
    bed.consistent().await;
}

#[tokio::test]
async fn an_id_that_comes_again_shows_nothing_of_the_tenant_before() {
    let bed = Bed::furnished().await;
    bed.tenant("child", Some("acme")).await;
    let instance = bed.running("child", "vm").await;
    bed.delete(&instance).await;
    bed.limit("child", "vcpus", 7).await;
    bed.store.tenant_delete(&call(), &t("child"), "").await.unwrap();

    let seen_by = async |tenant: &str| {
        let within = t(tenant);
        let page = Page::first(100);
        let (events, _, _) = bed.store.events_list(Some(&within), None, &page).await.unwrap();
        let (audit, _) = bed.store.audit_list(Some(&within), &page).await.unwrap();
        let (operations, _) = bed.store.operation_list(Some(&within), &Labels::new(), &page).await.unwrap();
        (events.len(), audit.len(), operations.len())
    };
    let before = seen_by("acme").await;
    assert!(before.0 > 0 && before.1 > 0 && before.2 == 2, "those above still see it: {before:?}");

    bed.tenant("child", None).await;
    let (events, audit, operations) = seen_by("child").await;
    assert_eq!((events, audit, operations), (0, 1, 0), "nothing but its own creation");
    assert_eq!(bed.store.quota_get(&t("child"), "vcpus").await.unwrap().quota.limit, None);
}
