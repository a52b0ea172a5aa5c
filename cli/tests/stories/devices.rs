//! Devices on the command line: what is asked for arrives as it was meant, and what was given is shown.

use crate::support::{Say, Stage};
use croft_proto::v1::{
    self,
    device_request::{MigSlice, PoolDevice, Vgpu, Wanted, WholeGpu},
};
use tonic::Status;

fn operation() -> v1::Operation {
    let (name, target) = ("operations/o1".into(), "tenants/acme/instances/web".into());
    v1::Operation { name, target, verb: "attach".into(), done: true, ..v1::Operation::default() }
}

fn gpu(id: &str, atoms: &[&str]) -> v1::Device {
    let profile = v1::MigProfile {
        name: "2g.20gb".into(),
        memory_slices: 2,
        starts: vec![0, 2, 4],
        compute_slices: 2,
        memory_mib: 20_096,
        max_count: 3,
    };
    let facts = v1::Gpu {
        model: "h100_sxm_80gb".into(),
        product_name: "NVIDIA H100 80GB HBM3".into(),
        memory_mib: 81_920,
        mode: v1::gpu::Mode::MigVgpu.into(),
        mig_capable: true,
        memory_slices: 8,
        compute_slices: 7,
        mig_profiles: vec![profile],
        ..v1::Gpu::default()
    };
    let holder = v1::Holder {
        instance: "tenants/acme/instances/train".into(),
        atoms: atoms.iter().map(|atom| (*atom).to_owned()).collect(),
        mig_profiles: vec!["2g.20gb".into()],
        vgpu_types: Vec::new(),
    };
    v1::Device {
        name: format!("hosts/h1/devices/{id}"),
        kind: v1::device::Kind::Gpu.into(),
        state: v1::device::State::Available.into(),
        id: "10de:2330".into(),
        gpu: Some(facts),
        holders: if atoms.is_empty() { Vec::new() } else { vec![holder] },
        ..v1::Device::default()
    }
}

fn nic() -> v1::Device {
    v1::Device {
        name: "hosts/h1/devices/0000:42:00.0".into(),
        kind: v1::device::Kind::Function.into(),
        id: "8086:1572".into(),
        functions_total: 64,
        ..v1::Device::default()
    }
}

fn devices(devices: Vec<v1::Device>) -> Say {
    Say::one(v1::ListDevicesResponse { devices, next_page_token: String::new() })
}

fn pool(kind: v1::device::Kind) -> Say {
    let matches = v1::pool::Match { kind: kind.into(), ids: vec!["8086:10ca".into()], ..Default::default() };
    Say::one(v1::Pool { name: "pools/p".into(), r#match: Some(matches), ..v1::Pool::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_asked_for_is_sent() {
    let stage = Stage::new().await;
    stage.fake.say("get_image", Say::No(Status::not_found("none")));
    stage.fake.say("get_pool", pool(v1::device::Kind::Usb)).say("create_instance", Say::one(operation()));
    let create = "instance create web --image i --vcpus 1 --memory 512 --gpu 2 --gpu mig=2g.20gb:3 \
                  --gpu vgpu=H100XM-2-20C --device pool=nic-vf --usb pool=hsm";
    stage.run(&create.split_whitespace().collect::<Vec<_>>()).await.ok();
    let asked: Vec<v1::CreateInstanceRequest> = stage.fake.asked("create_instance");
    let sent = &asked[0].instance.as_ref().unwrap().spec.as_ref().unwrap().devices;
    let of = |pool: &str| Wanted::Pool(PoolDevice { pool: format!("pools/{pool}") });
    let wanted = [
        (2, Wanted::Gpu(WholeGpu::default())),
        (3, Wanted::Mig(MigSlice { profile: "2g.20gb".into(), model: String::new() })),
        (1, Wanted::Vgpu(Vgpu { r#type: "H100XM-2-20C".into() })),
        (1, of("nic-vf")),
        (1, of("hsm")),
    ];
    let wanted = wanted.map(|(count, wanted)| v1::DeviceRequest { id: String::new(), count, wanted: Some(wanted) });
    assert_eq!(sent.as_slice(), wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn usb_means_usb() {
    let stage = Stage::new().await;
    stage.fake.say("get_pool", pool(v1::device::Kind::VirtualFunction));
    let ran = stage.run(&["instance", "attach", "web", "--usb", "pool=p"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("pools/p is a pool of kind virtual-function"), "{ran:?}");
    assert_eq!(stage.fake.asked::<v1::AttachDeviceRequest>("attach_device"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_device_comes_and_goes() {
    let stage = Stage::new().await;
    stage.fake.say("attach_device", Say::one(operation())).say("detach_device", Say::one(operation()));
    let said = stage.run(&["instance", "attach", "web", "--device", "pool=nic-vf", "--id", "storage"]).await.ok();
    assert_eq!(said, "tenants/acme/instances/web attach: done (operation o1)\n");
    let asked: Vec<v1::AttachDeviceRequest> = stage.fake.asked("attach_device");
    assert_eq!(asked[0].device.as_ref().unwrap().id, "storage");
    assert!(!asked[0].request_id.is_empty());
    stage.run(&["instance", "detach", "web", "storage"]).await.ok();
    let asked: Vec<v1::DetachDeviceRequest> = stage.fake.asked("detach_device");
    assert_eq!((asked[0].name.as_str(), asked[0].device_id.as_str()), ("tenants/acme/instances/web", "storage"));
    for none_or_two in [&["instance", "attach", "web"][..], &["instance", "attach", "web", "--gpu", "1", "--gpu", "1"]]
    {
        assert_eq!(stage.run(none_or_two).await.code, Some(2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_stands_below_the_instance_and_in_wide_rows() {
    let stage = Stage::new().await;
    let given = v1::DeviceAssignment {
        id: "gpu-0".into(),
        device: "hosts/h1/devices/0000:41:00.0".into(),
        model: "h100_sxm_80gb".into(),
        mig_profile: "2g.20gb".into(),
        mig_start: 2,
        mig_size: 2,
        vgpu_type: "H100XM-2-20C".into(),
        function_index: 5,
        fabric_partition: -1,
        ..Default::default()
    };
    let status = v1::InstanceStatus { devices: vec![given], ..v1::InstanceStatus::default() };
    let web = v1::Instance { name: "tenants/acme/instances/web".into(), status: Some(status), ..Default::default() };
    stage.fake.say("get_instance", Say::one(web));
    let said = stage.run(&["instance", "get", "web"]).await.ok();
    let line = "  gpu-0: h1/0000:41:00.0, 2g.20gb of h100_sxm_80gb as H100XM-2-20C, slices 2-3, function 5\n";
    assert!(said.ends_with(line), "{said}");
    let wide = stage.run(&["instance", "get", "web", "-o", "wide"]).await.ok();
    assert!(wide.lines().next().unwrap().contains(" DEVICES "), "{wide}");
    assert!(wide.lines().nth(1).unwrap().contains(" H100XM-2-20C "), "{wide}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gpus_say_what_is_taken_and_where_there_is_room() {
    let stage = Stage::new().await;
    let held = gpu("0000:41:00.0", &["m2", "m3", "c0", "c1", "vf0"]);
    stage
        .fake
        .say("list_devices", devices(vec![held.clone(), gpu("0000:43:00.0", &[])]))
        .say("get_device", Say::one(held));
    let said = stage.run(&["gpu", "list"]).await.ok();
    assert_eq!(
        said,
        "HOST   DEVICE         MODEL           MEMORY   MODE       STATE       TAKEN        HELD BY\n\
         h1     0000:41:00.0   h100_sxm_80gb   80GiB    mig-vgpu   AVAILABLE   2/8 slices   acme/train\n\
         h1     0000:43:00.0   h100_sxm_80gb   80GiB    mig-vgpu   AVAILABLE   -            -\n"
    );
    let asked: Vec<v1::ListDevicesRequest> = stage.fake.asked("list_devices");
    assert_eq!((asked[0].parent.as_str(), asked[0].kinds.as_slice()), ("hosts/-", [1].as_slice()));
    let shown = stage.run(&["gpu", "show", "h1/0000:41:00.0"]).await.ok();
    assert!(shown.contains("  held by tenants/acme/instances/train: 2g.20gb (m2-3 c0-1 vf0)\n"), "{shown}");
    let profile = shown.lines().find(|line| line.starts_with("2g.20gb")).unwrap();
    assert!(profile.ends_with("   0 4"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_piece_could_be_had_is_asked_by_the_smallest_vm() {
    let stage = Stage::new().await;
    let image = v1::Image { name: "images/debian".into(), ..v1::Image::default() };
    let images = v1::ListImagesResponse { images: vec![image], ..Default::default() };
    let verdict = v1::explain_instance_response::HostVerdict {
        host: "hosts/h1".into(),
        predicate: "MigGeometry".into(),
        message: "no place is left for 2g.20gb".into(),
        fix: "wait for one, or add a host".into(),
        ..Default::default()
    };
    let answer =
        v1::ExplainInstanceResponse { summary: "it would be refused: no host fits".into(), hosts: vec![verdict] };
    stage.fake.say("list_images", Say::one(images)).say("explain_instance", Say::one(answer));
    let said = stage.run(&["gpu", "explain", "mig=h100_sxm_80gb/2g.20gb"]).await.ok();
    assert!(said.starts_with("it would be refused") && said.contains("MigGeometry"), "{said}");
    let asked: Vec<v1::ExplainInstanceRequest> = stage.fake.asked("explain_instance");
    let create = asked[0].create.as_ref().unwrap();
    let spec = create.instance.as_ref().unwrap().spec.as_ref().unwrap();
    assert_eq!((create.parent.as_str(), spec.devices.len()), ("tenants/acme", 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_defined_shown_and_changed_as_a_whole() {
    let stage = Stage::new().await;
    stage.fake.say("create_pool", pool(v1::device::Kind::VirtualFunction));
    stage.fake.say("get_pool", pool(v1::device::Kind::VirtualFunction));
    stage.fake.say("update_pool", pool(v1::device::Kind::VirtualFunction));
    let create = "pool create nic-vf --kind virtual-function --match-id 8086:10ca --match-device h1/0000:42:10.0";
    stage.run(&create.split_whitespace().collect::<Vec<_>>()).await.ok();
    let asked: Vec<v1::CreatePoolRequest> = stage.fake.asked("create_pool");
    let matches = asked[0].pool.as_ref().unwrap().r#match.as_ref().unwrap();
    assert_eq!((asked[0].pool_id.as_str(), matches.kind()), ("nic-vf", v1::device::Kind::VirtualFunction));
    assert_eq!(matches.devices, ["hosts/h1/devices/0000:42:10.0"]);
    let said = stage.run(&["pool", "show", "nic-vf"]).await.ok();
    assert!(said.contains("p      virtual-function   id 8086:10ca"), "{said}");
    stage.run(&["pool", "update", "nic-vf", "--match-id", "8086:1889"]).await.ok();
    let asked: Vec<v1::UpdatePoolRequest> = stage.fake.asked("update_pool");
    assert_eq!(asked[0].update_mask.as_ref().unwrap().paths, ["match"]);
    let matches = asked[0].pool.as_ref().unwrap().r#match.as_ref().unwrap();
    assert_eq!(
        (matches.kind(), matches.ids.as_slice()),
        (v1::device::Kind::VirtualFunction, ["8086:1889".to_owned()].as_slice())
    );
    stage.run(&["pool", "create", "gpu-h100", "--match", "kind=gpu,id=10de:2330"]).await.ok();
    let asked: Vec<v1::CreatePoolRequest> = stage.fake.asked("create_pool");
    let matches = asked[1].pool.as_ref().unwrap().r#match.as_ref().unwrap();
    assert_eq!((matches.kind(), matches.ids.as_slice()), (v1::device::Kind::Gpu, ["10de:2330".to_owned()].as_slice()));
    let nothing = stage.run(&["pool", "create", "all", "--match-id", "1:1"]).await;
    assert!(nothing.code == Some(2) && nothing.err.contains("--kind gpu, function"), "{nothing:?}");
    let nothing = stage.run(&["pool", "create", "all", "--kind", "usb"]).await;
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_closed_and_released() {
    let stage = Stage::new().await;
    stage.fake.say("quarantine_device", Say::one(nic())).say("release_device", Say::one(nic()));
    let close = ["device", "quarantine", "h1/0000:42:00.0", "--message", "fan is loud"];
    assert_eq!(stage.run(&close).await.ok(), "hosts/h1/devices/0000:42:00.0 quarantined\n");
    let asked: Vec<v1::QuarantineDeviceRequest> = stage.fake.asked("quarantine_device");
    assert_eq!((asked[0].name.as_str(), asked[0].message.as_str()), ("hosts/h1/devices/0000:42:00.0", "fan is loud"));
    assert_eq!(
        stage.run(&["device", "release", "h1/0000:42:00.0"]).await.ok(),
        "hosts/h1/devices/0000:42:00.0 released\n"
    );
    assert_eq!(stage.run(&["device", "release", "0000:42:00.0"]).await.code, Some(2), "of which host?");
}

const LAYOUTS: &str = "
version: v1
layouts:
  mixed:
  - device-filter: [h100_sxm_80gb]
    devices: [0]
    gpu-mode: mig-vgpu
  - device-filter: ['8086:1572']
    virtual-functions: 8
";

fn layout(settled: bool, problems: &[&str]) -> v1::HostLayout {
    let mode = v1::gpu::Mode::MigVgpu.into();
    v1::HostLayout {
        name: "hosts/h1/layout".into(),
        etag: "l2".into(),
        devices: vec![
            v1::DeviceLayout { device: "0000:41:00.0".into(), virtual_functions: 0, gpu_mode: mode },
            v1::DeviceLayout { device: "0000:42:00.0".into(), virtual_functions: 8, gpu_mode: 0 },
        ],
        settled,
        problems: problems.iter().map(|problem| (*problem).to_owned()).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_is_applied_exported_and_asserted() {
    let stage = Stage::new().await;
    let file = stage.write("layouts.yaml", LAYOUTS);
    let empty = v1::HostLayout { devices: Vec::new(), etag: "l1".into(), ..layout(true, &[]) };
    stage.fake.say("list_devices", devices(vec![gpu("0000:43:00.0", &[]), gpu("0000:41:00.0", &[]), nic()]));
    stage.fake.say("get_host_layout", Say::one(empty)).say("set_host_layout", Say::one(layout(false, &[])));
    stage.fake.say("get_host_layout", Say::one(layout(false, &[]))).say("get_host_layout", Say::one(layout(true, &[])));
    let apply = ["host", "layout", "apply", "h1", "-f", &file, "--wait"];
    assert_eq!(stage.run(&apply).await.ok(), "hosts/h1/layout set\n");
    let asked: Vec<v1::SetHostLayoutRequest> = stage.fake.asked("set_host_layout");
    let sent = asked[0].layout.as_ref().unwrap();
    assert_eq!((sent.etag.as_str(), &sent.devices), ("l1", &layout(true, &[]).devices));

    // What is set already is not set again.
    assert_eq!(stage.run(&apply).await.ok(), "hosts/h1/layout unchanged\n");
    assert_eq!(stage.fake.asked::<v1::SetHostLayoutRequest>("set_host_layout").len(), 1);
    let exported = stage.run(&["host", "layout", "export", "h1", "--as", "of-h1"]).await.ok();
    let again = stage.write("exported.yaml", &exported);
    let assert = ["host", "layout", "assert", "h1", "-f", &again];
    assert_eq!(stage.run(&assert).await.ok(), "hosts/h1/layout is as the file says\n", "{exported}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assertion_that_fails_says_what_differs() {
    let stage = Stage::new().await;
    let file = stage.write("layouts.yaml", LAYOUTS);
    stage.fake.say("list_devices", devices(vec![gpu("0000:41:00.0", &[]), nic()]));
    let mut other = layout(true, &[]);
    other.devices[1].virtual_functions = 2;
    stage.fake.say("get_host_layout", Say::one(other));
    stage.fake.say("get_host_layout", Say::one(layout(false, &["0000:42:00.0: the card makes 4"])));
    let assert = ["host", "layout", "assert", "h1", "-f", &file];
    let differs = stage.run(&assert).await;
    assert_eq!(differs.code, Some(1), "{differs:?}");
    assert!(
        differs.err.contains("h1: 0000:42:00.0: 2 virtual functions; the file says 8 virtual functions"),
        "{differs:?}"
    );
    let unsettled = stage.run(&assert).await;
    assert_eq!(unsettled.code, Some(1), "{unsettled:?}");
    assert!(unsettled.err.contains("h1: 0000:42:00.0: the card makes 4"), "{unsettled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_what_nobody_knows_is_set_and_doubted() {
    let stage = Stage::new().await;
    let quota = |resource: &str| v1::Quota {
        name: format!("tenants/acme/quotas/{resource}"),
        limit: Some(1),
        ..Default::default()
    };
    stage
        .fake
        .say("set_quota", Say::one(quota("gpus/h200")))
        .say("list_devices", devices(vec![gpu("0000:41:00.0", &[])]));
    let ran = stage.run(&["quota", "set", "gpus/h200=1"]).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.err, "note: no host has a h200; there are h100_sxm_80gb\n");
    let stage = Stage::new().await;
    stage.fake.say("set_quota", Say::one(quota("devices/nic"))).say("get_pool", Say::No(Status::not_found("no")));
    stage.fake.say("list_pools", pool_list());
    assert_eq!(
        stage.run(&["quota", "set", "devices/nic=1"]).await.err,
        "note: there is no pool nic; there are nic-vf\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instance_in_the_documentation_can_be_applied_twice() {
    let page = include_str!("../../../docs/devices.md");
    let example = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let stage = Stage::new().await;
    stage.fake.say("get_instance", Say::No(Status::not_found("none"))).say("create_instance", Say::one(operation()));
    let said = stage.run_with(stage.command(&["apply", "-f", "-"]), example.as_bytes()).await.ok();
    assert_eq!(said, "tenants/acme/instances/infer created\n");

    // As the plane keeps it.
    let asked: Vec<v1::CreateInstanceRequest> = stage.fake.asked("create_instance");
    let mut live = asked[0].instance.clone().unwrap();
    let devices = &mut live.spec.as_mut().unwrap().devices;
    let nic = devices.pop().unwrap();
    assert_eq!((devices.len(), nic.count), (1, 2));
    devices[0].count = 1;
    devices.extend((0..2).map(|n| v1::DeviceRequest { id: format!("nic-{n}"), count: 1, ..nic.clone() }));
    let stage = Stage::new().await;
    stage.fake.say("get_instance", Say::one(live));
    let said = stage.run_with(stage.command(&["apply", "-f", "-"]), example.as_bytes()).await.ok();
    assert_eq!(said, "tenants/acme/instances/infer unchanged\n");
}

fn pool_list() -> Say {
    let pool = v1::Pool { name: "pools/nic-vf".into(), ..v1::Pool::default() };
    Say::one(v1::ListPoolsResponse { pools: vec![pool], next_page_token: String::new() })
}
