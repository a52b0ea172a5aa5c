//! What a guest is given, how it is charged, and that the machine is as before when it has gone.

use croft_proto::v1;
use croft_proto::v1::device::{Kind, State as DeviceState};
use croft_proto::v1::device_request::{Vgpu, Wanted as Piece};
use croft_tests::machine::differences;
use croft_tests::{Fleet, eventually};
use tonic::Code;

use super::shared::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_life_of_a_slice() {
    let fleet = devbox().await;
    let api = &fleet.api;
    let before = fleet.machine("h1").layout();
    let request = || asking("acme", "infer", &[("slice", mig("2g.20gb"))]);
    let denied = api.create_as(request()).await.unwrap_err();
    assert!(denied.message().contains(H100), "denied by default, and says what would grant it: {denied}");
    let resource = format!("gpu_slices/{H100}/2g.20gb");
    api.quota("acme", &resource, 1).await;
    let infer = running(api, "infer", &[("slice", mig("2g.20gb"))]).await;
    let [slice] = &given(&infer)[..] else { panic!("{infer:?}") };
    assert_eq!((slice.id.as_str(), slice.device.as_str()), ("slice", format!("hosts/h1/devices/{GPU}").as_str()));
    assert_eq!((slice.model.as_str(), slice.mig_profile.as_str(), slice.mig_size), (H100, "2g.20gb", 2));
    assert_eq!((slice.vgpu_type.as_str(), slice.function_index), ("H100XM-2-20C", 0));
    let tree = fleet.machine("h1").tree();
    let line = format!("instance profile 14 at {}:2", slice.mig_start);
    assert!(tree.contains(&line), "{line}: {}", differences(&before, &tree));
    assert_eq!(api.used("acme", &resource).await, 1);
    let device = api.device("h1", GPU).await;
    assert_eq!((device.state(), device.holders.len()), (DeviceState::Available, 1), "{device:?}");
    let sorted = |atoms: &[String]| {
        let mut atoms = atoms.to_vec();
        atoms.sort();
        atoms
    };
    let [holder] = &device.holders[..] else { unreachable!() };
    assert_eq!((&holder.instance, sorted(&holder.atoms)), (&infer.name, sorted(&slice.atoms)));
    let line = format!(
        r#"croft_device_info{{host="h1",device="{GPU}",kind="GPU",model="{H100}",uuid="{}",tenant="acme",instance="infer",profile="2g.20gb"#,
        device.gpu.as_ref().expect("a GPU").uuid
    );
    eventually("the metric says who has it", || async {
        let text = fleet.metrics().await;
        if text.contains(&line) { Ok(()) } else { Err(line.clone()) }
    })
    .await;
    let second = asking("acme", "second", &[("slice", mig("2g.20gb"))]);
    let refused = api.create_as(second).await.unwrap_err();
    assert!(refused.message().contains(&resource), "{refused}");
    fleet.consistent().await;

    delete(api, "acme", "infer").await;
    assert_eq!(api.used("acme", &resource).await, 0);
    assert_eq!(api.device("h1", GPU).await.holders, []);
    is_as_before(&fleet, "h1", &before).await;
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_gpu_comes_with_its_companion_and_leaves_a_guest_that_is_off() {
    let fleet = devbox().await;
    let api = &fleet.api;
    let before = fleet.machine("h1").layout();
    api.quota("acme", "gpus", 1).await;
    let model = api.device("h1", DISPLAY).await.gpu.expect("a GPU").model;
    let desk = running(api, "desk", &[("gpu", whole(&model))]).await;
    assert_eq!(given(&desk)[0].device, format!("hosts/h1/devices/{DISPLAY}"));
    let sound = api.device("h1", "0000:61:00.1").await;
    assert_eq!((sound.state(), sound.driver.as_str()), (DeviceState::InUse, "vfio-pci"), "{sound:?}");
    assert_eq!(api.used("acme", &format!("gpus/{model}")).await, 1);
    assert_eq!(api.used("acme", "gpus").await, 1);

    let name = "tenants/acme/instances/desk".to_owned();
    let detach = || v1::DetachDeviceRequest { name: name.clone(), device_id: "gpu".to_owned(), ..Default::default() };
    let refused = api.instances.clone().detach_device(detach()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    assert!(refused.message().contains("stop it first"), "{refused}");
    let attach = v1::AttachDeviceRequest {
        name: name.clone(),
        device: Some(v1::DeviceRequest { wanted: Some(whole("")), ..Default::default() }),
        ..Default::default()
    };
    let refused = api.instances.clone().attach_device(attach).await.unwrap_err();
    assert!(refused.message().contains("stop it first"), "{refused}");
    assert_eq!(given(&api.get("acme", "desk").await.unwrap()).len(), 1, "nothing has begun");

    api.done(&api.stop("acme", "desk").await.unwrap()).await.expect("stopped");
    assert_eq!(api.used("acme", "gpus").await, 1, "held while it is stopped");
    let operation = api.instances.clone().detach_device(detach()).await.unwrap().into_inner();
    api.done(&operation).await.expect("detached");
    assert_eq!(api.used("acme", "gpus").await, 0);
    assert_eq!(given(&api.get("acme", "desk").await.unwrap()), []);
    is_as_before(&fleet, "h1", &before).await;
    api.device_until("h1", DISPLAY, DeviceState::Available).await;
    api.done(&api.start("acme", "desk").await.unwrap()).await.expect("started");
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gpus_behind_switches_come_as_a_partition() {
    let mut fleet = Fleet::start().await;
    fleet.host_with_devices("h1", "h100x8").await;
    let api = &fleet.api;
    let before = fleet.machine("h1").layout();
    api.quota("acme", "gpus", 2).await;
    let mut request = asking("acme", "train", &[("gpu", whole(H100))]);
    request.instance.as_mut().unwrap().spec.as_mut().unwrap().devices[0].count = 2;
    api.done(&api.create_as(request).await.expect("create")).await.expect("created");
    let train = attached(api, "train").await;
    let [one, other] = &given(&train)[..] else { panic!("{train:?}") };
    assert_eq!((one.id.as_str(), other.id.as_str()), ("gpu-0", "gpu-1"));
    assert!(one.fabric_partition >= 0 && one.fabric_partition == other.fabric_partition, "{one:?} {other:?}");
    let active = format!("fabric partition {} active true", one.fabric_partition);
    assert!(fleet.machine("h1").tree().contains(&active), "{active}");
    delete(api, "acme", "train").await;
    is_as_before(&fleet, "h1", &before).await;
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_and_a_dongle_of_pools_come_and_go_while_the_guest_runs() {
    let fleet = devbox().await;
    let api = &fleet.api;
    let before = fleet.machine("h1").layout();
    let keep = |functions| {
        let device = v1::DeviceLayout { device: NIC.to_owned(), virtual_functions: functions, gpu_mode: 0 };
        let devices = if functions > 0 { vec![device] } else { Vec::new() };
        let layout = Some(v1::HostLayout { name: "hosts/h1/layout".to_owned(), devices, ..Default::default() });
        let mut hosts = api.hosts.clone();
        async move { hosts.set_host_layout(v1::SetHostLayoutRequest { layout, ..Default::default() }).await }
    };
    keep(2).await.expect("layout");
    pool(api, "nic-vf", Kind::VirtualFunction, v1::pool::Match { classes: vec!["0200".into()], ..Default::default() })
        .await;
    pool_of(api, "hsm", Kind::Usb, DONGLE).await;
    eventually("two functions", || async {
        let devices = api.devices_of("h1").await;
        let ready = devices.iter().filter(|d| d.kind() == Kind::VirtualFunction && d.state() == DeviceState::Available);
        if ready.count() == 2 { Ok(()) } else { Err(()) }
    })
    .await;
    let edge = running(api, "edge", &[("nic", of_pool("nic-vf"))]).await;
    let function = given(&edge)[0].device.rsplit('/').next().unwrap().to_owned();
    assert_eq!(api.device("h1", &function).await.physical, NIC);
    assert_eq!((given(&edge)[0].pool.as_str(), api.used("acme", "devices/nic-vf").await), ("pools/nic-vf", 1));
    let name = "tenants/acme/instances/edge".to_owned();
    let device = Some(v1::DeviceRequest { id: "hsm".to_owned(), wanted: Some(of_pool("hsm")), ..Default::default() });
    let attach = v1::AttachDeviceRequest { name: name.clone(), device, ..Default::default() };
    let operation = api.instances.clone().attach_device(attach).await.expect("accepted").into_inner();
    api.done(&operation).await.expect("attached");
    assert_eq!(api.device("h1", DONGLE).await.state(), DeviceState::InUse);
    for id in ["nic", "hsm"] {
        let detach = v1::DetachDeviceRequest { name: name.clone(), device_id: id.to_owned(), ..Default::default() };
        let operation = api.instances.clone().detach_device(detach).await.expect("accepted").into_inner();
        api.done(&operation).await.expect("detached");
    }
    assert_eq!(fleet.sim("h1").starts(&uid(&edge)).await, 1, "it ran all the time");
    assert_eq!((api.used("acme", "devices/nic-vf").await, api.used("acme", "devices/hsm").await), (0, 0));
    keep(0).await.expect("layout");
    is_as_before(&fleet, "h1", &before).await;
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_sliced_vgpus_share_a_gpu_until_its_framebuffer_is_promised() {
    let fleet = devbox().await;
    let api = &fleet.api;
    let before = fleet.machine("h1").layout();
    api.quota("acme", "gpu_memory_mib", 1 << 30).await;
    let kind = || Piece::Vgpu(Vgpu { r#type: "H100XM-40C".to_owned() });
    let one = running(api, "one", &[("gpu", kind())]).await;
    let two = running(api, "two", &[("gpu", kind())]).await;
    let functions = (given(&one)[0].function_index, given(&two)[0].function_index);
    assert_eq!(functions, (0, 1), "a function for each");
    let three = api.create_as(asking("acme", "three", &[("gpu", kind())])).await.unwrap_err();
    assert!(three.message().contains("hosts/h1") && three.message().contains(GPU), "{three}");
    let slice = api.create_as(asking("acme", "slice", &[("gpu", mig("1g.10gb"))])).await.unwrap_err();
    assert_eq!(slice.code(), Code::ResourceExhausted, "one GPU has one mode: {slice}");
    assert!(fleet.metrics().await.contains("croft_gpu_framebuffer_used_bytes"));
    delete(api, "acme", "one").await;
    assert_eq!(fleet.sim("h1").starts(&uid(&two)).await, 1, "its neighbour was not disturbed");
    delete(api, "acme", "two").await;
    is_as_before(&fleet, "h1", &before).await;
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_rebuilt_elsewhere_gives_its_slice_back_clean_and_gets_another_one_there() {
    let mut fleet = devbox().await;
    let before = fleet.machine("h1").layout();
    let resource = format!("gpu_slices/{H100}/2g.20gb");
    fleet.api.quota("acme", &resource, 1).await;
    let infer = running(&fleet.api, "infer", &[("slice", mig("2g.20gb"))]).await;
    assert_eq!(given(&infer)[0].device, format!("hosts/h1/devices/{GPU}"));
    let refused = fleet.api.rebuild("acme", "infer", true).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "no other host: {refused}");

    // The quota that it holds itself is no obstacle.
    fleet.host_with_devices("h2", "devbox").await;
    fleet.api.device_until("h2", GPU, DeviceState::Available).await;
    let api = &fleet.api;
    api.done(&api.rebuild("acme", "infer", true).await.unwrap()).await.expect("rebuilt");
    let moved = attached(api, "infer").await;
    assert_eq!(given(&moved)[0].device, format!("hosts/h2/devices/{GPU}"));
    assert_eq!(api.used("acme", &resource).await, 1);
    assert_eq!(api.device("h1", GPU).await.holders, []);
    is_as_before(&fleet, "h1", &before).await;
    delete(api, "acme", "infer").await;
    assert_eq!(api.used("acme", &resource).await, 0);
    fleet.consistent().await;
    fleet.end().await;
}
