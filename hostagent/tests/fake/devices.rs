//! Instances with devices, asked for as the plane would: by what the host reported.

use std::path::{Path, PathBuf};

use croft_gpu_sim::kernel::{Hardware, SimHost, dump};
use croft_proto::agent::v1::desired_device::{Piece, Usb, Vgpu, Whole};
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::agent::v1::{DesiredDevice, DesiredInstance, DeviceRelease, HostPolicy, InstanceObservation};
use croft_proto::v1;
use croft_proto::v1::condition::Status;
use croft_proto::v1::device::State;
use uuid::Uuid;

use super::eventually;
use super::host::{Host, desired};

impl Host {
    /// A machine with one of everything.
    pub async fn devbox() -> Self {
        Self::with_devices(SimHost::preset("devbox").expect("preset")).await
    }

    /// The device, once the plane has heard of it.
    pub async fn device(&self, id: &str) -> v1::Device {
        self.device_that(id, "reported", |_| true).await
    }

    pub async fn device_that(&self, id: &str, what: &str, holds: impl Fn(&v1::Device) -> bool) -> v1::Device {
        eventually(&format!("{id} {what}"), async || {
            let found = self.reported().into_iter().find(|device| device.name == format!("hosts/-/devices/{id}"));
            match found {
                Some(device) if holds(&device) => Ok(device),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    pub async fn device_is(&self, id: &str, state: State) -> v1::Device {
        self.device_that(id, &format!("is {state:?}"), |device| device.state() == state).await
    }

    /// The plane says it, and the agent has heard it.
    pub async fn policy(&self, policy: Option<HostPolicy>) {
        self.plane.set_policy(policy);
        // It dials again after a while.
        let synced = async || self.plane.lock().sync_done.map(drop).ok_or_else(|| "no session".to_owned());
        self.pass_until("a session", synced).await;
    }

    /// The prober's time has come.
    pub async fn agent_looks(&self) {
        self.pass(31).await;
    }

    pub fn reported(&self) -> Vec<v1::Device> {
        self.plane.lock().host.clone().map(|host| host.devices).unwrap_or_default()
    }

    /// All that can change on the machine, as text.
    pub fn tree(&self) -> String {
        let root = self.machine.as_ref().expect("a machine with devices").root();
        // Files come and go while the agent works.
        (0..50).find_map(|_| dump(root).ok()).expect("dump")
    }

    /// A piece of a device that the plane has heard of.
    pub async fn piece(&self, request: &str, id: &str, of: impl FnOnce(&v1::Device) -> Piece) -> DesiredDevice {
        piece(request, &self.device(id).await, of)
    }

    /// An instance runs with it.
    pub async fn has(&self, device: DesiredDevice) -> Uuid {
        let uid = Uuid::now_v7();
        self.plane.upsert(with(uid, vec![device]));
        self.attached(uid).await;
        uid
    }

    /// Somebody deletes it, and in the end nothing is left of it.
    pub async fn goes(&self, uid: Uuid) {
        self.plane.bury(uid, true, 0);
        self.pass_until("it is absent", async || match self.plane.observed(uid) {
            seen if seen.phase() == Phase::Absent => Ok(()),
            seen => Err(format!("{seen:?}")),
        })
        .await;
    }

    /// An operator's word.
    pub async fn is_released(&self, id: &str, counter: i64) {
        let releases = vec![DeviceRelease { device: id.to_owned(), counter }];
        self.policy(Some(HostPolicy { releases, ..HostPolicy::default() })).await;
    }

    /// The machine is switched off, cards are changed, and it comes up; `booted` happens before there is an agent.
    pub async fn reboots(&mut self, change: impl FnOnce(&mut Hardware), booted: impl FnOnce(&SimHost)) {
        self.agent.kill();
        let machine = self.machine.clone().expect("a machine with devices");
        machine.change(change).expect("change");
        self.simulated.host_reboot().expect("reboot");
        booted(&machine);
        self.plane.lock().host = None;
        self.plane.lock().observed.clear();
        self.start_agent().await;
    }

    pub async fn attached(&self, uid: Uuid) -> InstanceObservation {
        let holds = |seen: &InstanceObservation| seen.phase() == Phase::Running && condition(seen).0 == Status::True;
        self.until_that(uid, "runs with its devices", holds).await
    }

    /// Does not have its devices, and says why.
    pub async fn lacks(&self, uid: Uuid, reason: &str) -> String {
        let holds = |seen: &InstanceObservation| {
            let (status, why, _) = condition(seen);
            (status, why.as_str()) == (Status::False, reason)
        };
        condition(&self.until_that(uid, reason, holds).await).2
    }
}

/// The library that stands in for NVML: built beside the tests, as a dependency of theirs. A copy, since another build may
/// replace it while tests run.
pub fn library(directory: &Path) -> PathBuf {
    let copy = directory.join("libnvidia-ml.so.1");
    if !copy.exists() {
        let built = std::env::current_exe().expect("test").with_file_name("libcroft_nvml_sim.so");
        std::fs::copy(&built, &copy).expect("the library is built with the tests");
    }
    copy
}

/// Status, reason and message of DevicesAttached.
pub fn condition(seen: &InstanceObservation) -> (Status, String, String) {
    let found = seen.conditions.iter().find(|condition| condition.r#type == "DevicesAttached");
    found.map_or((Status::Unspecified, String::new(), String::new()), |condition| {
        (condition.status(), condition.reason.clone(), condition.message.clone())
    })
}

pub fn with(uid: Uuid, devices: Vec<DesiredDevice>) -> DesiredInstance {
    DesiredInstance { devices, required_features: vec!["devices.v1".to_owned()], ..desired(uid) }
}

/// A piece of a device, as the plane places it.
pub fn piece(request: &str, device: &v1::Device, of: impl FnOnce(&v1::Device) -> Piece) -> DesiredDevice {
    DesiredDevice {
        id: request.to_owned(),
        device: device.name.trim_start_matches("hosts/-/devices/").to_owned(),
        serial: device.serial.clone(),
        pci_id: device.id.clone(),
        slot_path: device.slot_path.clone(),
        detach: false,
        piece: Some(of(device)),
    }
}

/// A layout that keeps so many virtual functions of a card.
pub fn functions_of(id: &str, count: i32) -> Option<HostPolicy> {
    let layout = vec![v1::DeviceLayout { device: id.to_owned(), virtual_functions: count, gpu_mode: 0 }];
    Some(HostPolicy { layout_generation: 1, layout, ..HostPolicy::default() })
}

pub fn whole(device: &v1::Device) -> Piece {
    let companions = device.companions.clone();
    let network = device.kind() == v1::device::Kind::VirtualFunction && device.class.starts_with("02");
    let mac = if network { "02:00:00:00:00:77".to_owned() } else { String::new() };
    Piece::Whole(Whole { companions, fabric_partition: -1, mac })
}

pub fn usb(_: &v1::Device) -> Piece {
    Piece::Usb(Usb {})
}

pub fn time_sliced(name: &str, function_index: i32) -> impl FnOnce(&v1::Device) -> Piece {
    let vgpu = Vgpu { r#type: name.to_owned(), function_index, ..Vgpu::default() };
    move |_| Piece::Vgpu(vgpu)
}

pub fn mig_backed(name: &str, profile: &str, at: (i32, i32), function_index: i32) -> impl FnOnce(&v1::Device) -> Piece {
    let (mig_start, mig_size) = at;
    let vgpu = Vgpu { r#type: name.to_owned(), function_index, mig_profile: profile.to_owned(), mig_start, mig_size };
    move |_| Piece::Vgpu(vgpu)
}
