//! SIGKILL of the agent's process at every point of its work on devices, in a whole fleet: a slice is given to a guest, a
//! dongle is plugged in and out while it runs, everything goes home. Each time it ends as if nothing had happened.

use croft_gpu_sim::kernel::dump;
use croft_hostagent::crash;
use croft_proto::v1;
use croft_proto::v1::device_request::{MigSlice, PoolDevice, Wanted as Piece};
use croft_proto::v1::instance_status::State;
use croft_tests::Wanted;
use croft_tests::cell::Cell;
use croft_tests::machine::{Machine, differences};
use tonic::Status;

const AT_ONCE: usize = 3;
const GPU: &str = "0000:41:00.0";
const DONGLE: &str = "usb-0000:00:14.0-1";
const WEB: &str = "tenants/acme/instances/web";

fn asked(id: &str, piece: Piece) -> v1::DeviceRequest {
    v1::DeviceRequest { id: id.to_owned(), wanted: Some(piece), ..Default::default() }
}

/// The machine as text, without what is another after each boot.
fn layout(cell: &Cell) -> String {
    let root = cell.state_dir().join("simulated/machine");
    // Files come and go while the agent works.
    let text = (0..50).find_map(|_| dump(&root).ok()).expect("a dump");
    Machine::without_made_up(&text)
}

async fn granted(cell: &mut Cell) {
    for resource in ["gpu_memory_mib", "devices/hsm"] {
        cell.ask("quota", |api| async move {
            let name = format!("tenants/acme/quotas/{resource}");
            let quota = Some(v1::Quota { name, limit: Some(1 << 20), ..Default::default() });
            api.quotas.clone().set_quota(v1::SetQuotaRequest { quota, ..Default::default() }).await
        })
        .await;
    }
    cell.ask("pool", |api| async move {
        let devices = vec![format!("hosts/h1/devices/{DONGLE}")];
        let matches = v1::pool::Match { kind: v1::device::Kind::Usb.into(), devices, ..Default::default() };
        let pool = Some(v1::Pool { r#match: Some(matches), ..Default::default() });
        let request =
            v1::CreatePoolRequest { pool_id: "hsm".to_owned(), pool, request_id: "p".to_owned(), ..Default::default() };
        api.pools.clone().create_pool(request).await
    })
    .await;
    for device in [GPU, DONGLE] {
        cell.ask(device, |api| async move {
            let name = format!("hosts/h1/devices/{device}");
            let told = api.devices.clone().get_device(v1::GetDeviceRequest { name }).await;
            let told = told.map_err(|status| Status::unavailable(status.to_string()))?.into_inner();
            let is_there = told.state() == v1::device::State::Available;
            if is_there { Ok(()) } else { Err(Status::unavailable(format!("{told:?}"))) }
        })
        .await;
    }
}

async fn story(point: &'static str) -> (&'static str, usize) {
    let mut cell = Cell::with_devices("devbox", point).await;
    cell.furnish().await;
    granted(&mut cell).await;
    let before = layout(&cell);
    let slice = Piece::Mig(MigSlice { profile: "2g.20gb".to_owned(), model: String::new() });
    let wanted = Wanted { devices: vec![asked("slice", slice)], ..Wanted::default() };
    let request = v1::CreateInstanceRequest { request_id: "web".to_owned(), ..wanted.request("acme", "web") };
    let create = cell
        .ask("create", |api| {
            let request = request.clone();
            async move { api.instances.clone().create_instance(request).await }
        })
        .await
        .into_inner();
    cell.done(&create).await;
    cell.until("web", Some(State::Running)).await;
    let attach = cell
        .ask("attach", |api| async move {
            let device = Some(asked("hsm", Piece::Pool(PoolDevice { pool: "pools/hsm".to_owned() })));
            let (name, request_id) = (WEB.to_owned(), "attach".to_owned());
            let request = v1::AttachDeviceRequest { name, device, request_id, ..Default::default() };
            api.instances.clone().attach_device(request).await
        })
        .await
        .into_inner();
    cell.done(&attach).await;
    let detach = cell
        .ask("detach", |api| async move {
            let (name, device_id, request_id) = (WEB.to_owned(), "hsm".to_owned(), "detach".to_owned());
            let request = v1::DetachDeviceRequest { name, device_id, request_id, ..Default::default() };
            api.instances.clone().detach_device(request).await
        })
        .await
        .into_inner();
    cell.done(&detach).await;
    cell.ask("delete", |api| async move {
        let (name, request_id) = (WEB.to_owned(), "delete".to_owned());
        let request = v1::DeleteInstanceRequest { name, request_id, ..Default::default() };
        api.instances.clone().delete_instance(request).await
    })
    .await;
    cell.until("web", None).await;
    cell.nothing_left().await;
    for resource in ["gpu_memory_mib", "devices/hsm"] {
        assert_eq!(cell.used(resource).await, 0, "{point}: {resource}");
    }
    // The mode of a GPU that nobody has a slice of any more goes home beside, or at the next look.
    let began = tokio::time::Instant::now();
    while layout(&cell) != before {
        cell.revive();
        let late = began.elapsed() > croft_tests::eventually::DEADLINE;
        assert!(!late, "{point}: {}\n{}", differences(&before, &layout(&cell)), cell.logs());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    (point, cell.deaths())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_point_of_devices_they_all_go_home() {
    let mut waiting = crash::DEVICE_POINTS.to_vec();
    let mut running = tokio::task::JoinSet::new();
    let mut never_died = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(point) = waiting.pop()
        {
            running.spawn(story(point));
        }
        let Some(ended) = running.join_next().await else { break };
        let (point, deaths) = ended.expect("a story failed");
        println!("{point}: died {deaths} time(s), and everything is at home");
        if deaths == 0 {
            never_died.push(point);
        }
    }
    assert!(never_died.is_empty(), "points that the story does not reach: {never_died:?}");
}
