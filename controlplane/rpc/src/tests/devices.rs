//! Devices from a host's report to a guest and back, over every service that has a word in it.

use croft_proto::agent::v1::{self as agent, agent_message, desired_device::Piece};
use croft_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use v1::device::{Kind, State};
use v1::device_request::{MigSlice, PoolDevice, Wanted, WholeGpu};
use v1::devices_client::DevicesClient;
use v1::hosts_client::HostsClient;
use v1::instances_client::InstancesClient;
use v1::pools_client::PoolsClient;
use v1::quotas_client::QuotasClient;
use v1::token::Role;

use super::agent::{Talk, create, enrolled, ready, wait};
use super::plane::{Connection, Plane};
use super::public::eventually;

const GPU: &str = "0000:41:00.0";
const VF: &str = "0000:42:10.0";
const VF2: &str = "0000:42:10.1";
const USB: &str = "usb-0000:00:14.0-2";
const NAME: &str = "tenants/a/instances/web";

fn h100() -> v1::Device {
    let profile = |name: &str, slices, starts: &[i32], max_count| v1::MigProfile {
        name: name.into(),
        memory_slices: slices,
        starts: starts.to_vec(),
        compute_slices: slices,
        memory_mib: 9856 * i64::from(slices),
        max_count,
    };
    let vgpu_type = |name: &str, mig: &str, framebuffer_mib| v1::VgpuType {
        name: name.into(),
        framebuffer_mib,
        mig_profile: mig.into(),
        max_count: 1,
    };
    let gpu = v1::Gpu {
        model: "h100_sxm_80gb".into(),
        memory_mib: 81_920,
        mode: v1::gpu::Mode::Idle.into(),
        mig_capable: true,
        memory_slices: 8,
        compute_slices: 7,
        mig_profiles: vec![profile("1g.10gb", 1, &[0, 1, 2, 3, 4, 5, 6], 7), profile("2g.20gb", 2, &[0, 2, 4], 3)],
        vgpu_framework: "vendor".into(),
        vgpu_types: vec![vgpu_type("H100XM-1-10C", "1g.10gb", 10_240), vgpu_type("H100XM-2-20C", "2g.20gb", 20_480)],
        ..Default::default()
    };
    v1::Device {
        class: "030200".into(),
        functions_total: 16,
        gpu: Some(gpu),
        ..device(GPU, Kind::Gpu, "10de:2330", 10)
    }
}

fn device(id: &str, kind: Kind, pci: &str, iommu_group: i32) -> v1::Device {
    v1::Device {
        name: id.into(),
        kind: kind.into(),
        state: State::Available.into(),
        id: pci.into(),
        serial: format!("serial of {id}"),
        numa_node: -1,
        iommu_group,
        ..Default::default()
    }
}

fn devices() -> Vec<v1::Device> {
    let nic = v1::Device {
        functions_total: 8,
        functions_count: 8,
        class: "020000".into(),
        ..device("0000:42:00.0", Kind::Function, "8086:10c9", 20)
    };
    let vf = v1::Device {
        physical: "0000:42:00.0".into(),
        class: "020000".into(),
        ..device(VF, Kind::VirtualFunction, "8086:10ca", 21)
    };
    let second = v1::Device { name: VF2.into(), function_index: 1, iommu_group: 22, ..vf.clone() };
    vec![h100(), nic, vf, second, device(USB, Kind::Usb, "1050:0030", -1)]
}

async fn look(talk: &Talk, devices: Vec<v1::Device>, devices_seen: bool) {
    let capacity = v1::Capacity {
        vcpus: 8,
        memory_mib: 16 * 1024,
        disk_gib: 100,
        disk_free_gib: 100,
        cells: vec![v1::NumaCell { memory_mib: 16 * 1024, ..Default::default() }],
    };
    let host = agent::HostObservation {
        capacity: Some(capacity),
        info: Some(v1::HostInfo { driver_flavour: "vgpu".into(), ..Default::default() }),
        devices,
        devices_seen,
        ..Default::default()
    };
    observe(talk, agent::Observation { host: Some(host), ..Default::default() }).await;
}

async fn observe(talk: &Talk, observation: agent::Observation) {
    talk.say(agent_message::Kind::Observation(observation)).await;
}

async fn runs(talk: &Talk, desired: &agent::DesiredInstance, attached: &[&str], released: &[&str]) {
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    let instance = agent::InstanceObservation {
        uid: desired.uid.clone(),
        generation: desired.generation,
        phase: agent::instance_observation::Phase::Running.into(),
        power_generation: 1,
        attached_devices: ids(attached),
        released_devices: ids(released),
        ..Default::default()
    };
    observe(talk, agent::Observation { instances: vec![instance], ..Default::default() }).await;
}

async fn seen(plane: &Plane, id: &str) -> Option<v1::Device> {
    let request = v1::GetDeviceRequest { name: format!("hosts/h1/devices/{id}") };
    DevicesClient::new(plane.admin()).get_device(request).await.ok().map(tonic::Response::into_inner)
}

async fn limit(plane: &Plane, resource: &str, limit: i64) {
    let name = format!("tenants/a/quotas/{resource}");
    let request = v1::SetQuotaRequest {
        quota: Some(v1::Quota { name, limit: Some(limit), ..Default::default() }),
        ..Default::default()
    };
    QuotasClient::new(plane.admin()).set_quota(request).await.unwrap();
}

async fn pool(plane: &Plane, id: &str, kind: Kind, pci: &str) {
    let matches = v1::pool::Match { kind: kind.into(), ids: vec![pci.into()], ..Default::default() };
    let pool = v1::Pool { r#match: Some(matches), ..Default::default() };
    let request = v1::CreatePoolRequest { pool_id: id.into(), pool: Some(pool), ..Default::default() };
    PoolsClient::new(plane.admin()).create_pool(request).await.unwrap();
}

fn with(devices: &[Wanted]) -> v1::CreateInstanceRequest {
    let mut request = create("web");
    let spec = request.instance.as_mut().unwrap().spec.as_mut().unwrap();
    let wanted = |wanted: &Wanted| v1::DeviceRequest { wanted: Some(wanted.clone()), ..Default::default() };
    spec.devices = devices.iter().map(wanted).collect();
    request
}

fn mig(profile: &str) -> Wanted {
    Wanted::Mig(MigSlice { profile: profile.into(), model: String::new() })
}

fn of(pool: &str) -> Wanted {
    Wanted::Pool(PoolDevice { pool: format!("pools/{pool}") })
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

async fn fleet(plane: &Plane) -> Talk {
    plane.tenant("a", "").await;
    plane.image().await;
    let mut client = enrolled(plane, "h1").await;
    let talk = ready(plane, &mut client).await;
    look(&talk, devices(), true).await;
    eventually(async || seen(plane, USB).await).await;
    talk
}

#[tokio::test]
async fn what_a_host_tells_is_listed_and_a_look_that_failed_takes_nothing_away() {
    let plane = Plane::new().await;
    let talk = fleet(&plane).await;
    pool(&plane, "nic", Kind::VirtualFunction, "8086:10ca").await;
    let list = async |parent: &str, kinds: &[Kind], pool: &str| {
        let request = v1::ListDevicesRequest {
            parent: parent.into(),
            kinds: kinds.iter().map(|kind| i32::from(*kind)).collect(),
            pool: pool.into(),
            ..Default::default()
        };
        let answer = DevicesClient::new(plane.admin()).list_devices(request).await?;
        let ids =
            answer.into_inner().devices.into_iter().map(|device| device.name.rsplit('/').next().unwrap().to_owned());
        Ok::<_, Status>(ids.collect::<Vec<_>>())
    };
    assert_eq!(list("hosts/-", &[], "").await.unwrap(), [GPU, "0000:42:00.0", VF, VF2, USB]);
    assert_eq!(list("hosts/h1", &[Kind::Gpu, Kind::Usb], "").await.unwrap(), [GPU, USB]);
    assert_eq!(list("", &[], "pools/nic").await.unwrap(), [VF, VF2]);
    assert_eq!(list("hosts/h2", &[], "").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(list("", &[], "pools/none").await.unwrap_err().code(), Code::NotFound);

    look(&talk, Vec::new(), false).await;
    look(&talk, devices()[..4].to_vec(), true).await;
    let missing = eventually(async || seen(&plane, USB).await.filter(|usb| usb.state() == State::Missing)).await;
    assert_eq!(missing.reason, "DeviceNotSeen");
    assert_eq!(seen(&plane, GPU).await.unwrap().state(), State::Available, "not seen is not gone");

    // Tenants know of pools that they were granted, and of no machine.
    plane.tenant("b", "").await;
    let (a, b) = (
        plane.token("a-admin", Role::TenantAdmin, "tenants/a").await,
        plane.token("b-admin", Role::TenantAdmin, "tenants/b").await,
    );
    let all = v1::ListDevicesRequest { parent: "hosts/-".into(), ..Default::default() };
    let denied = DevicesClient::new(plane.by(&a)).list_devices(all).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let get = async |by: Connection| {
        let request = v1::GetPoolRequest { name: "pools/nic".into() };
        PoolsClient::new(by).get_pool(request).await.map(tonic::Response::into_inner)
    };
    assert_eq!(get(plane.by(&a)).await.unwrap_err().code(), Code::NotFound);
    limit(&plane, "devices/nic", 0).await;
    assert_eq!(get(plane.by(&a)).await.unwrap_err().code(), Code::NotFound, "a limit of 0 grants nothing");
    limit(&plane, "devices/nic", 1).await;
    assert_eq!(get(plane.by(&a)).await.unwrap().r#match.unwrap().ids, ["8086:10ca"]);
    assert_eq!(get(plane.by(&b)).await.unwrap_err().code(), Code::NotFound);
    let listed = PoolsClient::new(plane.by(&b)).list_pools(v1::ListPoolsRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().pools, []);
    let delete = v1::DeletePoolRequest { name: "pools/nic".into(), ..Default::default() };
    let denied = PoolsClient::new(plane.by(&a)).delete_pool(delete).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_pool_that_cannot_be_is_refused_by_its_fields_and_one_that_is_changes() {
    let plane = Plane::new().await;
    let mut pools = PoolsClient::new(plane.admin());
    let gpu = v1::pool::Match { kind: Kind::Gpu.into(), ids: vec!["nvidia".into()], ..Default::default() };
    let wrong = v1::CreatePoolRequest {
        pool_id: "GPU".into(),
        pool: Some(v1::Pool { r#match: Some(gpu), ..Default::default() }),
        ..Default::default()
    };
    let refused = pools.create_pool(wrong).await.unwrap_err();
    let fields = refused.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields.into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["pool_id", "pool.match.ids[0]"]);

    pool(&plane, "nic", Kind::VirtualFunction, "8086:10CA").await;
    let update = |pool: v1::Pool, paths: &[&str]| v1::UpdatePoolRequest {
        pool: Some(v1::Pool { name: "pools/nic".into(), ..pool }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() }),
        ..Default::default()
    };
    let classes = v1::pool::Match { kind: Kind::Function.into(), classes: vec!["0108".into()], ..Default::default() };
    let changed = v1::Pool { r#match: Some(classes.clone()), description: "not sent".into(), ..Default::default() };
    let updated = pools.update_pool(update(changed, &["match"])).await.unwrap().into_inner();
    assert_eq!((updated.r#match, updated.description.as_str()), (Some(classes), ""));
    let empty = pools.update_pool(update(v1::Pool::default(), &["match"])).await.unwrap_err();
    assert!(empty.message().starts_with("pool.match.kind"), "{empty}");
    pools.delete_pool(v1::DeletePoolRequest { name: "pools/nic".into(), ..Default::default() }).await.unwrap();
    let rows = plane.audit().await;
    let of = |method: &str, result: &str| rows.iter().filter(|row| row.0.ends_with(method) && row.1 == result).count();
    assert_eq!((of("/CreatePool", "OK"), of("/CreatePool", "INVALID_ARGUMENT")), (1, 1), "{rows:?}");
    assert_eq!((of("/UpdatePool", "OK"), of("/DeletePool", "OK")), (1, 1), "{rows:?}");
}

#[tokio::test]
async fn a_slice_and_a_function_come_to_a_guest_and_are_given_back() {
    let plane = Plane::new().await;
    let mut talk = fleet(&plane).await;
    pool(&plane, "nic", Kind::VirtualFunction, "8086:10ca").await;
    pool(&plane, "hsm", Kind::Usb, "1050:0030").await;
    let mut instances = InstancesClient::new(plane.admin());

    // Denied by default; and what no board has is refused with what they have.
    let denied = instances.create_instance(with(&[mig("2g.20gb")])).await.unwrap_err();
    assert_eq!((denied.code(), reason(&denied).as_str()), (Code::FailedPrecondition, "DEVICE_NOT_GRANTED"), "{denied}");
    let unknown = instances.create_instance(with(&[of("nic"), mig("3g.99gb")])).await.unwrap_err();
    let violation = unknown.get_details_bad_request().unwrap().field_violations.remove(0);
    assert_eq!(violation.field, "instance.spec.devices[1].mig.profile");
    assert!(violation.description.contains("h100_sxm_80gb: 1g.10gb, 2g.20gb"), "{violation:?}");
    let mut counted = with(&[of("nic"), mig("3g.99gb")]);
    for request in &mut counted.instance.as_mut().unwrap().spec.as_mut().unwrap().devices {
        request.count = 3;
    }
    let unknown = instances.create_instance(counted).await.unwrap_err();
    let violations = unknown.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = violations.into_iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["instance.spec.devices[1].mig.profile"], "where it was written, and once");
    for resource in ["gpu_slices/h100_sxm_80gb/2g.20gb", "devices/nic", "devices/hsm"] {
        limit(&plane, resource, 1).await;
    }

    // Its host is told the exact pieces, and that they are needed.
    let created = instances.create_instance(with(&[mig("2g.20gb"), of("nic")])).await.unwrap().into_inner();
    let change = talk.change().await;
    let desired = &change.upserts[0];
    assert_eq!(desired.required_features, ["devices.v1"]);
    let [slice, nic] = &desired.devices[..] else { panic!("{:?}", desired.devices) };
    assert_eq!(
        (slice.id.as_str(), slice.device.as_str(), slice.serial.as_str()),
        ("gpu-0", GPU, "serial of 0000:41:00.0")
    );
    let Some(Piece::Vgpu(vgpu)) = &slice.piece else { panic!("{slice:?}") };
    assert_eq!((vgpu.r#type.as_str(), vgpu.mig_profile.as_str(), vgpu.mig_size), ("H100XM-2-20C", "2g.20gb", 2));
    let Some(Piece::Whole(whole)) = &nic.piece else { panic!("{nic:?}") };
    assert_eq!((nic.id.as_str(), nic.device.as_str(), whole.mac.len()), ("device-0", VF, 17));
    runs(&talk, desired, &["gpu-0", "device-0"], &[]).await;
    wait(&plane, &created.name).await;

    // Shown to the tenant with the instance, to operators with the device.
    let shown = instances.get_instance(v1::GetInstanceRequest { name: NAME.into() }).await.unwrap().into_inner();
    let given = shown.status.unwrap().devices;
    assert_eq!((given[0].device.as_str(), given[0].mig_profile.as_str()), ("hosts/h1/devices/0000:41:00.0", "2g.20gb"));
    assert_eq!((given[1].pool.as_str(), given[1].atoms.as_slice()), ("pools/nic", ["whole".to_owned()].as_slice()));
    let gpu = seen(&plane, GPU).await.unwrap();
    assert_eq!(
        (gpu.holders[0].instance.as_str(), gpu.holders[0].mig_profiles.as_slice()),
        (NAME, ["2g.20gb".to_owned()].as_slice())
    );
    assert_eq!((gpu.state(), seen(&plane, VF).await.unwrap().state()), (State::Available, State::InUse));
    let held = v1::DeletePoolRequest { name: "pools/nic".into(), ..Default::default() };
    let held = PoolsClient::new(plane.admin()).delete_pool(held).await.unwrap_err();
    assert_eq!(reason(&held), "POOL_IN_USE");
    let spent =
        instances.create_instance(v1::CreateInstanceRequest { instance_id: "more".into(), ..with(&[of("nic")]) }).await;
    assert_eq!(reason(&spent.unwrap_err()), "QUOTA_EXCEEDED");

    // One more, while it runs, and away again: done when the host says so.
    let attach = |wanted: Wanted, count| v1::AttachDeviceRequest {
        name: NAME.into(),
        device: Some(v1::DeviceRequest { count, wanted: Some(wanted), ..Default::default() }),
        ..Default::default()
    };
    let two = instances.attach_device(attach(of("hsm"), 2)).await.unwrap_err();
    assert!(two.message().starts_with("device.count"), "{two}");
    let whole = instances.attach_device(attach(Wanted::Gpu(WholeGpu::default()), 1)).await.unwrap_err();
    assert_eq!(reason(&whole), "DEVICE_NEEDS_STOP", "{whole}");
    let attached = instances.attach_device(attach(of("hsm"), 0)).await.unwrap().into_inner();
    assert_eq!((attached.verb.as_str(), attached.done), ("attach", false));
    let change = talk.change().await;
    let usb = change.upserts[0].devices.last().unwrap();
    assert_eq!((usb.id.as_str(), usb.device.as_str(), usb.detach), ("device-1", USB, false));
    assert!(matches!(usb.piece, Some(Piece::Usb(_))), "{usb:?}");
    runs(&talk, &change.upserts[0], &["gpu-0", "device-0", "device-1"], &[]).await;
    wait(&plane, &attached.name).await;

    let detach = |device_id: &str| v1::DetachDeviceRequest {
        name: NAME.into(),
        device_id: device_id.into(),
        ..Default::default()
    };
    assert_eq!(instances.detach_device(detach("nothing")).await.unwrap_err().code(), Code::InvalidArgument);
    let detached = instances.detach_device(detach("device-1")).await.unwrap().into_inner();
    let change = talk.change().await;
    assert!(change.upserts[0].devices.iter().any(|device| device.id == "device-1" && device.detach));
    assert_eq!(seen(&plane, USB).await.unwrap().state(), State::InUse, "until the host let go of it");
    runs(&talk, &change.upserts[0], &["gpu-0", "device-0"], &["device-1"]).await;
    wait(&plane, &detached.name).await;
    assert_eq!(seen(&plane, USB).await.unwrap().state(), State::Available);
    let shown = instances.get_instance(v1::GetInstanceRequest { name: NAME.into() }).await.unwrap().into_inner();
    assert_eq!((shown.spec.unwrap().devices.len(), shown.status.unwrap().devices.len()), (2, 2));
    assert_eq!(plane.store.consistency().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn an_operator_closes_a_device_and_takes_its_hardware_for_the_right_one() {
    let plane = Plane::new().await;
    let mut talk = fleet(&plane).await;
    let mut devices = DevicesClient::new(plane.admin());
    let name = || format!("hosts/h1/devices/{USB}");
    let close = v1::QuarantineDeviceRequest { name: name(), message: "wobbles".into(), ..Default::default() };
    let closed = devices.quarantine_device(close).await.unwrap().into_inner();
    assert_eq!((closed.state(), closed.reason.as_str()), (State::Quarantined, "OperatorQuarantine"));
    assert_eq!((closed.message.as_str(), closed.quarantined), ("wobbles", true));
    let unknown = v1::ReleaseDeviceRequest { name: "hosts/h1/devices/none".into(), ..Default::default() };
    assert_eq!(devices.release_device(unknown).await.unwrap_err().code(), Code::NotFound);
    let release = v1::ReleaseDeviceRequest { name: name(), ..Default::default() };
    let released = devices.release_device(release).await.unwrap().into_inner();
    assert_eq!((released.state(), released.quarantined), (State::Available, false));
    // Its agent may remember another one there.
    let releases = talk.sync().await.policy.unwrap().releases;
    assert_eq!((releases.len(), releases[0].device.as_str()), (1, USB));
    assert!(releases[0].counter > 0);
    let rows = plane.audit().await;
    for method in ["/QuarantineDevice", "/ReleaseDevice"] {
        assert!(
            rows.iter().any(|row| row.0.ends_with(method) && row.1 == "OK" && row.2 == name()),
            "{method}: {rows:?}"
        );
    }
}

#[tokio::test]
async fn a_layout_is_told_to_the_agent_and_is_settled_when_the_agent_says_so() {
    let plane = Plane::new().await;
    let mut talk = fleet(&plane).await;
    let mut hosts = HostsClient::new(plane.admin());
    let get = || v1::GetHostLayoutRequest { name: "hosts/h1/layout".into() };
    let set = |etag: &str, devices: Vec<v1::DeviceLayout>| v1::SetHostLayoutRequest {
        layout: Some(v1::HostLayout {
            name: "hosts/h1/layout".into(),
            etag: etag.into(),
            devices,
            ..Default::default()
        }),
        ..Default::default()
    };
    let before = hosts.get_host_layout(get()).await.unwrap().into_inner();
    assert_eq!(before.devices, []);
    let mode = |gpu_mode: v1::gpu::Mode| v1::DeviceLayout {
        device: GPU.into(),
        gpu_mode: gpu_mode.into(),
        ..Default::default()
    };
    let functions =
        |virtual_functions| v1::DeviceLayout { device: "0000:42:00.0".into(), virtual_functions, ..Default::default() };
    let wrong =
        hosts.set_host_layout(set("", vec![functions(-1), mode(v1::gpu::Mode::Passthrough)])).await.unwrap_err();
    let fields = wrong.get_details_bad_request().unwrap().field_violations;
    let fields: Vec<_> = fields.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["layout.devices[0].virtual_functions", "layout.devices[1].gpu_mode"]);

    let wanted = vec![mode(v1::gpu::Mode::MigVgpu), functions(4)];
    let layout = hosts.set_host_layout(set(&before.etag, wanted.clone())).await.unwrap().into_inner();
    assert_eq!((&layout.devices, layout.settled), (&wanted, false));
    let stale = hosts.set_host_layout(set(&before.etag, Vec::new())).await.unwrap_err();
    assert_eq!(reason(&stale), "ETAG_MISMATCH");
    let policy = talk.sync().await.policy.unwrap();
    assert_eq!(policy.layout, wanted);

    let told = async |problems: &[&str]| {
        let host = agent::HostObservation {
            layout_generation: policy.layout_generation,
            layout_problems: problems.iter().map(|problem| (*problem).to_owned()).collect(),
            devices: devices(),
            devices_seen: true,
            ..Default::default()
        };
        observe(&talk, agent::Observation { host: Some(host), ..Default::default() }).await;
    };
    let layout = async || HostsClient::new(plane.admin()).get_host_layout(get()).await.unwrap().into_inner();
    told(&["0000:42:00.0: the card makes 2"]).await;
    let problem = eventually(async || Some(layout().await).filter(|layout| !layout.problems.is_empty())).await;
    assert!(!problem.settled && problem.problems[0].contains("the card makes 2"));
    told(&[]).await;
    eventually(async || Some(layout().await).filter(|layout| layout.settled)).await;
}
