//! What the stories have in common.

use croft_proto::v1;
use croft_proto::v1::device::{Kind, State as DeviceState};
use croft_proto::v1::device_request::{MigSlice, PoolDevice, Wanted as Piece, WholeGpu};
use croft_proto::v1::instance_status::State;
use croft_tests::machine::differences;
use croft_tests::{Api, Fleet, Wanted, eventually};

// Of a `devbox`.
pub const GPU: &str = "0000:41:00.0";
pub const DISPLAY: &str = "0000:61:00.0";
pub const NIC: &str = "0000:81:00.0";
pub const NVME: &str = "0000:a1:00.0";
pub const DONGLE: &str = "usb-0000:00:14.0-1";
pub const H100: &str = "h100_sxm_80gb";

pub async fn devbox() -> Fleet {
    let mut fleet = Fleet::start().await;
    fleet.host_with_devices("h1", "devbox").await;
    fleet.api.device_until("h1", GPU, DeviceState::Available).await;
    fleet
}

pub fn mig(profile: &str) -> Piece {
    Piece::Mig(MigSlice { profile: profile.to_owned(), model: String::new() })
}

pub fn whole(model: &str) -> Piece {
    Piece::Gpu(WholeGpu { model: model.to_owned() })
}

pub fn of_pool(pool: &str) -> Piece {
    Piece::Pool(PoolDevice { pool: format!("pools/{pool}") })
}

pub fn asking(tenant: &str, id: &str, pieces: &[(&str, Piece)]) -> v1::CreateInstanceRequest {
    let devices = pieces.iter().map(|(id, piece)| v1::DeviceRequest {
        id: (*id).to_owned(),
        wanted: Some(piece.clone()),
        ..Default::default()
    });
    Wanted { devices: devices.collect(), ..Wanted::default() }.request(tenant, id)
}

/// Until it runs with its devices, as its host says.
pub async fn running(api: &Api, id: &str, pieces: &[(&str, Piece)]) -> v1::Instance {
    let operation = api.create_as(asking("acme", id, pieces)).await.expect("create");
    api.done(&operation).await.expect("created");
    attached(api, id).await
}

pub async fn attached(api: &Api, id: &str) -> v1::Instance {
    condition_is(api, id, v1::condition::Status::True, "DevicesAttached").await
}

pub async fn condition_is(api: &Api, id: &str, wanted: v1::condition::Status, reason: &str) -> v1::Instance {
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

pub fn given(instance: &v1::Instance) -> Vec<v1::DeviceAssignment> {
    instance.status.clone().unwrap_or_default().devices
}

pub fn uid(instance: &v1::Instance) -> String {
    instance.metadata.clone().unwrap_or_default().uid
}

pub async fn delete(api: &Api, tenant: &str, id: &str) {
    api.done(&api.delete(tenant, id).await.expect("accepted")).await.expect("deleted");
}

/// The mode of a GPU that nobody has a slice of any more goes home beside, or at the next look.
pub async fn is_as_before(fleet: &Fleet, host: &str, before: &str) {
    eventually(&format!("{host} is as it was"), || async {
        let now = fleet.machine(host).layout();
        if now == before { Ok(()) } else { Err(differences(before, &now)) }
    })
    .await;
}

pub async fn pool(api: &Api, id: &str, kind: Kind, matches: v1::pool::Match) {
    let matches = v1::pool::Match { kind: kind.into(), ..matches };
    let pool = v1::Pool { r#match: Some(matches), ..Default::default() };
    let request = v1::CreatePoolRequest { pool_id: id.to_owned(), pool: Some(pool), ..Default::default() };
    api.pools.clone().create_pool(request).await.expect("pool");
    api.quota("acme", &format!("devices/{id}"), 4).await;
}

/// A pool of this one device of `h1`.
pub async fn pool_of(api: &Api, id: &str, kind: Kind, device: &str) {
    let devices = vec![format!("hosts/h1/devices/{device}")];
    pool(api, id, kind, v1::pool::Match { devices, ..Default::default() }).await;
}
