//! Every wrong field is named with its path, all of them at once, and nothing changes.

use croft_proto::v1;
use croft_tests::{Fleet, Wanted};
use tonic::Code;
use tonic_types::StatusExt;

fn fields(status: &tonic::Status) -> Vec<String> {
    let violations = status.get_details_bad_request().map(|details| details.field_violations).unwrap_or_default();
    violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    type Edit = fn(&mut v1::InstanceSpec);
    let cases: &[(&str, Edit)] = &[
        ("instance.spec.vcpus", |spec| spec.vcpus = 0),
        ("instance.spec.vcpus", |spec| spec.vcpus = 100_000),
        ("instance.spec.memory_mib", |spec| spec.memory_mib = 1),
        ("instance.spec.memory_mib", |spec| spec.memory_mib = -5),
        ("instance.spec.disks", |spec| spec.disks.push(v1::Disk { size_gib: 1 })),
        ("instance.spec.disks[0].size_gib", |spec| spec.disks[0].size_gib = 0),
        ("instance.spec.image", |spec| {
            spec.boot_source = Some(v1::instance_spec::BootSource::Image("images/nowhere".to_owned()));
        }),
        ("instance.spec.interfaces[0].network", |spec| {
            spec.interfaces.push(v1::NetworkInterface { network: "networks/secret-lan".to_owned() });
        }),
        ("instance.spec.huge_page_kib", |spec| spec.huge_page_kib = 3),
        ("instance.spec.stop_timeout", |spec| {
            spec.stop_timeout = Some(prost_types::Duration { seconds: 999_999, nanos: 0 });
        }),
        ("instance.spec.cloud_init.user_data", |spec| {
            spec.cloud_init = Some(v1::CloudInit { user_data: "users: []".to_owned(), ..Default::default() });
        }),
        ("instance.spec.cloud_init.ssh_authorized_keys[0]", |spec| {
            let ssh_authorized_keys = vec!["not a key".to_owned()];
            spec.cloud_init = Some(v1::CloudInit { ssh_authorized_keys, ..Default::default() });
        }),
        ("instance.spec.cloud_init.network_config", |spec| {
            spec.cloud_init = Some(v1::CloudInit { network_config: "version: [".to_owned(), ..Default::default() });
        }),
        ("instance.spec.host_selector[a b]", |spec| drop(spec.host_selector.insert("a b".to_owned(), "x".to_owned()))),
    ];
    for (field, edit) in cases {
        let mut request = Wanted::default().request("acme", "web");
        edit(request.instance.as_mut().unwrap().spec.as_mut().unwrap());
        let status = api.create_as(request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
        assert!(fields(&status).contains(&(*field).to_owned()), "{field}: {:?}", fields(&status));
    }
    for id in ["", "Web", "9web", "web-", &"w".repeat(51)] {
        let status = api.create("acme", id).await.unwrap_err();
        assert_eq!(
            (status.code(), fields(&status).first().map(String::as_str)),
            (Code::InvalidArgument, Some("instance_id"))
        );
    }
    let mut request = Wanted::default().request("acme", "Web");
    request.instance.as_mut().unwrap().spec.as_mut().unwrap().vcpus = 0;
    assert_eq!(fields(&api.create_as(request).await.unwrap_err()).len(), 2, "all that is wrong, at once");
    assert_eq!(api.create("nobody", "web").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(api.used("acme", "instances").await, 0, "nothing was charged");
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else() {
    let fleet = Fleet::with_host("h1").await;
    let api = &fleet.api;
    let image = |uri: &str, sha256: &str| v1::CreateImageRequest {
        image_id: "x".to_owned(),
        image: Some(v1::Image {
            boot: Some(v1::image::Boot::Disk(v1::DiskImage {
                file: Some(v1::ImageFile { uri: uri.to_owned(), sha256: sha256.to_owned() }),
                format: v1::disk_image::Format::Qcow2.into(),
                min_disk_gib: 1,
            })),
            ..Default::default()
        }),
        ..Default::default()
    };
    let zeros = "0".repeat(64);
    for (uri, sha256, field) in [
        ("http://plain.example/x", zeros.as_str(), "image.disk.file.uri"),
        ("file:///images/../etc/shadow", &zeros, "image.disk.file.uri"),
        ("https://user:pass@host/x", &zeros, "image.disk.file.uri"),
        ("https://host.example/x", "ABC", "image.disk.file.sha256"),
    ] {
        let status = api.images.clone().create_image(image(uri, sha256)).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.to_owned()]), "{uri}");
    }
    let quota = |resource: &str, limit, label: &str| v1::SetQuotaRequest {
        quota: Some(v1::Quota {
            name: format!("tenants/acme/quotas/{resource}"),
            limit: Some(limit),
            metadata: Some(v1::Metadata { labels: [(label.to_owned(), "x".to_owned())].into(), ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    for (resource, limit, label, field) in [
        ("vcpus", -1, "tier", "quota.limit"),
        ("bananas", 1, "tier", "quota.name"),
        ("vcpus", 1, "a b", "quota.metadata.labels[a b]"),
    ] {
        let status = api.quotas.clone().set_quota(quota(resource, limit, label)).await.unwrap_err();
        assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec![field.to_owned()]), "{resource}");
    }
    let orphan = v1::CreateTenantRequest {
        tenant_id: "orphan".to_owned(),
        tenant: Some(v1::Tenant { parent: "tenants/nobody".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    assert!(api.tenants.clone().create_tenant(orphan).await.is_err());
    let busy = v1::DeleteTenantRequest { name: "tenants/acme".to_owned(), ..Default::default() };
    api.running("acme", "web").await;
    let status = api.tenants.clone().delete_tenant(busy).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().reason, "TENANT_NOT_EMPTY");
    let page = v1::ListInstancesRequest {
        parent: "tenants/acme".to_owned(),
        page_token: "garbage".to_owned(),
        ..Default::default()
    };
    let status = api.instances.clone().list_instances(page).await.unwrap_err();
    assert!(matches!(status.code(), Code::InvalidArgument | Code::OutOfRange), "{status:?}");
    fleet.end().await;
}
