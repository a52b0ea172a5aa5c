//! request_id, etag and validate_only: what makes a retry safe.

use croft_proto::v1;
use croft_tests::{Fleet, Wanted};
use tonic_types::StatusExt;

fn reason(status: &tonic::Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_create_is_the_first_one_and_another_body_is_refused() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    let request =
        v1::CreateInstanceRequest { request_id: "5f3c".to_owned(), ..Wanted::default().request("acme", "web") };
    let first = api.create_as(request.clone()).await.unwrap();
    let again = api.create_as(request.clone()).await.unwrap();
    assert_eq!(first.name, again.name);
    assert_eq!(api.used("acme", "instances").await, 1);
    let other =
        v1::CreateInstanceRequest { request_id: "5f3c".to_owned(), ..Wanted::default().request("acme", "else") };
    let refused = api.create_as(other).await.unwrap_err();
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED", "{refused:?}");
    let taken = api.create("acme", "web").await.unwrap_err();
    assert_eq!((taken.code(), reason(&taken).as_str()), (tonic::Code::AlreadyExists, "ALREADY_EXISTS"));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validate_only_checks_everything_and_changes_nothing() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    api.quota("acme", "vcpus", 4).await;
    let before = fleet.store().revision().await.unwrap();
    let dry = |wanted: Wanted| v1::CreateInstanceRequest { validate_only: true, ..wanted.request("acme", "web") };
    api.create_as(dry(Wanted::default())).await.expect("would be accepted");
    let refused = api.create_as(dry(Wanted { vcpus: 5, ..Wanted::default() })).await.unwrap_err();
    assert_eq!(reason(&refused), "QUOTA_EXCEEDED");
    assert_eq!(api.state("acme", "web").await, None);
    assert_eq!(api.used("acme", "instances").await, 0);
    assert_eq!(fleet.store().revision().await.unwrap(), before, "nothing was written");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_etag_changes_nothing() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    let web = api.running("acme", "web").await;
    let old = web.metadata.clone().unwrap().etag;
    let label = |value: &str| {
        let mut instance = web.clone();
        instance.metadata.as_mut().unwrap().labels.insert("tier".to_owned(), value.to_owned());
        v1::UpdateInstanceRequest {
            instance: Some(instance),
            update_mask: Some(prost_types::FieldMask { paths: vec!["metadata.labels".to_owned()] }),
            ..Default::default()
        }
    };
    let updated = api.instances.clone().update_instance(label("front")).await.unwrap().into_inner();
    assert_ne!(updated.metadata.unwrap().etag, old);
    let refused = api.instances.clone().update_instance(label("back")).await.unwrap_err();
    assert_eq!(reason(&refused), "ETAG_MISMATCH");
    let delete = v1::DeleteInstanceRequest { name: web.name.clone(), etag: old, ..Default::default() };
    assert_eq!(reason(&api.instances.clone().delete_instance(delete).await.unwrap_err()), "ETAG_MISMATCH");
    let mut instance = web.clone();
    instance.spec.as_mut().unwrap().vcpus = 7;
    let immutable = v1::UpdateInstanceRequest {
        instance: Some(instance),
        update_mask: Some(prost_types::FieldMask { paths: vec!["spec.vcpus".to_owned()] }),
        ..Default::default()
    };
    let refused = api.instances.clone().update_instance(immutable).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(format!("{:?}", refused.get_details_bad_request()).contains("spec.vcpus"), "{refused:?}");
    fleet.end().await;
}
