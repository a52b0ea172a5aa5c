//! A store on files of its own and a clock to move, for the tests of what goes by itself.

use std::sync::Arc;
use std::time::Duration;

use croft_core::access::Principal;
use croft_core::audit::Call;
use croft_core::host::{Capacity, Resources, State};
use croft_core::id::{HostId, ImageUid, InstanceUid};
use croft_core::instance::{
    self, CloudInit, Cpu, Disk, Instance, Intent, Observed, Phase as GuestPhase, Power, Restart, Spec, Status,
};
use croft_core::join::machine::{Node, Phase};
use croft_core::join::node::{self, Effect, Taint, Wish};
use croft_core::meta::{Labels, Meta};
use croft_core::placement::Policy;
use croft_core::time::ManualClock;
use croft_core::{Clock, Timestamp};
use croft_store::{HostReport, Options, Store};

pub struct Bed {
    pub store: Store,
    pub clock: Arc<ManualClock>,
    _directory: tempfile::TempDir,
}

impl Bed {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp(1_800_000_000_000_000)));
        let store = Store::open(Options::in_dir(directory.path(), clock.clone())).await.unwrap();
        Self { store, clock, _directory: directory }
    }

    /// One that is READY; `number` tells its token from others'.
    pub async fn host(&self, id: &str, number: u8) {
        self.host_with(id, number, Capacity::default()).await;
    }

    pub async fn host_with(&self, id: &str, number: u8, capacity: Capacity) {
        let (host, token) = (HostId::from(id), [number; 32]);
        let call = Call {
            principal: Principal::Local,
            method: "/test/Host",
            request_id: format!("request-{number}"),
            body_digest: [0; 32],
            peer: String::new(),
            validate_only: false,
        };
        let expire = self.clock.now().plus(Duration::from_secs(60));
        self.store.host_enrolment_create(&call, &host, token, expire).await.unwrap();
        self.store.host_enrol("peer", &host, token, [number; 32], |_| Ok(String::new())).await.unwrap();
        let report = HostReport {
            capacity,
            foreign: Some(Resources::default()),
            info: serde_json::json!({}),
            features: Vec::new(),
            conditions: Vec::new(),
            boot_id: "boot".to_owned(),
        };
        self.store.host_report(&host, report).await.unwrap();
        assert_eq!(self.state(id).await, State::Ready);
    }

    pub async fn state(&self, id: &str) -> State {
        self.store.host_get(&HostId::from(id)).await.unwrap().unwrap().state
    }

    /// Its host says that it is off, as it was asked.
    pub async fn off(&self, instance: &Instance) {
        let truth = Observed {
            generation: instance.meta.generation,
            phase: GuestPhase::Off,
            reason: String::new(),
            message: String::new(),
            conditions: Vec::new(),
            addresses: Vec::new(),
            exit: None,
            start_time: None,
            restart_count: 0,
            power_generation: instance.intent.power_generation,
            reboot_generation: 0,
            reset_generation: 0,
            disk_generation: 0,
            attached_devices: Vec::new(),
            released_devices: Vec::new(),
        };
        let host = instance.host().unwrap();
        self.store.instance_observe(host, 1, vec![(instance.uid, truth)], false).await.unwrap();
        self.store.instance_settle(vec![instance.uid]).await.unwrap();
    }

    /// Somebody sets the clock, and no time passes.
    pub fn set_forward(&self, span: Duration) {
        self.clock.set(self.clock.now().plus(span));
    }

    pub fn set_back(&self, span: Duration) {
        self.clock.set(self.clock.now().minus(span));
    }
}

/// Of tenant acme, on no host, to be a node with a label and a taint.
pub fn joining(id: &str) -> Instance {
    let now = Timestamp(1_800_000_000_000_000);
    let uid = InstanceUid::new(now);
    let taint = Taint { key: "spot".to_owned(), value: String::new(), effect: Effect::NoExecute };
    Instance {
        uid,
        tenant: "acme".into(),
        id: id.to_owned(),
        meta: Meta::new(uid.to_string(), Labels::new(), Labels::new(), now),
        spec: Spec {
            vcpus: 2,
            memory_mib: 1024,
            image: "images/node".to_owned(),
            image_uid: ImageUid::new(now),
            disks: vec![Disk { size_gib: 10 }],
            interfaces: Vec::new(),
            cpu: Cpu::default(),
            huge_page_kib: 0,
            cloud_init: CloudInit::default(),
            host_selector: Labels::new(),
            policy: Policy::Spread,
            devices: Vec::new(),
            node: Some(Wish {
                cluster: "clusters/prod".to_owned(),
                cluster_uid: "c".to_owned(),
                recipe: "kubelet".to_owned(),
                labels: [("zone".to_owned(), "a".to_owned())].into(),
                taints: vec![taint],
                repair: croft_core::join::keep::Repair::None,
            }),
        },
        intent: Intent::first(Power::Running, Restart::OnFailure, Duration::from_secs(90)),
        placement: None,
        node: Some(Node::new(node::name(id, uid), Phase::Waiting, now)),
        status: Status::first(instance::State::Pending, now),
    }
}
