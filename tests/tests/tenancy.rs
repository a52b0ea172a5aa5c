//! Who sees what, and who may do what.

use croft_proto::v1;
use croft_proto::v1::token::Role;
use croft_tests::{Api, Fleet};
use tonic::Code;

async fn token(fleet: &Fleet, id: &str, tenant: &str, role: Role) -> Api {
    let tenant = if tenant.is_empty() { String::new() } else { format!("tenants/{tenant}") };
    let request = v1::CreateTokenRequest {
        token_id: id.to_owned(),
        token: Some(v1::Token { tenant, role: role.into(), ..Default::default() }),
        ..Default::default()
    };
    let secret = fleet.api.tokens.clone().create_token(request).await.expect("token").into_inner().secret;
    fleet.client_with(&secret)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_object_does_not_exist() {
    let fleet = Fleet::with_host("h1").await;
    fleet.api.tenant("rival", None).await;
    fleet.api.tenant("acme-lab", Some("acme")).await;
    fleet.api.running("acme", "web").await;
    let rival = token(&fleet, "rival", "rival", Role::TenantAdmin).await;
    assert_eq!(rival.get("acme", "web").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(rival.delete("acme", "web").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(rival.create("acme", "mine").await.unwrap_err().code(), Code::NotFound);
    let list = |parent: &str| v1::ListInstancesRequest { parent: parent.to_owned(), ..Default::default() };
    assert_eq!(rival.instances.clone().list_instances(list("tenants/acme")).await.unwrap_err().code(), Code::NotFound);
    let seen = rival.instances.clone().list_instances(list("tenants/-")).await.unwrap().into_inner().instances;
    assert!(seen.is_empty(), "{seen:?}");
    let hosts = rival.hosts.clone().list_hosts(v1::ListHostsRequest::default()).await.unwrap_err();
    assert_eq!(hosts.code(), Code::PermissionDenied);

    let admin = token(&fleet, "acme", "acme", Role::TenantAdmin).await;
    assert!(admin.get("acme", "web").await.is_ok());
    admin.running("acme-lab", "probe").await;
    let own = v1::Quota { name: "tenants/acme/quotas/vcpus".to_owned(), limit: Some(999), ..Default::default() };
    let own = v1::SetQuotaRequest { quota: Some(own), ..Default::default() };
    assert_eq!(admin.quotas.clone().set_quota(own).await.unwrap_err().code(), Code::PermissionDenied);
    admin.quota("acme-lab", "vcpus", 3).await;

    let viewer = token(&fleet, "looker", "acme", Role::TenantViewer).await;
    assert!(viewer.get("acme-lab", "probe").await.is_ok(), "below counts");
    assert_eq!(viewer.stop("acme", "web").await.unwrap_err().code(), Code::PermissionDenied);

    let audit = v1::ListAuditEntriesRequest { parent: "-".to_owned(), page_size: 1000, ..Default::default() };
    let rows = fleet.api.events.clone().list_audit_entries(audit).await.unwrap().into_inner().entries;
    let denied: Vec<_> = rows.iter().filter(|row| row.actor == "token:looker" && row.result != "OK").collect();
    assert_eq!(denied.len(), 1, "one row for the denied call: {denied:?}");
    assert!(denied[0].method.ends_with("StopInstance"));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_token_is_refused_at_once() {
    let fleet = Fleet::with_host("h1").await;
    let ci = token(&fleet, "ci", "acme", Role::TenantOperator).await;
    ci.running("acme", "web").await;
    let disable = v1::DisableTokenRequest { name: "tokens/ci".to_owned(), ..Default::default() };
    fleet.api.tokens.clone().disable_token(disable).await.unwrap();
    assert_eq!(ci.get("acme", "web").await.unwrap_err().code(), Code::Unauthenticated);
    for wrong in ["croft_ci_wrong", "garbage", "croft_nobody_x"] {
        let status = fleet.client_with(wrong).get("acme", "web").await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{wrong}");
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_never_comes_back() {
    let fleet = Fleet::with_host("h1").await;
    let mut request = croft_tests::Wanted::default().request("acme", "web");
    request.instance.as_mut().unwrap().spec.as_mut().unwrap().cloud_init =
        Some(v1::CloudInit { user_data: "#cloud-config\npassword: hunter2\n".to_owned(), ..Default::default() });
    fleet.api.done(&fleet.api.create_as(request).await.unwrap()).await.unwrap();
    let web = fleet.api.get("acme", "web").await.unwrap();
    let init = web.spec.unwrap().cloud_init.unwrap();
    assert!(init.user_data.is_empty() && init.user_data_digest.starts_with("sha256:"), "{init:?}");
    fleet.nothing_on_disk_says("hunter2").await;
    fleet.end().await;
}
