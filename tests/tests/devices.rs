//! Devices through the whole fleet: asked for, charged, carved on a simulated machine, given to a guest, and taken home again.

use std::collections::BTreeMap;
use std::time::Duration;

use croft_gpu_sim::faults::Fault;
use croft_proto::v1;
use croft_proto::v1::device::{Kind, State as DeviceState};
use croft_proto::v1::device_request::{MigSlice, PoolDevice, Vgpu, Wanted as Piece, WholeGpu};
use croft_proto::v1::host;
use croft_proto::v1::instance_status::State;
use croft_tests::machine::differences;
use croft_tests::{Api, Fleet, Wanted, eventually};
use tonic::{Code, Status};

// Of a `devbox`.
const GPU: &str = "0000:41:00.0";
const DISPLAY: &str = "0000:61:00.0";
const NIC: &str = "0000:81:00.0";
const NVME: &str = "0000:a1:00.0";
const DONGLE: &str = "usb-0000:00:14.0-1";
const H100: &str = "h100_sxm_80gb";

async fn devbox() -> Fleet {
    let mut fleet = Fleet::start().await;
    fleet.host_with_devices("h1", "devbox").await;
    fleet.api.device_until("h1", GPU, DeviceState::Available).await;
    fleet
}

fn mig(profile: &str) -> Piece {
    Piece::Mig(MigSlice { profile: profile.to_owned(), model: String::new() })
}

fn whole(model: &str) -> Piece {
    Piece::Gpu(WholeGpu { model: model.to_owned() })
}

fn of_pool(pool: &str) -> Piece {
    Piece::Pool(PoolDevice { pool: format!("pools/{pool}") })
}

fn asking(tenant: &str, id: &str, pieces: &[(&str, Piece)]) -> v1::CreateInstanceRequest {
    let devices = pieces.iter().map(|(id, piece)| v1::DeviceRequest {
        id: (*id).to_owned(),
        wanted: Some(piece.clone()),
        ..Default::default()
    });
    Wanted { devices: devices.collect(), ..Wanted::default() }.request(tenant, id)
}

/// Until it runs with its devices, as its host says.
async fn running(api: &Api, id: &str, pieces: &[(&str, Piece)]) -> v1::Instance {
    let operation = api.create_as(asking("acme", id, pieces)).await.expect("create");
    api.done(&operation).await.expect("created");
    attached(api, id).await
}

async fn attached(api: &Api, id: &str) -> v1::Instance {
    condition_is(api, id, v1::condition::Status::True, "DevicesAttached").await
}

async fn condition_is(api: &Api, id: &str, wanted: v1::condition::Status, reason: &str) -> v1::Instance {
    eventually(&format!("{id}: DevicesAttached is {wanted:?}: {reason}"), || async {
        let instance = api.get("acme", id).await.map_err(|error| error.to_string())?;
        let status = instance.status.clone().unwrap_or_default();
        let condition = status.conditions.iter().find(|condition| condition.r#type == "DevicesAttached");
        let runs = wanted != v1::condition::Status::True || status.state() == State::Running;
        match condition {
            Some(condition) if runs && (condition.status(), condition.reason.as_str()) == (wanted, reason) => {
                Ok(instance)
            }
            _ => Err(format!("{status:?}")),
        }
    })
    .await
}

fn given(instance: &v1::Instance) -> Vec<v1::DeviceAssignment> {
    instance.status.clone().unwrap_or_default().devices
}

fn uid(instance: &v1::Instance) -> String {
    instance.metadata.clone().unwrap_or_default().uid
}

async fn delete(api: &Api, tenant: &str, id: &str) {
    api.done(&api.delete(tenant, id).await.expect("accepted")).await.expect("deleted");
}

/// The mode of a GPU that nobody has a slice of any more goes home beside, or at the next look.
async fn is_as_before(fleet: &Fleet, host: &str, before: &str) {
    eventually(&format!("{host} is as it was"), || async {
        let now = fleet.machine(host).layout();
        if now == before { Ok(()) } else { Err(differences(before, &now)) }
    })
    .await;
}

async fn pool(api: &Api, id: &str, kind: Kind, matches: v1::pool::Match) {
    let matches = v1::pool::Match { kind: kind.into(), ..matches };
    let pool = v1::Pool { r#match: Some(matches), ..Default::default() };
    let request = v1::CreatePoolRequest { pool_id: id.to_owned(), pool: Some(pool), ..Default::default() };
    api.pools.clone().create_pool(request).await.expect("pool");
    api.quota("acme", &format!("devices/{id}"), 4).await;
}

/// A pool of this one device of `h1`.
async fn pool_of(api: &Api, id: &str, kind: Kind, device: &str) {
    let devices = vec![format!("hosts/h1/devices/{device}")];
    pool(api, id, kind, v1::pool::Match { devices, ..Default::default() }).await;
}

/// Every word that says why, of all who were refused.
fn refusal(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

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
        r#"croft_device_info{{host="h1",device="{GPU}",kind="GPU",model="{H100}",tenant="acme",instance="infer",profile="2g.20gb"#
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
async fn two_tenants_ask_for_the_last_slice() {
    let fleet = devbox().await;
    let api = &fleet.api;
    api.tenant("zeta", None).await;
    for tenant in ["acme", "zeta"] {
        api.quota(tenant, "gpu_memory_mib", 1 << 30).await;
    }
    let other = fleet.another_client();
    let ask = |tenant: &'static str| asking(tenant, "last", &[("slice", mig("4g.40gb"))]);
    let (mine, theirs) = tokio::join!(api.create_as(ask("acme")), other.create_as(ask("zeta")));
    let (winner, loser) = match (mine, theirs) {
        (Ok(operation), Err(status)) | (Err(status), Ok(operation)) => (operation, status),
        both => panic!("exactly one: {both:?}"),
    };
    assert_eq!(loser.code(), Code::ResourceExhausted, "{loser}");
    assert!(loser.message().contains("4g.40gb") && loser.message().contains(GPU), "it says why: {loser}");
    api.done(&winner).await.expect("runs");
    let holders = api.device("h1", GPU).await.holders;
    assert_eq!(holders.len(), 1, "{holders:?}");
    assert_eq!(holders[0].instance, winner.target);
    fleet.consistent().await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_clients_ask_for_thirty_two_slices_of_two_gpus() {
    let mut fleet = devbox().await;
    fleet.host_with_devices("h2", "devbox").await;
    fleet.api.device_until("h2", GPU, DeviceState::Available).await;
    let before = [fleet.machine("h1").layout(), fleet.machine("h2").layout()];
    fleet.api.quota("acme", "gpu_memory_mib", 1 << 30).await;
    let clients = (0..8).map(|client| {
        let api = fleet.another_client();
        async move {
            let mut answers = Vec::new();
            for n in 0..4 {
                let id = format!("i{client}-{n}");
                let profile = if n % 2 == 0 { "2g.20gb" } else { "1g.10gb" };
                let answer = api.create_as(asking("acme", &id, &[("slice", mig(profile))])).await;
                answers.push((id, answer));
            }
            answers
        }
    });
    let answers: Vec<_> = futures::future::join_all(clients).await.into_iter().flatten().collect();
    let mut owners = BTreeMap::new();
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for (id, answer) in answers {
        match answer {
            Ok(operation) => accepted.push((id, operation)),
            Err(status) => {
                assert_eq!(status.code(), Code::ResourceExhausted, "{id}: {}", refusal(&status));
                refused += 1;
            }
        }
    }
    for (id, operation) in &accepted {
        fleet.api.done(operation).await.expect("it runs");
        for assignment in given(&fleet.api.get("acme", id).await.unwrap()) {
            for atom in &assignment.atoms {
                let other = owners.insert((assignment.device.clone(), atom.clone()), id.clone());
                assert_eq!(other, None, "{atom} of {} has two owners, {id} too", assignment.device);
            }
        }
    }
    assert!(accepted.len() >= 8 && refused >= 8, "{} and {refused}", accepted.len());
    fleet.consistent().await;
    let compute = |host: &str| {
        let device = format!("hosts/{host}/devices/{GPU}");
        owners.keys().filter(|(of, atom)| *of == device && atom.starts_with('c')).count()
    };
    for host in ["h1", "h2"] {
        assert!(compute(host) >= 6, "{host} is not full: {owners:?}");
        // What the boards have is what was promised.
        let on_board = fleet.machine(host).tree().matches(&format!("gpu {GPU} instance profile")).count();
        let holders = fleet.api.device(host, GPU).await.holders;
        assert_eq!(on_board, holders.len(), "{host}");
        let atoms: usize = holders.iter().map(|holder| holder.atoms.len()).sum();
        let known = owners.keys().filter(|(of, _)| of.starts_with(&format!("hosts/{host}/"))).count();
        assert_eq!(atoms, known, "{host}");
    }
    let mut going = Vec::new();
    for (id, _) in &accepted {
        going.push(fleet.api.delete("acme", id).await.expect("accepted"));
    }
    for operation in &going {
        fleet.api.done(operation).await.expect("deleted");
    }
    is_as_before(&fleet, "h1", &before[0]).await;
    is_as_before(&fleet, "h2", &before[1]).await;
    assert_eq!(fleet.api.used("acme", "gpu_memory_mib").await, 0);
    fleet.consistent().await;
    fleet.end().await;
}

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
    // What was promised was the old one.
    condition_is(&fleet.api, "web", v1::condition::Status::False, "DeviceChanged").await;
    delete(&fleet.api, "acme", "web").await;
    running(&fleet.api, "more", &[("gpu", whole(H100))]).await;
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
