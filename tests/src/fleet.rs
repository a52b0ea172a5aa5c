//! The fleet: one plane, some hosts, and the ways in which they may die.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use croft_controlplane::{Config, Plane};
use croft_core::join::ports::Clusters;
use croft_core::time::{Clock, ManualClock, SystemClock};
use croft_core::{Timestamp, audit, host};
use croft_hostagent::enrol::{self, Invitation};
use croft_hostagent::host_report::Source;
use croft_hostagent::hypervisor::simulated::{Capacity, Simulated};
use croft_hostagent::link::MutualTls;
use croft_hostagent::{Agent, AgentHandle, metrics};
use croft_proto::v1;
use croft_store::{HostReport, Store};
use uuid::Uuid;

use crate::cluster::Memory;
use crate::machine::Machine;
use crate::{Api, api, eventually, process};

mod nodes;
mod scrape;

/// In an agent's simulated directory: faults that it is to meet.
pub const FAULTS: &str = "simulated/faults.json";
/// The machine refuses to define anything, as it refuses a disk that is too small.
pub const REFUSE_DEFINE: &str = r#"{ "ensure_defined": "refuse: the story says no" }"#;

pub struct Fleet {
    pub api: Api,
    directory: tempfile::TempDir,
    clock: Arc<ManualClock>,
    /// The same after a restart: agents and clients dial it again.
    address: String,
    plane: Option<Plane>,
    hosts: BTreeMap<String, Member>,
    /// Every cluster that is registered is this one, unless the story has real ones.
    pub cluster: Memory,
    clusters: Arc<dyn Clusters>,
}

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fleet").field("address", &self.address).field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Member {
    state_dir: PathBuf,
    sim: Arc<Simulated>,
    /// Where it has devices.
    machine: Option<Machine>,
    agent: Option<AgentHandle>,
    /// Where its metrics are, or were before it was killed.
    metrics: Option<SocketAddr>,
}

impl Fleet {
    /// A plane with the tenant `acme` and the image `images/tiny`.
    pub async fn start() -> Self {
        let cluster = Memory::default();
        Self::start_with(cluster.clone(), Arc::new(cluster)).await
    }

    /// One whose clusters are reached over the network.
    pub async fn on(clusters: Arc<dyn Clusters>) -> Self {
        Self::start_with(Memory::default(), clusters).await
    }

    async fn start_with(cluster: Memory, clusters: Arc<dyn Clusters>) -> Self {
        // A second story in this process finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let address = format!("127.0.0.1:{}", process::free_port());
        let plane = start_plane(directory.path(), &address, &clock, &clusters).await;
        let read = |name: &str| std::fs::read_to_string(directory.path().join("plane").join(name)).expect(name);
        let api = Api::new(api::channel(&address, &read("ca.pem")), read("admin.token").trim());
        let fleet =
            Self { api, directory, clock, address, plane: Some(plane), hosts: BTreeMap::new(), cluster, clusters };
        fleet.api.tenant("acme", None).await;
        fleet.api.tiny_image().await;
        fleet
    }

    pub async fn with_host(id: &str) -> Self {
        let mut fleet = Self::start().await;
        fleet.host(id).await;
        fleet
    }

    /// Enrols a simulated host, runs its agent, and waits until the plane knows it.
    pub async fn host(&mut self, id: &str) {
        self.join(id, None).await;
    }

    /// The same, on a machine of that preset (`devbox`, `h100x8`); waits until the plane knows its devices, too.
    pub async fn host_with_devices(&mut self, id: &str, preset: &str) {
        self.join(id, Some(Machine::boot(preset))).await;
        let there = format!("the devices of {id}");
        eventually(&there, || async {
            let devices = self.api.devices_of(id).await;
            if devices.is_empty() { Err("none") } else { Ok(()) }
        })
        .await;
    }

    async fn join(&mut self, id: &str, machine: Option<Machine>) {
        let state_dir = self.directory.path().join(id);
        let directory = state_dir.join("simulated");
        let sim = match &machine {
            None => Simulated::open(directory, Capacity::default()),
            Some(machine) => Simulated::open_with_devices(directory, Capacity::default(), machine.host.clone()),
        };
        let sim = sim.expect("a simulated machine");
        let request = v1::CreateEnrolmentTokenRequest { host_id: id.to_owned(), ..Default::default() };
        let token = self.api.hosts.clone().create_enrolment_token(request).await.expect("token").into_inner().token;
        let invitation = Invitation {
            server: self.address.clone(),
            ca_file: self.data_dir().join("ca.pem"),
            token,
            host_id: id.to_owned(),
        };
        enrol::enrol(&invitation, &state_dir).await.expect("enrolled");
        self.hosts.insert(id.to_owned(), Member { state_dir, sim, machine, agent: None, metrics: None });
        self.agent_start(id).await;
        self.api.host_until(id, v1::host::State::Ready).await;
    }

    /// A host that was heard from once and will not run anything: room to place on.
    pub async fn silent_host(&self, id: &str, capacity: host::Capacity) -> croft_core::Result<()> {
        let store = self.store();
        let call = audit::Call {
            principal: croft_core::access::Principal::Local,
            method: "/test/SilentHost",
            request_id: String::new(),
            body_digest: [0; 32],
            peer: String::new(),
            validate_only: false,
        };
        let (host, secret) = (id.into(), [id.len() as u8; 32]);
        let expire = self.clock.now().plus(Duration::from_secs(60));
        let mut token: [u8; 32] = secret;
        token[..id.len().min(32)].copy_from_slice(&id.as_bytes()[..id.len().min(32)]);
        store.host_enrolment_create(&call, &host, token, expire).await?;
        store.host_enrol("test", &host, token, [0; 32], |_| Ok("no certificate".to_owned())).await?;
        let report = HostReport {
            capacity,
            foreign: Some(host::Resources::default()),
            info: serde_json::json!({}),
            features: Vec::new(),
            conditions: Vec::new(),
            boot_id: "boot".to_owned(),
        };
        store.host_report(&host, report).await?;
        store.host_lease_renew(&[host], self.clock.now().plus(Duration::from_secs(86_400))).await?;
        Ok(())
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("plane")
    }

    pub fn store(&self) -> Store {
        self.plane.as_ref().expect("the plane runs").store().clone()
    }

    pub fn sim(&self, id: &str) -> Sim<'_> {
        Sim(&self.hosts[id].sim)
    }

    /// Its devices' own machine.
    pub fn machine(&self, id: &str) -> &Machine {
        self.hosts[id].machine.as_ref().expect("a host with devices")
    }

    pub fn machine_mut(&mut self, id: &str) -> &mut Machine {
        self.hosts.get_mut(id).and_then(|member| member.machine.as_mut()).expect("a host with devices")
    }

    /// The host of an instance.
    pub async fn home_of(&self, tenant: &str, id: &str) -> String {
        let status = self.api.get(tenant, id).await.expect("it is there").status.unwrap_or_default();
        status.host.trim_start_matches("hosts/").to_owned()
    }

    /// A connection of its own, with the admin's token.
    pub fn another_client(&self) -> Api {
        self.client_with(&self.api.token)
    }

    pub fn client_with(&self, token: &str) -> Api {
        let ca_pem = std::fs::read_to_string(self.data_dir().join("ca.pem")).expect("ca.pem");
        Api::new(api::channel(&self.address, &ca_pem), token)
    }

    /// Moves the plane's clock. Hosts that live are heard from again within a heartbeat.
    pub async fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }

    /// The same, and hosts are heard from all the while.
    pub async fn live(&self, span: Duration) {
        let hosts: Vec<_> = self.hosts.keys().map(|id| id.as_str().into()).collect();
        let until = self.clock.now().plus(span).plus(Duration::from_secs(60));
        self.store().host_lease_renew(&hosts, until).await.expect("their leases");
        self.clock.advance(span);
    }

    /// Somebody sets the plane's clock; no time passes.
    pub fn set_clock(&self, to: Timestamp) {
        self.clock.set(to);
    }

    pub async fn agent_start(&mut self, id: &str) {
        let server = self.address.clone();
        let member = self.hosts.get_mut(id).expect("a host");
        let connect = Arc::new(MutualTls { server, state_dir: member.state_dir.clone() });
        let observation = Box::new(Capacity::default().observation());
        let inventory = match &member.machine {
            None => Source::Fixed(observation),
            Some(machine) => Source::Simulated(observation, machine.host.root().to_owned()),
        };
        let mut config = croft_hostagent::Config::new(&member.state_dir, connect, inventory);
        config.console_directory = member.sim.console_directory();
        config.devices = member.machine.as_ref().map(Machine::config);
        config.renew = Some(member.state_dir.clone());
        config.metrics = metrics::Metrics::of_host(id);
        let agent = Agent::spawn(config, member.sim.clone()).await.expect("an agent");
        let at = SocketAddr::from(([127, 0, 0, 1], 0));
        let at = metrics::serve(at, agent.metrics(), agent.tasks().clone()).await.expect("a metrics page");
        (member.agent, member.metrics) = (Some(agent), Some(at));
    }

    /// As kill -9 would.
    pub async fn agent_kill(&mut self, id: &str) {
        if let Some(agent) = self.hosts.get_mut(id).and_then(|member| member.agent.take()) {
            agent.kill();
        }
    }

    /// As kill -9 would.
    pub async fn plane_kill(&mut self) {
        if let Some(plane) = self.plane.take() {
            plane.kill().await;
        }
    }

    /// Starts what does not run, on the same files.
    pub async fn revive(&mut self) {
        if self.plane.is_none() {
            self.plane = Some(start_plane(self.directory.path(), &self.address, &self.clock, &self.clusters).await);
        }
        let dead: Vec<String> =
            self.hosts.iter().filter(|(_, member)| member.agent.is_none()).map(|(id, _)| id.clone()).collect();
        for id in dead {
            self.agent_start(&id).await;
        }
        eventually("the plane answers", || async {
            self.api.hosts.clone().list_hosts(v1::ListHostsRequest::default()).await.map(|_| ())
        })
        .await;
    }

    /// What is counted equals what exists.
    pub async fn consistent(&self) {
        let complaints = self.store().consistency().await.expect("a look at the database");
        assert!(complaints.is_empty(), "{complaints:#?}");
    }

    /// A secret is in no file of the plane as it was typed.
    pub async fn nothing_on_disk_says(&self, secret: &str) {
        let found = files_below(&self.data_dir()).into_iter().find(|path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
        });
        assert_eq!(found, None, "{secret} can be read there");
    }

    pub async fn end(mut self) {
        for member in self.hosts.values_mut() {
            if let Some(agent) = member.agent.take() {
                agent.stop().await;
            }
        }
        if let Some(plane) = self.plane.take() {
            plane.stop().await.expect("a clean end");
        }
    }
}

async fn start_plane(directory: &Path, address: &str, clock: &Arc<ManualClock>, clusters: &Arc<dyn Clusters>) -> Plane {
    let mut config = Config::local(&directory.join("plane"));
    config.listen = address.parse().expect("an address");
    Plane::start_with(config, clock.clone(), clusters.clone()).await.expect("a plane")
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// A simulated machine, by the text of its instances' uids.
#[derive(Debug, Clone, Copy)]
pub struct Sim<'a>(&'a Arc<Simulated>);

fn uid(text: &str) -> Uuid {
    text.parse().expect("a uid")
}

impl Sim<'_> {
    pub async fn guest_poweroff(self, id: &str) {
        self.0.guest_poweroff(uid(id)).expect("it runs");
    }

    pub async fn guest_crash(self, id: &str) {
        self.0.guest_crash(uid(id)).expect("it runs");
    }

    /// From now on it does not hear that it is asked to power off; or hears it again.
    pub async fn guest_deaf(self, id: &str, deaf: bool) {
        self.0.guest_deaf(uid(id), deaf).expect("it is there");
    }

    pub async fn host_reboot(self) {
        self.0.host_reboot().expect("a reboot");
    }

    pub async fn unavailable(self, down: bool) {
        self.0.set_unavailable(down);
    }

    pub async fn add_foreign(self, name: &str, vcpus: u64, memory_mib: u64, disk_gib: u64) {
        self.0.add_foreign(name, vcpus, memory_mib, disk_gib).expect("a foreign domain");
    }

    pub async fn foreign(self) -> Vec<String> {
        self.0.foreign()
    }

    /// A guest writes this to its console.
    pub fn writes(self, id: &str, text: &str) {
        use std::io::Write as _;
        let path = self.0.console_directory().join(format!("{}.log", uid(id)));
        let mut log = std::fs::OpenOptions::new().append(true).open(path).expect("it has booted");
        log.write_all(text.as_bytes()).expect("written");
    }

    /// What lies on the volume of its seed, beside the texts for cloud-init.
    pub fn seed_files(self, id: &str) -> BTreeMap<String, String> {
        self.0.seed(uid(id)).map(|seed| seed.files.into_iter().collect()).unwrap_or_default()
    }

    pub async fn is_running(self, id: &str) -> bool {
        self.0.running().contains(&uid(id))
    }

    /// How often it was started.
    pub async fn starts(self, id: &str) -> usize {
        self.0.boots(uid(id))
    }

    /// Which root disk it has: another one after a rebuild. `None`: it is not here.
    pub fn disk(self, id: &str) -> Option<Uuid> {
        self.0.disk(uid(id))
    }

    /// No domain of Croft's is left.
    pub async fn is_empty(self) -> bool {
        self.0.defined().is_empty()
    }
}
