//! One simulated host with an agent that can be killed and started again on the same files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use croft_gpu_sim::kernel::{Hardware, SimHost};
use croft_hostagent::clock::Clock;
use croft_hostagent::devices;
use croft_hostagent::host_report::Source;
use croft_hostagent::hypervisor::simulated::{Capacity, Simulated};
use croft_hostagent::link::Fixed;
use croft_hostagent::{Agent, AgentHandle, Config};
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::agent::v1::{
    DesiredDisk, DesiredImage, DesiredInstance, DesiredInterface, InstanceObservation, desired_image,
};
use croft_proto::v1::instance_spec::{Power, Restart};
use croft_proto::v1::{DiskImage, ImageFile};
use tonic::transport::Channel;
use uuid::Uuid;

use super::eventually;
use super::plane::Plane;

pub struct Host {
    pub plane: Plane,
    pub simulated: Arc<Simulated>,
    pub clock: Clock,
    pub agent: AgentHandle,
    pub directory: tempfile::TempDir,
    /// The machine with devices, if it has any.
    pub machine: Option<SimHost>,
    pub helpers: Helpers,
    channel: Channel,
    capacity: Capacity,
}

/// How the agent's processes that look or write are started and ended, from its next start on.
#[derive(Clone, Default)]
pub struct Helpers {
    pub longest_step: Option<Duration>,
    pub kill: Option<devices::Kill>,
    /// What runs in the place of the agent's own binary.
    pub program: Option<PathBuf>,
    pub cgroups: Option<PathBuf>,
}

impl Host {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// On a machine with devices.
    pub async fn with_devices(hardware: impl Into<Hardware>) -> Self {
        Self::start_with(Some(hardware.into())).await
    }

    async fn start_with(hardware: Option<Hardware>) -> Self {
        let directory = match hardware {
            // A simulated host is thousands of small files.
            Some(_) => tempfile::tempdir_in(croft_gpu_sim::kernel::scratch()),
            None => tempfile::tempdir(),
        };
        let directory = directory.expect("tempdir");
        let capacity: Capacity = "vcpus=8,memory-mib=8192,disk-gib=100".parse().expect("capacity");
        let state = directory.path().join("simulated");
        let machine = hardware.map(|hardware| SimHost::create(state.join("machine"), hardware).expect("machine"));
        let simulated = match &machine {
            Some(machine) => Simulated::open_with_devices(state, capacity.clone(), machine.clone()).expect("simulated"),
            None => Simulated::open(state, capacity.clone()).expect("simulated"),
        };
        let plane = Plane::new();
        let channel = plane.serve().await;
        let clock = Clock::manual(1_700_000_000_000_000);
        let devices = machine.as_ref().map(|machine| device_config(machine, Helpers::default()));
        let agent = spawn(directory.path(), &channel, &capacity, &simulated, &clock, devices).await;
        let helpers = Helpers::default();
        Self { plane, simulated, clock, agent, directory, machine, helpers, channel, capacity }
    }

    /// As kill -9, and a restart by whoever supervises it.
    pub async fn restart_agent(&mut self) {
        self.agent.kill();
        self.start_agent().await;
    }

    pub async fn start_agent(&mut self) {
        let devices = self.machine.as_ref().map(|machine| device_config(machine, self.helpers.clone()));
        let directory = self.directory.path();
        self.agent = spawn(directory, &self.channel, &self.capacity, &self.simulated, &self.clock, devices).await;
    }

    /// Moves the clock a little at a time, so that everything that happens on the way happens.
    pub async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// The same, for as long as the condition does not hold.
    pub async fn pass_until<T>(&self, what: &str, mut condition: impl AsyncFnMut() -> Result<T, String>) -> T {
        eventually(what, async || {
            let outcome = condition().await;
            if outcome.is_err() {
                self.clock.advance(Duration::from_secs(1));
            }
            outcome
        })
        .await
    }

    pub async fn until(&self, uid: Uuid, phase: Phase) -> InstanceObservation {
        self.until_that(uid, &format!("{phase:?}"), |seen| seen.phase() == phase).await
    }

    pub async fn until_that(
        &self,
        uid: Uuid,
        what: &str,
        holds: impl Fn(&InstanceObservation) -> bool,
    ) -> InstanceObservation {
        eventually(what, async || {
            let seen = self.plane.observed(uid);
            if holds(&seen) { Ok(seen) } else { Err(format!("{seen:?}")) }
        })
        .await
    }

    /// Until the agent has journaled what the plane said last.
    pub async fn synced(&self) {
        eventually("SyncDone", async || {
            let inner = self.plane.lock();
            let wanted = Some((inner.epoch, inner.revision));
            if inner.sync_done == wanted { Ok(()) } else { Err(format!("{:?}, not {wanted:?}", inner.sync_done)) }
        })
        .await;
    }
}

async fn spawn(
    directory: &Path,
    channel: &Channel,
    capacity: &Capacity,
    simulated: &Arc<Simulated>,
    clock: &Clock,
    devices: Option<devices::Config>,
) -> AgentHandle {
    let inventory = Source::Fixed(Box::new(capacity.observation()));
    let mut config = Config::new(directory.join("agent"), Arc::new(Fixed(channel.clone())), inventory);
    config.clock = clock.clone();
    config.console_directory = simulated.console_directory();
    config.devices = devices;
    Agent::spawn(config, Arc::<Simulated>::clone(simulated)).await.expect("agent")
}

fn device_config(machine: &SimHost, helpers: Helpers) -> devices::Config {
    let config = devices::Config::simulated(machine.root(), super::devices::library(machine.root()));
    let Helpers { longest_step, kill, program, cgroups } = helpers;
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_croft-hostagent").into());
    devices::Config { program, longest_step, kill, cgroups, ..config }
}

/// A small instance that is wanted running.
pub fn desired(uid: Uuid) -> DesiredInstance {
    let file = ImageFile { uri: "https://images.example/tiny.qcow2".to_owned(), sha256: "0".repeat(64) };
    let disk = DiskImage { file: Some(file), min_disk_gib: 1, ..DiskImage::default() };
    DesiredInstance {
        uid: uid.to_string(),
        tenant: "acme".to_owned(),
        name: format!("web-{uid}"),
        generation: 1,
        power: Power::Running.into(),
        restart: Restart::OnFailure.into(),
        stop_timeout_seconds: 90,
        power_generation: 1,
        vcpus: 1,
        memory_mib: 256,
        image: Some(DesiredImage {
            uid: Uuid::from_u128(1).to_string(),
            name: "images/tiny".to_owned(),
            boot: Some(desired_image::Boot::Disk(disk)),
            ..DesiredImage::default()
        }),
        disks: vec![DesiredDisk { uid: Uuid::now_v7().to_string(), size_gib: 2 }],
        interfaces: vec![DesiredInterface { mac: "52:54:00:00:00:01".to_owned(), network: None }],
        ..DesiredInstance::default()
    }
}

/// Somebody calls start.
pub fn started(desired: &mut DesiredInstance) {
    desired.power = Power::Running.into();
    desired.power_generation += 1;
}

/// Somebody calls stop.
pub fn stopped(desired: &mut DesiredInstance) {
    desired.power = Power::Stopped.into();
    desired.power_generation += 1;
}
