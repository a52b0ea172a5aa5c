use std::time::Duration;

use croft_core::access::{Principal, Role};
use croft_core::audit::Call;
use croft_core::id::TokenUid;
use croft_core::meta::{Labels, Meta};
use croft_core::token::Token;
use croft_core::{Clock, Reason};
use croft_store::{ADMIN_TOKEN, Page};

use crate::bed::{Bed, call, labels, refused, t};

const SECRET: [u8; 32] = [7; 32];

fn token(bed: &Bed, id: &str, role: Role, tenant: Option<&str>) -> Token {
    Token {
        id: id.into(),
        meta: Meta::new(TokenUid::new(bed.clock.now()).to_string(), Labels::new(), Labels::new(), bed.clock.now()),
        tenant: tenant.map(t),
        role,
        description: "for a test".to_owned(),
        disabled: false,
        expire_time: None,
        last_used_time: None,
    }
}

#[tokio::test]
async fn only_the_right_secret_of_a_living_token_opens() {
    let bed = Bed::new().await;
    bed.tenant("acme", None).await;
    let ci = Token {
        expire_time: Some(bed.clock.now().plus(Duration::from_secs(60))),
        ..token(&bed, "ci", Role::TenantOperator, Some("acme"))
    };
    assert_eq!(bed.store.token_create(&call(), ci.clone(), SECRET).await.unwrap().into_inner(), ci);
    let opens = async |secret| bed.store.token_authenticate(&"ci".into(), secret).await.unwrap().is_some();
    assert!(opens(SECRET).await);
    assert!(!opens([8; 32]).await);
    assert_eq!(bed.store.token_authenticate(&"nobody".into(), SECRET).await.unwrap(), None);
    bed.advance(60);
    assert!(!opens(SECRET).await, "expired");

    let living = token(&bed, "two", Role::TenantViewer, Some("acme"));
    bed.store.token_create(&call(), living, SECRET).await.unwrap();
    assert!(bed.store.token_disable(&call(), &"two".into()).await.unwrap().into_inner().disabled);
    assert_eq!(bed.store.token_authenticate(&"two".into(), SECRET).await.unwrap(), None);
    let dump = bed.dump().await;
    assert!(!format!("{dump:?}").contains(&"\u{7}".repeat(32)), "the secret itself is nowhere");
}

#[tokio::test]
async fn its_use_is_written_down_once_a_minute() {
    let bed = Bed::new().await;
    bed.store.token_create(&call(), token(&bed, "ci", Role::PlatformViewer, None), SECRET).await.unwrap();
    let used = async || {
        bed.store.token_authenticate(&"ci".into(), SECRET).await.unwrap();
        tokio::task::yield_now().await;
        // Queues behind the write that was begun.
        bed.store.quota_all().await.unwrap();
        bed.tenant(&format!("t{}", bed.clock.now().0), None).await;
        bed.store.token_get(&"ci".into()).await.unwrap().unwrap().last_used_time
    };
    bed.advance(1);
    let first = bed.clock.now();
    assert_eq!(used().await, Some(first));
    bed.advance(59);
    assert_eq!(used().await, Some(first));
    bed.advance(1);
    assert_eq!(used().await, Some(bed.clock.now()));
}

#[tokio::test]
async fn lists_are_by_scope_and_a_tenant_takes_its_tokens_along() {
    let bed = Bed::new().await;
    bed.tenant("acme", None).await;
    bed.tenant("child", Some("acme")).await;
    for (id, role, tenant) in [
        ("a", Role::PlatformAdmin, None),
        ("b", Role::TenantAdmin, Some("acme")),
        ("c", Role::TenantViewer, Some("child")),
    ] {
        bed.store.token_create(&call(), token(&bed, id, role, tenant), SECRET).await.unwrap();
    }
    let ids = async |within: Option<&str>| {
        let within = within.map(t);
        let (tokens, _) = bed.store.token_list(within.as_ref(), &Labels::new(), &Page::first(10)).await.unwrap();
        tokens.into_iter().map(|token| token.id.0).collect::<Vec<_>>()
    };
    assert_eq!(ids(None).await, ["a", "b", "c"]);
    assert_eq!(ids(Some("acme")).await, ["b", "c"]);
    assert_eq!(ids(Some("child")).await, ["c"]);
    bed.store.tenant_delete(&call(), &t("child"), "").await.unwrap();
    assert_eq!(ids(None).await, ["a", "b"]);

    let twice = refused(bed.store.token_create(&call(), token(&bed, "a", Role::PlatformViewer, None), SECRET).await);
    assert_eq!(twice.reason(), Reason::AlreadyExists);
    let homeless = token(&bed, "d", Role::TenantViewer, Some("nobody"));
    assert_eq!(refused(bed.store.token_create(&call(), homeless, SECRET).await).reason(), Reason::NotFound);
}

#[tokio::test]
async fn the_last_admin_cannot_be_locked_out_and_can_be_reset() {
    let bed = Bed::new().await;
    let local = Call { principal: Principal::Local, method: "admin reset-token", ..call() };
    let admin = bed.store.token_reset_admin(&local, SECRET).await.unwrap();
    assert_eq!((admin.id.as_str(), admin.role), (ADMIN_TOKEN, Role::PlatformAdmin));
    let expiring = Token {
        expire_time: Some(bed.clock.now().plus(Duration::from_secs(10))),
        ..token(&bed, "soon", Role::PlatformAdmin, None)
    };
    bed.store.token_create(&call(), expiring, SECRET).await.unwrap();
    bed.store.token_create(&call(), token(&bed, "viewer", Role::PlatformViewer, None), SECRET).await.unwrap();
    bed.advance(10);
    for error in [
        refused(bed.store.token_disable(&call(), &admin.id).await),
        refused(bed.store.token_delete(&call(), &admin.id).await),
    ] {
        assert_eq!(error.reason(), Reason::LastAdminToken, "an expired one does not count");
    }
    bed.store.token_create(&call(), token(&bed, "second", Role::PlatformAdmin, None), SECRET).await.unwrap();
    bed.store.token_disable(&call(), &admin.id).await.unwrap();
    bed.store.token_delete(&call(), &"viewer".into()).await.unwrap();
    assert_eq!(bed.store.token_authenticate(&admin.id, SECRET).await.unwrap(), None);

    bed.store.token_reset_admin(&local, [9; 32]).await.unwrap();
    assert_eq!(bed.store.token_authenticate(&admin.id, SECRET).await.unwrap(), None, "the old secret");
    assert!(bed.store.token_authenticate(&admin.id, [9; 32]).await.unwrap().is_some());
    let (rows, _) = bed.store.audit_list(None, &Page::first(100)).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.actor == "local:root").count(), 2, "audited");
}

#[tokio::test]
async fn labels_and_description_may_change_and_whom_it_lets_in_may_not() {
    let bed = Bed::new().await;
    let mut ci = token(&bed, "ci", Role::PlatformViewer, None);
    ci.meta.labels = labels(&[("team", "ml")]);
    let made = bed.store.token_create(&call(), ci, SECRET).await.unwrap().into_inner();
    bed.advance(1);
    let change = |token: &mut Token| {
        token.meta.labels = labels(&[("team", "web")]);
        token.meta.annotations = labels(&[("owner", "Ada L.")]);
        token.description = "the other team's".to_owned();
        token.disabled = true;
        token.role = Role::PlatformAdmin;
        Ok(())
    };
    let etag = made.meta.etag();
    bed.store.token_update(&call(), &"ci".into(), &etag, change).await.unwrap();
    let now = bed.store.token_authenticate(&"ci".into(), SECRET).await.unwrap().expect("it still opens");
    assert_eq!((now.role, now.disabled, now.description.as_str()), (made.role, false, "the other team's"));
    assert_eq!((&now.meta.uid, now.meta.generation), (&made.meta.uid, 2));
    assert!(now.meta.update_time > now.meta.create_time);
    let late = refused(bed.store.token_update(&call(), &"ci".into(), &etag, change).await);
    assert_eq!(late.reason(), Reason::EtagMismatch);

    let found = async |pairs: &[(&str, &str)]| {
        let (tokens, _) = bed.store.token_list(None, &labels(pairs), &Page::first(10)).await.unwrap();
        tokens.into_iter().map(|token| token.id.0).collect::<Vec<_>>()
    };
    assert_eq!(found(&[("team", "web")]).await, ["ci"]);
    assert_eq!(found(&[("team", "ml")]).await, [""; 0]);
    bed.store.token_disable(&call(), &"ci".into()).await.unwrap();
    let disabled = bed.store.token_get(&"ci".into()).await.unwrap().unwrap();
    assert_eq!((disabled.disabled, disabled.meta.generation, &disabled.meta.labels), (true, 3, &now.meta.labels));
}
