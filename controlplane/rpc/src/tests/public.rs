use std::time::Duration;

use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use v1::events_client::EventsClient;
use v1::images_client::ImagesClient;
use v1::instances_client::InstancesClient;
use v1::networks_client::NetworksClient;
use v1::quotas_client::QuotasClient;
use v1::tenants_client::TenantsClient;
use v1::token::Role;
use v1::tokens_client::TokensClient;
use v1::watch_instances_response::Kind;

use croft_proto::v1;

use super::plane::{Connection, Plane};

async fn get_tenant(by: Connection, name: &str) -> Result<v1::Tenant, Status> {
    let request = v1::GetTenantRequest { name: name.into() };
    TenantsClient::new(by).get_tenant(request).await.map(tonic::Response::into_inner)
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

#[tokio::test]
async fn who_is_not_known_and_who_may_not_leaves_one_row_each() {
    let plane = Plane::new().await;
    plane.tenant("a", "").await;
    let viewer = plane.token("eyes", Role::TenantViewer, "tenants/a").await;

    let garbage = format!("{}x", plane.admin);
    for token in ["", "garbage", "croft_nobody_x", &garbage] {
        let status = get_tenant(plane.by(token), "tenants/a").await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"), "{token}");
    }
    let request = v1::CreateTenantRequest { tenant_id: "b".into(), ..Default::default() };
    let status = TenantsClient::new(plane.by(&viewer)).create_tenant(request).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("TENANT_VIEWER") && status.message().contains("tenants.create"), "{status}");

    // Rows of strangers are written aside, so that a stranger does not wait for the disk.
    let refused = async || {
        let rows: Vec<_> = plane.audit().await.into_iter().filter(|row| row.1 != "OK").collect();
        Some(rows).filter(|rows| rows.len() >= 5)
    };
    let rows = eventually(refused).await;
    let count = |result: &str| rows.iter().filter(|row| row.1 == result).count();
    assert_eq!((rows.len(), count("UNAUTHENTICATED"), count("PERMISSION_DENIED")), (5, 4, 1), "{rows:?}");
    assert!(plane.calls.lock().unwrap().contains(&("/croft.v1.Tenants/CreateTenant", Code::PermissionDenied)));
}

#[tokio::test]
async fn a_path_that_is_not_ours_is_unimplemented() {
    let plane = Plane::new().await;
    let mut grpc = tonic::client::Grpc::new(plane.admin());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::GetTenantRequest, v1::Tenant>::default();
    let path = http::uri::PathAndQuery::from_static("/croft.v1.Tenants/EatTenant");
    let request = tonic::Request::new(v1::GetTenantRequest::default());
    let status = grpc.unary(request, path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn another_tenants_things_do_not_exist() {
    let plane = Plane::new().await;
    for (id, parent) in [("a", ""), ("a-child", "tenants/a"), ("b", "")] {
        plane.tenant(id, parent).await;
    }
    let admin = plane.token("a-admin", Role::TenantAdmin, "tenants/a").await;
    let by = || plane.by(&admin);

    assert!(get_tenant(by(), "tenants/a-child").await.is_ok());
    let foreign = get_tenant(by(), "tenants/b").await.unwrap_err();
    let nowhere = get_tenant(by(), "tenants/c").await.unwrap_err();
    assert_eq!((foreign.code(), nowhere.code()), (Code::NotFound, Code::NotFound));
    assert_eq!(foreign.message().replace("tenants/b", "tenants/c"), nowhere.message());

    let list = v1::ListInstancesRequest { parent: "tenants/b".into(), ..Default::default() };
    assert_eq!(InstancesClient::new(by()).list_instances(list).await.unwrap_err().code(), Code::NotFound);
    let seen = TenantsClient::new(by()).list_tenants(v1::ListTenantsRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = seen.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!(names, ["tenants/a", "tenants/a-child"]);

    let set = |tenant: &str| v1::SetQuotaRequest {
        quota: Some(v1::Quota { name: format!("tenants/{tenant}/quotas/vcpus"), limit: Some(4), ..Default::default() }),
        ..Default::default()
    };
    let quotas = || QuotasClient::new(by());
    assert_eq!(quotas().set_quota(set("a")).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(quotas().set_quota(set("b")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(quotas().set_quota(set("a-child")).await.unwrap().into_inner().limit, Some(4));

    let root = v1::CreateTenantRequest { tenant_id: "c".into(), ..Default::default() };
    assert_eq!(TenantsClient::new(by()).create_tenant(root).await.unwrap_err().code(), Code::PermissionDenied);
    let below_b = v1::Tenant { parent: "tenants/b".into(), ..Default::default() };
    let below_b = v1::CreateTenantRequest { tenant_id: "c".into(), tenant: Some(below_b), ..Default::default() };
    assert_eq!(TenantsClient::new(by()).create_tenant(below_b).await.unwrap_err().code(), Code::NotFound);

    let grant = |role: Role, tenant: &str| v1::CreateTokenRequest {
        token_id: "x".into(),
        token: Some(v1::Token { role: role.into(), tenant: tenant.into(), ..Default::default() }),
        validate_only: true,
        ..Default::default()
    };
    let tokens = || TokensClient::new(by());
    let code = |result: Result<_, Status>| result.map(|_: tonic::Response<_>| ()).map_err(|status| status.code());
    assert_eq!(code(tokens().create_token(grant(Role::TenantAdmin, "tenants/a-child")).await), Ok(()));
    assert_eq!(code(tokens().create_token(grant(Role::TenantViewer, "tenants/b")).await), Err(Code::NotFound));
    assert_eq!(code(tokens().create_token(grant(Role::PlatformViewer, "")).await), Err(Code::PermissionDenied));
    let disable = v1::DisableTokenRequest { name: "tokens/admin".into(), ..Default::default() };
    assert_eq!(tokens().disable_token(disable).await.unwrap_err().code(), Code::NotFound);

    // The log of b has nothing of what a's admin tried.
    let log = v1::ListAuditEntriesRequest { parent: "tenants/b".into(), ..Default::default() };
    let log = EventsClient::new(plane.admin()).list_audit_entries(log).await.unwrap().into_inner();
    assert!(log.entries.iter().all(|entry| entry.actor == "token:admin"), "{:?}", log.entries);
}

#[tokio::test]
async fn a_disabled_token_is_refused_at_once_and_its_watch_ends() {
    let plane = Plane::new().await;
    plane.tenant("a", "").await;
    let viewer = plane.token("eyes", Role::TenantViewer, "tenants/a").await;
    let by = || plane.by(&viewer);
    assert!(get_tenant(by(), "tenants/a").await.is_ok());
    let watch = v1::WatchInstancesRequest { parent: "tenants/-".into(), ..Default::default() };
    let mut watch = InstancesClient::new(by()).watch_instances(watch).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().kind(), Kind::Synced);

    let disable = v1::DisableTokenRequest { name: "tokens/eyes".into(), ..Default::default() };
    TokensClient::new(plane.admin()).disable_token(disable).await.unwrap();
    assert_eq!(get_tenant(by(), "tenants/a").await.unwrap_err().code(), Code::Unauthenticated);
    let end = tokio::time::timeout(Duration::from_secs(5), watch.next()).await.unwrap().unwrap();
    assert_eq!(end.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_stopping_plane_ends_its_watches() {
    let plane = Plane::new().await;
    let watch = v1::WatchEventsRequest { parent: "-".into(), ..Default::default() };
    let mut watch = EventsClient::new(plane.admin()).watch_events(watch).await.unwrap().into_inner();
    assert!(!watch.next().await.unwrap().unwrap().resume_token.is_empty());
    plane.shutdown.cancel();
    assert_eq!(watch.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_retry_is_done_once_and_a_failure_is_told_once() {
    let plane = Plane::new().await;
    let create = |id: &str, request_id: &str, display_name: &str, validate_only| v1::CreateTenantRequest {
        tenant_id: id.into(),
        tenant: Some(v1::Tenant { display_name: display_name.into(), ..Default::default() }),
        request_id: request_id.into(),
        validate_only,
    };
    let tenants = || TenantsClient::new(plane.admin());

    tenants().create_tenant(create("a", "", "dry", true)).await.unwrap();
    let first = tenants().create_tenant(create("a", "r1", "A", false)).await.unwrap().into_inner();
    let again = tenants().create_tenant(create("a", "r1", "A", false)).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = tenants().create_tenant(create("a", "r1", "B", false)).await.unwrap_err();
    assert_eq!((other.code(), reason(&other).as_str()), (Code::Aborted, "REQUEST_ID_REUSED"));
    let taken = tenants().create_tenant(create("a", "", "A", false)).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    let wrong = tenants().create_tenant(create("A!", "", "A", false)).await.unwrap_err();
    assert_eq!(wrong.get_details_bad_request().unwrap().field_violations[0].field, "tenant_id");
    tenants().create_tenant(create("A!", "", "A", true)).await.unwrap_err();

    // All at one moment of the test's clock, so in no order.
    let rows = plane.audit().await.into_iter().filter(|row| row.0.ends_with("/CreateTenant"));
    let mut results: Vec<_> = rows.map(|(_, result, target)| (result, target)).collect();
    results.sort();
    let a = "tenants/a";
    let expected = [("ABORTED", a), ("ALREADY_EXISTS", a), ("INVALID_ARGUMENT", "tenants/A!"), ("OK", a)];
    assert_eq!(results, expected.map(|(result, target)| (result.to_owned(), target.to_owned())));
}

#[tokio::test]
async fn an_update_needs_the_etag_it_says_and_writes_what_the_mask_says() {
    let plane = Plane::new().await;
    let tenant = plane.tenant("a", "").await;
    let update = |etag: &str, display_name: &str, paths: &[&str]| v1::UpdateTenantRequest {
        tenant: Some(v1::Tenant {
            name: "tenants/a".into(),
            display_name: display_name.into(),
            metadata: Some(v1::Metadata {
                etag: etag.into(),
                labels: [("k".to_owned(), "v".to_owned())].into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() }),
        ..Default::default()
    };
    let tenants = || TenantsClient::new(plane.admin());
    let etag = tenant.metadata.unwrap().etag;
    let named = tenants().update_tenant(update(&etag, "A", &["display_name"])).await.unwrap().into_inner();
    assert_eq!((named.display_name.as_str(), named.metadata.unwrap().labels.len()), ("A", 0));
    let stale = tenants().update_tenant(update(&etag, "B", &["display_name"])).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    let unknown = tenants().update_tenant(update("", "B", &["colour"])).await.unwrap_err();
    assert!(unknown.message().contains("`colour` is no field of tenant"), "{unknown}");
    let parent = tenants().update_tenant(update("", "B", &["parent"])).await.unwrap_err();
    assert!(parent.message().contains("never changes"), "{parent}");
}

#[tokio::test]
async fn a_page_of_quotas_goes_on_where_the_last_one_ended() {
    let plane = Plane::new().await;
    plane.tenant("a", "").await;
    let list = |page_token: String| v1::ListQuotasRequest {
        parent: "tenants/a".into(),
        page_size: 3,
        page_token,
        ..Default::default()
    };
    let mut quotas = QuotasClient::new(plane.admin());
    let first = quotas.list_quotas(list(String::new())).await.unwrap().into_inner();
    let second = quotas.list_quotas(list(first.next_page_token)).await.unwrap().into_inner();
    assert_eq!((first.quotas.len(), second.quotas.len(), second.next_page_token.as_str()), (3, 1, ""));
    let wrong = quotas.list_quotas(list("x".into())).await.unwrap_err();
    assert_eq!((wrong.code(), reason(&wrong).as_str()), (Code::InvalidArgument, "PAGE_TOKEN_INVALID"));
}

#[tokio::test]
async fn images_are_shared_downwards_and_platform_ones_are_the_platforms() {
    let plane = Plane::new().await;
    for (id, parent) in [("a", ""), ("a-child", "tenants/a"), ("b", "")] {
        plane.tenant(id, parent).await;
    }
    plane.image().await;
    let a = plane.token("a-op", Role::TenantOperator, "tenants/a").await;
    let child = plane.token("child-op", Role::TenantOperator, "tenants/a-child").await;
    let b = plane.token("b-op", Role::TenantOperator, "tenants/b").await;

    let file = |uri: &str| v1::ImageFile { uri: uri.into(), sha256: "0".repeat(64) };
    let create = |parent: &str, uri: &str| v1::CreateImageRequest {
        parent: parent.into(),
        image_id: "own".into(),
        image: Some(v1::Image {
            boot: Some(v1::image::Boot::Disk(v1::DiskImage {
                file: Some(file(uri)),
                format: v1::disk_image::Format::Raw.into(),
                min_disk_gib: 1,
            })),
            ..Default::default()
        }),
        ..Default::default()
    };
    let https = "https://example.org/x";
    let mut images = ImagesClient::new(plane.by(&a));
    assert_eq!(images.create_image(create("", https)).await.unwrap_err().code(), Code::PermissionDenied);
    let local = images.create_image(create("tenants/a", "file:///x")).await.unwrap_err();
    assert_eq!(local.get_details_bad_request().unwrap().field_violations[0].field, "image.disk.file.uri");
    images.create_image(create("tenants/a", https)).await.unwrap();

    let get = || v1::GetImageRequest { name: "tenants/a/images/own".into() };
    let delete = || v1::DeleteImageRequest { name: "tenants/a/images/own".into(), ..Default::default() };
    assert!(ImagesClient::new(plane.by(&child)).get_image(get()).await.is_ok());
    let not_theirs = ImagesClient::new(plane.by(&child)).delete_image(delete()).await.unwrap_err();
    assert_eq!(not_theirs.code(), Code::PermissionDenied);
    assert_eq!(ImagesClient::new(plane.by(&b)).get_image(get()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(ImagesClient::new(plane.by(&b)).delete_image(delete()).await.unwrap_err().code(), Code::NotFound);
    let all = v1::ListImagesRequest { parent: "-".into(), ..Default::default() };
    let seen = ImagesClient::new(plane.by(&b)).list_images(all).await.unwrap().into_inner().images;
    assert_eq!(seen.into_iter().map(|image| image.name).collect::<Vec<_>>(), ["images/tiny"]);
    assert!(images.delete_image(delete()).await.is_ok());
}

#[tokio::test]
async fn a_network_is_seen_by_whom_it_is_granted_to_without_the_others() {
    let plane = Plane::new().await;
    for (id, parent) in [("a", ""), ("a-child", "tenants/a"), ("b", ""), ("c", "")] {
        plane.tenant(id, parent).await;
    }
    let create = |bridge: &str| v1::CreateNetworkRequest {
        network_id: "lan".into(),
        network: Some(v1::Network {
            bridge: bridge.into(),
            granted_tenants: vec!["tenants/a".into(), "tenants/b".into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut networks = NetworksClient::new(plane.admin());
    let ours = networks.create_network(create("cr-0badcafe")).await.unwrap_err();
    assert_eq!(ours.get_details_bad_request().unwrap().field_violations[0].field, "network.bridge");
    networks.create_network(create("br0")).await.unwrap();

    for (tenant, sees) in [("a", true), ("a-child", true), ("c", false)] {
        let viewer = plane.token(&format!("eyes-{tenant}"), Role::TenantViewer, &format!("tenants/{tenant}")).await;
        let mut networks = NetworksClient::new(plane.by(&viewer));
        let found = networks.list_networks(v1::ListNetworksRequest::default()).await.unwrap().into_inner().networks;
        let grants: Vec<_> = found.into_iter().flat_map(|network| network.granted_tenants).collect();
        assert_eq!(grants, if sees { vec!["tenants/a"] } else { Vec::new() }, "{tenant}");
        let get = networks.get_network(v1::GetNetworkRequest { name: "networks/lan".into() }).await;
        assert_eq!(get.is_ok(), sees, "{tenant}");
    }
}

#[tokio::test]
async fn a_watch_cut_after_any_message_goes_on_without_loss_or_double() {
    let plane = Plane::new().await;
    let whole = v1::WatchEventsRequest { parent: "-".into(), ..Default::default() };
    let mut events = EventsClient::new(plane.admin());
    let start = events.watch_events(whole).await.unwrap().into_inner().next().await.unwrap().unwrap().resume_token;
    for n in 0..5 {
        let event = croft_core::event::Event {
            revision: 0,
            time: plane.store.now(),
            tenant: None,
            target: "hosts/h".into(),
            reason: format!("Test{n}"),
            message: String::new(),
            severity: croft_core::event::Severity::Info,
        };
        plane.store.event_append(event).await.unwrap();
    }
    // A new connection for every message.
    let (mut token, mut reasons) = (start.clone(), Vec::new());
    while reasons.len() < 5 {
        let watch = v1::WatchEventsRequest { parent: "-".into(), resume_token: token.clone() };
        let mut stream = events.watch_events(watch).await.unwrap().into_inner();
        let message = stream.next().await.unwrap().unwrap();
        token = message.resume_token;
        reasons.extend(message.event.map(|event| event.reason));
    }
    assert_eq!(reasons, ["Test0", "Test1", "Test2", "Test3", "Test4"]);

    let other = v1::WatchInstancesRequest { parent: "tenants/-".into(), resume_token: start };
    let foreign = InstancesClient::new(plane.admin()).watch_instances(other).await.unwrap_err();
    assert_eq!(foreign.get_details_bad_request().unwrap().field_violations[0].field, "resume_token");
}

/// Polls, because what is waited for happens in a task of its own.
pub async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..500 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within 5 s");
}
