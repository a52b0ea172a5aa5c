//! Agents that die, hosts that reboot or are fenced, cards that are swapped, steps that never return.

use std::time::Duration;

use croft_gpu_sim::faults::Fault;
use croft_proto::v1;
use croft_proto::v1::device::{Kind, State as DeviceState};
use croft_proto::v1::host;
use croft_tests::eventually;
use croft_tests::machine::differences;
use tonic::Code;

use super::shared::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_restart_touches_nothing_and_a_reboot_is_replayed() {
    let mut fleet = devbox().await;
    fleet.api.quota("acme", "gpu_memory_mib", 1 << 30).await;
    pool_of(&fleet.api, "drive", Kind::Function, NVME).await;
    pool_of(&fleet.api, "hsm", Kind::Usb, DONGLE).await;
    let pieces = [("slice", mig("3g.40gb")), ("drive", of_pool("drive")), ("hsm", of_pool("hsm"))];
    let web = running(&fleet.api, "web", &pieces).await;
    let (tree, layout) = (fleet.machine("h1").tree(), fleet.machine("h1").layout());
    fleet.agent_kill("h1").await;
    fleet.agent_start("h1").await;
    let again = attached(&fleet.api, "web").await;
    assert_eq!((given(&again), fleet.sim("h1").starts(&uid(&web)).await), (given(&web), 1));
    assert!(fleet.machine("h1").tree() == tree, "{}", differences(&tree, &fleet.machine("h1").tree()));

    fleet.agent_kill("h1").await;
    fleet.sim("h1").host_reboot().await;
    assert_ne!(fleet.machine("h1").layout(), layout, "a reboot costs nothing");
    fleet.agent_start("h1").await;
    eventually("it runs again", || async {
        let starts = fleet.sim("h1").starts(&uid(&web)).await;
        if starts == 2 { Ok(()) } else { Err(starts) }
    })
    .await;
    let again = attached(&fleet.api, "web").await;
    assert_eq!(given(&again), given(&web), "the same pieces");
    is_as_before(&fleet, "h1", &layout).await;
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_hosts_slice_is_placed_anew_and_its_old_one_goes_home() {
    let mut fleet = devbox().await;
    let before = fleet.machine("h1").layout();
    fleet.api.quota("acme", &format!("gpu_slices/{H100}/2g.20gb"), 1).await;
    running(&fleet.api, "web", &[("slice", mig("2g.20gb"))]).await;
    fleet.agent_kill("h1").await;
    fleet.host_with_devices("h2", "devbox").await;
    fleet.api.device_until("h2", GPU, DeviceState::Available).await;
    let fence = v1::FenceHostRequest { name: "hosts/h1".to_owned(), confirm_powered_off: true, ..Default::default() };
    fleet.api.hosts.clone().fence_host(fence).await.unwrap();
    eventually("it is on h2", || async {
        let home = fleet.home_of("acme", "web").await;
        if home == "h2" { Ok(()) } else { Err(home) }
    })
    .await;
    let web = attached(&fleet.api, "web").await;
    assert_eq!(given(&web)[0].device, format!("hosts/h2/devices/{GPU}"));
    assert_eq!(fleet.api.used("acme", &format!("gpu_slices/{H100}/2g.20gb")).await, 1, "charged once");
    assert_eq!(fleet.api.device("h1", GPU).await.holders, []);
    fleet.consistent().await;

    // The machine was not off after all.
    fleet.agent_start("h1").await;
    fleet.api.host_until("h1", host::State::Ready).await;
    assert!(fleet.sim("h1").is_empty().await);
    is_as_before(&fleet, "h1", &before).await;
    fleet.api.device_until("h1", GPU, DeviceState::Available).await;
    assert_eq!(fleet.sim("h2").starts(&uid(&web)).await, 1);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swapped_card_runs_nothing_until_somebody_accepts_it() {
    let mut fleet = devbox().await;
    fleet.api.quota("acme", "gpus", 2).await;
    let web = running(&fleet.api, "web", &[("gpu", whole(H100))]).await;
    fleet.agent_kill("h1").await;
    fleet.machine("h1").host.change(|hardware| hardware.slots[0].serial += 1000).expect("swapped");
    fleet.sim("h1").host_reboot().await;
    fleet.agent_start("h1").await;
    let device = fleet.api.device_until("h1", GPU, DeviceState::Changed).await;
    assert!(device.message.contains("another card is in its slot"), "{device:?}");
    condition_is(&fleet.api, "web", v1::condition::Status::False, "DeviceChanged").await;
    assert!(!fleet.sim("h1").is_running(&uid(&web)).await);
    let refused = fleet.api.create_as(asking("acme", "more", &[("gpu", whole(H100))])).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");

    let name = format!("hosts/h1/devices/{GPU}");
    let release = v1::ReleaseDeviceRequest { name, ..Default::default() };
    fleet.api.devices.clone().release_device(release).await.expect("accepted");
    eventually("it is right now", || async {
        let device = fleet.api.device("h1", GPU).await;
        if device.state() == DeviceState::Changed { Err(device.message) } else { Ok(()) }
    })
    .await;
    // What was promised was the old one: its owner lets go of that and takes the new one, and keeps his disk.
    condition_is(&fleet.api, "web", v1::condition::Status::False, "DeviceChanged").await;
    let api = &fleet.api;
    api.done(&api.stop("acme", "web").await.expect("accepted")).await.expect("stopped");
    let name = "tenants/acme/instances/web".to_owned();
    let detach = v1::DetachDeviceRequest { name: name.clone(), device_id: "gpu".to_owned(), ..Default::default() };
    let operation = api.instances.clone().detach_device(detach).await.expect("accepted").into_inner();
    api.done(&operation).await.expect("detached");
    let device = Some(v1::DeviceRequest { id: "gpu".to_owned(), wanted: Some(whole(H100)), ..Default::default() });
    let attach = v1::AttachDeviceRequest { name, device, ..Default::default() };
    let operation = api.instances.clone().attach_device(attach).await.expect("accepted").into_inner();
    api.done(&operation).await.expect("attached");
    api.done(&api.start("acme", "web").await.expect("accepted")).await.expect("started");
    let web = attached(api, "web").await;
    assert!(fleet.sim("h1").is_running(&uid(&web)).await);
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_never_returns_leaves_a_stuck_device_and_neighbours_that_go_on() {
    let mut fleet = devbox().await;
    pool_of(&fleet.api, "drive", Kind::Function, NVME).await;
    pool_of(&fleet.api, "hsm", Kind::Usb, DONGLE).await;
    let neighbour = running(&fleet.api, "neighbour", &[("hsm", of_pool("hsm"))]).await;
    fleet.agent_kill("h1").await;
    let machine = fleet.machine_mut("h1");
    (machine.longest_step, machine.unkillable) = (Some(Duration::from_secs(1)), true);
    fleet.agent_start("h1").await;
    attached(&fleet.api, "neighbour").await;
    fleet.machine("h1").faults(&[Fault::hang("write /sys/bus/pci/drivers_probe")]);
    fleet.api.create_as(asking("acme", "web", &[("drive", of_pool("drive"))])).await.expect("accepted");
    let web = condition_is(&fleet.api, "web", v1::condition::Status::False, "DeviceStuck").await;
    let conditions = web.status.as_ref().unwrap().conditions.clone();
    let message = &conditions.iter().find(|one| one.r#type == "DevicesAttached").unwrap().message;
    assert!(message.contains("reboot the host"), "{message}");
    fleet.api.device_until("h1", NVME, DeviceState::Stuck).await;
    let pid: i32 = message.split_whitespace().nth(1).and_then(|pid| pid.parse().ok()).expect("a pid");

    // The agent can be killed and comes back; the others live on.
    fleet.agent_kill("h1").await;
    fleet.agent_start("h1").await;
    fleet.api.running("acme", "other").await;
    attached(&fleet.api, "neighbour").await;
    assert_eq!(fleet.sim("h1").starts(&uid(&neighbour)).await, 1);
    fleet.api.device_until("h1", NVME, DeviceState::Stuck).await;
    delete(&fleet.api, "acme", "web").await;
    let refused = fleet.api.create_as(asking("acme", "next", &[("drive", of_pool("drive"))])).await.unwrap_err();
    assert!(refused.message().contains(NVME), "{refused}");
    fleet.consistent().await;

    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    fleet.agent_kill("h1").await;
    fleet.machine("h1").faults(&[]);
    fleet.sim("h1").host_reboot().await;
    fleet.agent_start("h1").await;
    fleet.api.device_until("h1", NVME, DeviceState::Available).await;
    running(&fleet.api, "next", &[("drive", of_pool("drive"))]).await;
    fleet.end().await;
}
