//! How many claims a second the store commits, by batch size: `cargo run --release -p croft-store --example
//! claim_rate`.
//!
//! Beside it the bare commit rate of the same file, so that the disk's part can be told from ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use croft_core::access::Principal;
use croft_core::audit::Call;
use croft_core::event::{Event, Severity};
use croft_core::host::{Capacity, Cell, Resources};
use croft_core::id::{HostId, ImageUid, TenantUid};
use croft_core::image::{Boot, DiskImage, File, Firmware, Format, Image};
use croft_core::instance::{CloudInit, Cpu, Disk, Interface, Power, Restart, Spec};
use croft_core::meta::{Labels, Meta};
use croft_core::placement::{self, HostView, Policy, Request};
use croft_core::ports::NewInstance;
use croft_core::tenant::Tenant;
use croft_core::time::SystemClock;
use croft_core::{Clock as _, Result};
use croft_store::{ClaimAnswer, ClaimRequest, HostReport, Options, Store};

const HOSTS: usize = 8;
const FOR: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir().map_err(croft_core::Error::internal)?;
    let store = Store::open(Options::in_dir(dir.path(), Arc::new(SystemClock))).await?;
    furnish(&store).await?;
    let bare = rate(async || event(&store).await.map(|()| 1)).await?;
    println!("bare commits          {bare:>8.0} /s");
    let mut number = 0;
    for size in [1, 4, 16, 64, 256] {
        let claims = rate(async || claim(&store, size, &mut number).await).await?;
        println!("claims, {size:>3} a commit  {claims:>8.0} /s");
    }
    let faults = store.consistency().await?;
    println!("faults: {faults:?}");
    Ok(())
}

async fn rate(mut work: impl AsyncFnMut() -> Result<usize>) -> Result<f64> {
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < FOR {
        done += work().await?;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

fn call(request_id: String) -> Call {
    Call {
        principal: Principal::Local,
        method: "/croft.v1.Instances/CreateInstance",
        request_id,
        body_digest: [0; 32],
        peer: String::new(),
        validate_only: false,
    }
}

async fn furnish(store: &Store) -> Result<()> {
    let now = store.now();
    let meta = |uid: String| Meta::new(uid, Labels::new(), Labels::new(), now);
    for (id, parent) in [("acme", None), ("dev", Some("acme"))] {
        let tenant = Tenant {
            id: id.into(),
            meta: meta(TenantUid::new(now).to_string()),
            parent: parent.map(Into::into),
            display_name: String::new(),
        };
        store.tenant_create(&call(String::new()), tenant).await?;
    }
    let uid = ImageUid::new(now);
    let file = File { uri: "https://images.example/d".to_owned(), sha256: "0".repeat(64) };
    let boot = Boot::Disk(DiskImage { file, format: Format::Qcow2, min_disk_gib: 1 });
    let (tenant, description) = (None, String::new());
    let image = Image {
        uid,
        meta: meta(uid.to_string()),
        tenant,
        id: "d".to_owned(),
        description,
        boot,
        firmware: Firmware::Uefi,
    };
    store.image_create(&call(String::new()), image).await?;
    for number in 0..HOSTS {
        let host = HostId(format!("h{number}"));
        let token = [u8::try_from(number).unwrap_or(0); 32];
        let hour = now.plus(Duration::from_secs(3600));
        store.host_enrolment_create(&call(String::new()), &host, token, hour).await?;
        store.host_enrol("", &host, token, [0; 32], |_| Ok(String::new())).await?;
        store.host_report(&host, large()).await?;
        store.host_lease_renew(&[host], hour).await?;
    }
    Ok(())
}

/// Room for all that the trial may place.
fn large() -> HostReport {
    HostReport {
        capacity: Capacity {
            cells: vec![Cell { memory_mib: 1 << 40, ..Cell::default() }],
            vcpus: 1 << 30,
            memory_mib: 1 << 40,
            disk_gib: 1 << 40,
            disk_free_gib: 1 << 40,
        },
        foreign: Some(Resources::default()),
        info: serde_json::Value::Null,
        features: Vec::new(),
        conditions: Vec::new(),
        boot_id: String::new(),
    }
}

async fn event(store: &Store) -> Result<()> {
    let text = String::new;
    let event = Event {
        revision: 0,
        time: SystemClock.now(),
        tenant: None,
        target: text(),
        reason: text(),
        message: text(),
        severity: Severity::Info,
    };
    store.event_append(event).await
}

fn wanted(number: usize) -> NewInstance {
    NewInstance {
        tenant: "dev".into(),
        id: format!("vm-{number}"),
        labels: Labels::from([("app".to_owned(), "bench".to_owned())]),
        annotations: Labels::new(),
        spec: Spec {
            vcpus: 1,
            memory_mib: 64,
            image: "images/d".to_owned(),
            image_uid: ImageUid::new(croft_core::Timestamp(0)),
            disks: vec![Disk { size_gib: 1 }],
            interfaces: vec![Interface { network: "default".into() }],
            cpu: Cpu::default(),
            huge_page_kib: 0,
            cloud_init: CloudInit::default(),
            host_selector: Labels::new(),
            policy: Policy::Spread,
            devices: Vec::new(),
            node: None,
        },
        device_paths: Default::default(),
        power: Power::Running,
        restart: Restart::OnFailure,
        stop_timeout: Duration::from_secs(90),
        user_data: String::new(),
    }
}

async fn views(store: &Store) -> Result<Vec<HostView>> {
    let mut views = Vec::new();
    for (id, version) in store.host_versions().await? {
        // Nobody else places here: the room of an empty host, at the present version.
        if let Some(host) = store.host_get(&id).await? {
            views.push(HostView::empty(&host, version));
        }
    }
    Ok(views)
}

async fn claim(store: &Store, size: usize, number: &mut usize) -> Result<usize> {
    let mut hosts = views(store).await?;
    let mut requests = Vec::with_capacity(size);
    for _ in 0..size {
        *number += 1;
        let new = wanted(*number);
        let request = Request::from(&new.spec);
        let placed = placement::place(&hosts, &request);
        let placed = placed.map(|placement| {
            let view = hosts.iter_mut().find(|view| view.id == placement.host).expect("placed on one of these");
            let claim = view.apply(&request, &placement);
            (placement, claim, view.version)
        });
        requests.push(ClaimRequest { call: call(format!("request-{number}")), new, placed });
    }
    let answers = store.instance_claim(requests).await?;
    Ok(answers.iter().filter(|answer| matches!(answer, ClaimAnswer::Admitted { .. })).count())
}
