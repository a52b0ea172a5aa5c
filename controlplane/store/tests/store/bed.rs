//! A small plane to try the store on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use croft_core::access::{Principal, Role};
use croft_core::audit::Call;
use croft_core::device::{self, Device, PoolMatch, Record};
use croft_core::host::{Capacity, Cell, Host, Resources};
use croft_core::id::{HostId, ImageUid, InstanceUid, PoolId, TenantId, TenantUid};
use croft_core::image::{Boot, DiskImage, File, Firmware, Format, Image};
use croft_core::instance::{CloudInit, Cpu, Disk, Instance, Interface, Observed, Phase, Power, Restart, Spec};
use croft_core::meta::{Labels, Meta};
use croft_core::operation::Operation;
use croft_core::placement::device::Wishes;
use croft_core::placement::view::Claim;
use croft_core::placement::{self, Placement, Request};
use croft_core::ports::NewInstance;
use croft_core::quota::Labelled;
use croft_core::tenant::Tenant;
use croft_core::time::ManualClock;
use croft_core::{Clock, Error, Result, Timestamp};
use croft_store::{
    AttachAnswer, AttachRequest, ClaimAnswer, ClaimRequest, Command, DeviceReport, Extension, HostReport, Options,
    PlaceAnswer, Settled, Store,
};

pub const START: Timestamp = Timestamp(1_800_000_000_000_000);

pub struct Bed {
    pub store: Store,
    pub clock: Arc<ManualClock>,
    pub dir: tempfile::TempDir,
    requests: AtomicU64,
}

pub fn t(id: &str) -> TenantId {
    id.into()
}

pub fn h(id: &str) -> HostId {
    id.into()
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// By an admin, without a request id.
pub fn call() -> Call {
    Call {
        principal: Principal::Token { id: "root".into(), role: Role::PlatformAdmin, tenant: None },
        method: "/croft.v1.Test/Do",
        request_id: String::new(),
        body_digest: [0; 32],
        peer: "127.0.0.1:1".to_owned(),
        validate_only: false,
    }
}

pub fn call_with(request_id: &str, body: u8) -> Call {
    Call { request_id: request_id.to_owned(), body_digest: [body; 32], ..call() }
}

pub fn dry() -> Call {
    Call { validate_only: true, ..call() }
}

/// The change that sets a limit, and nothing else of the quota.
pub fn to(limit: Option<i64>) -> impl FnOnce(&mut Labelled) -> Result<()> + Send + 'static {
    move |own| {
        own.quota.limit = limit;
        Ok(())
    }
}

/// The error of what must not go well.
pub fn refused<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.expect_err("this must be refused")
}

impl Bed {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(START));
        let store = Store::open(Options::in_dir(dir.path(), clock.clone())).await.unwrap();
        Self { store, clock, dir, requests: AtomicU64::new(0) }
    }

    /// With tenant `acme`, image `images/debian` and host `h1` of 16 CPUs, ready.
    pub async fn furnished() -> Self {
        let bed = Self::new().await;
        bed.tenant("acme", None).await;
        bed.image("debian", None).await;
        bed.host("h1", 16).await;
        bed
    }

    /// Drops everything as a killed process would, and opens the same files again.
    pub async fn reopen(mut self) -> Self {
        let options = Options::in_dir(self.dir.path(), self.clock.clone());
        self.store = Store::open(options).await.unwrap();
        self
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// With a request id of its own.
    pub fn fresh(&self) -> Call {
        call_with(&format!("request-{}", self.requests.fetch_add(1, Ordering::Relaxed)), 1)
    }

    pub fn new_tenant(&self, id: &str, parent: Option<&str>) -> Tenant {
        let now = self.clock.now();
        let uid = TenantUid::new(now).to_string();
        Tenant {
            id: t(id),
            meta: Meta::new(uid, Labels::new(), Labels::new(), now),
            parent: parent.map(t),
            display_name: id.to_uppercase(),
        }
    }

    pub async fn tenant(&self, id: &str, parent: Option<&str>) -> Tenant {
        self.store.tenant_create(&call(), self.new_tenant(id, parent)).await.unwrap().into_inner()
    }

    pub async fn limit(&self, tenant: &str, resource: &str, limit: i64) {
        self.store.quota_set(&call(), &t(tenant), resource, "", to(Some(limit))).await.unwrap();
    }

    pub async fn used(&self, tenant: &str, resource: &str) -> i64 {
        self.store.quota_get(&t(tenant), resource).await.unwrap().quota.used
    }

    pub fn new_image(&self, id: &str, tenant: Option<&str>) -> Image {
        let uid = ImageUid::new(self.clock.now());
        let file = File { uri: "https://images.example/disk".to_owned(), sha256: "0".repeat(64) };
        Image {
            uid,
            meta: Meta::new(uid.to_string(), Labels::new(), Labels::new(), self.clock.now()),
            tenant: tenant.map(t),
            id: id.to_owned(),
            description: String::new(),
            boot: Boot::Disk(DiskImage { file, format: Format::Qcow2, min_disk_gib: 4 }),
            firmware: Firmware::Uefi,
        }
    }

    pub async fn image(&self, id: &str, tenant: Option<&str>) -> Image {
        self.store.image_create(&call(), self.new_image(id, tenant)).await.unwrap().into_inner()
    }

    /// Enrolled, reported and heard from: READY for an hour.
    pub async fn host(&self, id: &str, cpus: i32) -> Host {
        let secret = [cpus.to_le_bytes()[0].wrapping_add(id.len().to_le_bytes()[0]); 32];
        let mut token = secret;
        token[..id.len().min(32)].copy_from_slice(&id.as_bytes()[..id.len().min(32)]);
        let expire = self.clock.now().plus(Duration::from_secs(3600));
        self.store.host_enrolment_create(&call(), &h(id), token, expire).await.unwrap();
        self.store.host_enrol("peer", &h(id), token, [1; 32], |uid| Ok(format!("cert of {uid}"))).await.unwrap();
        self.store.host_report(&h(id), report(cpus)).await.unwrap();
        self.heard(id).await;
        self.get_host(id).await
    }

    pub async fn heard(&self, id: &str) -> Vec<HostId> {
        let until = self.clock.now().plus(Duration::from_secs(3600));
        self.store.host_lease_renew(&[h(id)], until).await.unwrap()
    }

    pub async fn get_host(&self, id: &str) -> Host {
        self.store.host_get(&h(id)).await.unwrap().unwrap()
    }

    /// Places by what the store says now, as the placer does.
    pub async fn place(&self, call: Call, new: NewInstance) -> ClaimRequest {
        let placed = self.placed(Request::from(&new.spec)).await;
        ClaimRequest { call, new, placed }
    }

    pub async fn placed(&self, mut request: Request) -> Result<(Placement, Claim, i64)> {
        let views = self.store.host_views().await.unwrap();
        request.devices.pools = self.pools().await;
        let placement = placement::place(&views, &request)?;
        let view = views.iter().find(|view| view.id == placement.host).unwrap();
        let claim = view.claim(&request, &placement);
        Ok((placement, claim, view.version))
    }

    async fn pools(&self) -> Arc<BTreeMap<PoolId, PoolMatch>> {
        let pools = self.store.pool_all().await.unwrap();
        Arc::new(pools.into_iter().map(|pool| (pool.id, pool.matches)).collect())
    }

    /// Where the placer would put one device more.
    pub async fn extension(&self, instance: &Instance, device: &device::Request) -> Result<Option<Extension>> {
        let Some(placement) = &instance.placement else { return Ok(None) };
        let view = self.store.host_view(&placement.host).await.unwrap().unwrap();
        let requests = vec![device.clone()];
        let wishes = Wishes { requests, pools: self.pools().await, ..Wishes::default() };
        let assignment = placement::extend(&view, &wishes, &placement.pins)?.remove(0);
        let claims = view.devices.claims(&assignment);
        Ok(Some(Extension { host: placement.host.clone(), version: view.version, assignment, claims }))
    }

    pub async fn attach(&self, instance: &Instance, device: device::Request) -> Result<(Operation, Instance)> {
        let placed = self.extension(instance, &device).await;
        let Instance { tenant, id, .. } = instance.clone();
        let request = AttachRequest { call: call(), tenant, id, etag: String::new(), device, placed };
        match self.store.instance_attach(request).await? {
            AttachAnswer::Attached(done) => Ok(done.into_inner()),
            AttachAnswer::Stale => panic!("nobody else placed anything"),
        }
    }

    pub async fn detach(&self, instance: &Instance, device: &str) -> Result<(Operation, Instance)> {
        let done = self.store.instance_detach(&call(), &instance.tenant, &instance.id, "", device).await?;
        Ok(done.into_inner())
    }

    /// The host tells of these devices, and of no others.
    pub async fn devices(&self, host: &str, devices: Vec<Device>) -> bool {
        self.store.device_report(&h(host), told(Some(devices))).await.unwrap()
    }

    pub async fn record(&self, host: &str, device: &str) -> Record {
        self.store.device_get(&h(host), &device.into()).await.unwrap().unwrap()
    }

    pub async fn claim(&self, call: Call, new: NewInstance) -> Result<(Operation, Instance)> {
        let request = self.place(call, new).await;
        match self.store.instance_claim(vec![request]).await?.pop().unwrap() {
            ClaimAnswer::Admitted { operation, instance, .. } => Ok((operation, instance)),
            ClaimAnswer::Refused(error) => Err(error),
            ClaimAnswer::Stale => panic!("nobody else placed anything"),
        }
    }

    pub async fn instance(&self, tenant: &str, id: &str) -> Instance {
        self.claim(call(), small(tenant, id)).await.unwrap().1
    }

    pub async fn get(&self, uid: InstanceUid) -> Instance {
        self.store.instance_by_uid(uid).await.unwrap().unwrap()
    }

    pub async fn settle(&self, uid: InstanceUid) -> Settled {
        self.store.instance_settle(vec![uid]).await.unwrap().pop().unwrap()
    }

    /// The host says this of it, up to date with everything that was asked.
    pub async fn see(&self, uid: InstanceUid, phase: Phase) -> bool {
        let instance = self.get(uid).await;
        let host = instance.host().unwrap().clone();
        let epoch = self.store.host_get(&host).await.unwrap().unwrap().epoch;
        let truth = seen(&instance, phase);
        !self.store.instance_observe(&host, epoch, vec![(uid, truth)], false).await.unwrap().is_empty()
    }

    /// Created, seen running, settled.
    pub async fn running(&self, tenant: &str, id: &str) -> Instance {
        let instance = self.instance(tenant, id).await;
        self.see(instance.uid, Phase::Running).await;
        self.settle(instance.uid).await;
        self.get(instance.uid).await
    }

    pub async fn command(&self, instance: &Instance, command: Command) -> Result<(Operation, Instance)> {
        let done = self.store.instance_command(&call(), &instance.tenant, &instance.id, "", command).await?;
        Ok(done.into_inner())
    }

    /// All the way to the end.
    pub async fn delete(&self, instance: &Instance) {
        self.command(instance, Command::Delete { force: false }).await.unwrap();
        self.see(instance.uid, Phase::Absent).await;
        let settled = self.settle(instance.uid).await;
        assert_eq!(settled.after, None, "gone");
    }

    pub async fn place_again(&self, uid: InstanceUid) -> PlaceAnswer {
        let (placement, claim, version) = self.placed(Request::from(&self.get(uid).await)).await.unwrap();
        self.store.instance_place(uid, placement, claim, version).await.unwrap()
    }

    pub async fn operation(&self, operation: &Operation) -> Operation {
        self.store.operation_get(operation.uid).await.unwrap().unwrap()
    }

    pub async fn consistent(&self) {
        assert_eq!(self.store.consistency().await.unwrap(), Vec::<String>::new());
    }

    /// Every row of every table, to compare.
    pub async fn dump(&self) -> BTreeMap<String, Vec<String>> {
        use sqlx::{Connection as _, Row as _};
        let url = format!("sqlite:{}?mode=ro", self.dir.path().join("croft.db").display());
        let mut conn = sqlx::AnyConnection::connect(&url).await.unwrap();
        let tables =
            sqlx::query("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_sqlx%' ESCAPE '\\'")
                .fetch_all(&mut conn)
                .await
                .unwrap();
        let mut dump = BTreeMap::new();
        for table in tables {
            let name: String = table.get(0);
            let text = format!("SELECT * FROM {name}");
            let rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch_all(&mut conn).await.unwrap();
            let mut lines: Vec<String> = rows
                .iter()
                .map(|row| {
                    (0..row.len())
                        .map(|at| match row.try_get::<Option<String>, _>(at) {
                            Ok(text) => format!("{text:?}"),
                            Err(_) => format!("{:?}", row.get::<Option<i64>, _>(at)),
                        })
                        .collect::<Vec<_>>()
                        .join(",")
                })
                .collect();
            lines.sort();
            dump.insert(name, lines);
        }
        dump
    }
}

/// What an agent says of its devices after its boot.
pub fn told(devices: Option<Vec<Device>>) -> DeviceReport {
    DeviceReport { devices, boot_id: "boot-1".to_owned(), layout_generation: 0, layout_problems: Vec::new() }
}

/// One NUMA cell of cores with two threads, 64 GiB, 1000 GiB of disk.
pub fn report(cpus: i32) -> HostReport {
    let cores = (0..cpus / 2).map(|core| vec![core, core + cpus / 2]).collect();
    HostReport {
        capacity: Capacity {
            cells: vec![Cell { id: 0, cores, memory_mib: 65536, huge_pages: BTreeMap::new() }],
            vcpus: i64::from(cpus),
            memory_mib: 65536,
            disk_gib: 1000,
            disk_free_gib: 900,
        },
        foreign: Some(Resources::default()),
        info: serde_json::json!({"agentVersion": "1"}),
        features: ["nocloud", "seed.files", "disk.rebuild"].map(str::to_owned).into(),
        conditions: Vec::new(),
        boot_id: "boot-1".to_owned(),
    }
}

/// 1 vCPU, 1 GiB, 10 GiB of disk, on `images/debian`.
pub fn small(tenant: &str, id: &str) -> NewInstance {
    NewInstance {
        tenant: t(tenant),
        id: id.to_owned(),
        labels: Labels::new(),
        annotations: Labels::new(),
        spec: Spec {
            vcpus: 1,
            memory_mib: 1024,
            image: "images/debian".to_owned(),
            image_uid: ImageUid::parse("00000000-0000-0000-0000-000000000000").unwrap(),
            disks: vec![Disk { size_gib: 10 }],
            interfaces: vec![Interface { network: "default".into() }],
            cpu: Cpu::default(),
            huge_page_kib: 0,
            cloud_init: CloudInit::default(),
            host_selector: Labels::new(),
            policy: placement::Policy::default(),
            devices: Vec::new(),
            node: None,
        },
        device_paths: Default::default(),
        power: Power::Running,
        restart: Restart::OnFailure,
        stop_timeout: Duration::from_secs(90),
        user_data: "#cloud-config\npassword: hunter2\n".to_owned(),
    }
}

/// An observation that answers to everything that was asked so far.
pub fn seen(instance: &Instance, phase: Phase) -> Observed {
    Observed {
        generation: instance.meta.generation,
        phase,
        reason: String::new(),
        message: String::new(),
        conditions: Vec::new(),
        addresses: Vec::new(),
        exit: None,
        start_time: None,
        restart_count: 0,
        power_generation: instance.intent.power_generation,
        reboot_generation: instance.intent.reboot_generation,
        reset_generation: instance.intent.reset_generation,
        disk_generation: instance.intent.disk_generation,
        attached_devices: instance.spec.devices.iter().map(|request| request.id.clone()).collect(),
        released_devices: instance.intent.detaching.keys().cloned().collect(),
    }
}
