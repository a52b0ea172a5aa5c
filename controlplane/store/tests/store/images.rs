use croft_core::image::{Copy, CopyState};
use croft_core::{Error, Reason};
use croft_store::{ImageScope, Page};

use crate::bed::{Bed, call, h, refused, small, t};

#[tokio::test]
async fn an_image_is_seen_by_its_tenant_and_those_below() {
    let bed = Bed::new().await;
    bed.tenant("acme", None).await;
    bed.tenant("child", Some("acme")).await;
    bed.tenant("other", None).await;
    let platform = bed.image("debian", None).await;
    let own = bed.image("own", Some("acme")).await;
    bed.image("childs", Some("child")).await;

    assert_eq!(bed.store.image_get(None, "debian").await.unwrap(), Some(platform.clone()));
    assert_eq!(bed.store.image_get(Some(&t("acme")), "debian").await.unwrap(), None);
    assert_eq!(bed.store.image_by_uid(own.uid).await.unwrap(), Some(own.clone()));
    let visible = async |tenant: &str, name: &str| bed.store.image_visible(&t(tenant), name).await;
    assert_eq!(visible("other", "images/debian").await.unwrap(), platform);
    assert_eq!(visible("child", "tenants/acme/images/own").await.unwrap(), own);
    for (tenant, name) in
        [("acme", "tenants/child/images/childs"), ("other", "tenants/acme/images/own"), ("acme", "images/no")]
    {
        assert_eq!(refused(visible(tenant, name).await), Error::not_found(name), "{tenant}");
    }

    let list = async |scope: ImageScope| {
        let (images, _) = bed.store.image_list(&scope, &Page::first(10)).await.unwrap();
        images.into_iter().map(|image| image.id).collect::<Vec<_>>()
    };
    assert_eq!(list(ImageScope::All).await, ["debian", "own", "childs"]);
    assert_eq!(list(ImageScope::Platform).await, ["debian"]);
    assert_eq!(list(ImageScope::VisibleTo(t("acme"))).await, ["debian", "own"]);
    assert_eq!(list(ImageScope::VisibleTo(t("child"))).await, ["debian", "own", "childs"]);
    assert_eq!(list(ImageScope::SeenFrom(t("acme"))).await, ["debian", "own", "childs"]);
    assert_eq!(list(ImageScope::VisibleTo(t("other"))).await, ["debian"]);
    let twice = refused(bed.store.image_create(&call(), bed.new_image("own", Some("acme"))).await);
    assert_eq!(twice, Error::AlreadyExists { name: "tenants/acme/images/own".to_owned() });
}

#[tokio::test]
async fn an_image_in_use_stays() {
    let bed = Bed::furnished().await;
    let instance = bed.instance("acme", "vm").await;
    let used = refused(bed.store.image_delete(&call(), None, "debian", "").await);
    assert_eq!(used.reason(), Reason::ImageInUse);
    bed.delete(&instance).await;
    bed.store.image_delete(&call(), None, "debian", "").await.unwrap();
    let missing = refused(bed.claim(call(), small("acme", "vm")).await);
    assert!(missing.to_string().starts_with("instance.spec.image: `images/debian` does not exist"), "{missing}");
}

#[tokio::test]
async fn copies_are_written_when_they_differ() {
    let bed = Bed::furnished().await;
    let image = bed.store.image_get(None, "debian").await.unwrap().unwrap();
    let copy = |done: i64, state| Copy {
        host: h("h1"),
        state,
        bytes_done: done,
        bytes_total: 100,
        reason: String::new(),
        message: String::new(),
    };
    assert!(bed.store.image_copy_put(image.uid, copy(10, CopyState::Fetching)).await.unwrap());
    assert!(!bed.store.image_copy_put(image.uid, copy(10, CopyState::Fetching)).await.unwrap());
    assert!(bed.store.image_copy_put(image.uid, copy(100, CopyState::Ready)).await.unwrap());
    assert_eq!(bed.store.image_copies(image.uid).await.unwrap(), [copy(100, CopyState::Ready)]);

    bed.store.image_delete(&call(), None, "debian", "").await.unwrap();
    assert!(!bed.store.image_copy_put(image.uid, copy(1, CopyState::Failed)).await.unwrap(), "of nothing");
    assert_eq!(bed.store.image_copies(image.uid).await.unwrap(), []);
}
