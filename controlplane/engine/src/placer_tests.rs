//! Devices through the placer: what quota leaves is what is placed, refusals say what there is.

use std::sync::Arc;
use std::time::Duration;

use croft_core::access::Principal;
use croft_core::audit::Call;
use croft_core::device::{self, Device, Gpu, Kind, Mode, State, VgpuType, Wanted};
use croft_core::host::{Capacity, Cell};
use croft_core::id::{HostId, ImageUid, TenantId, TenantUid};
use croft_core::image::{Boot, DiskImage, File, Firmware, Format, Image};
use croft_core::instance::{CloudInit, Cpu, Disk, Instance, Power, Restart, Spec};
use croft_core::meta::{Labels, Meta};
use croft_core::placement::{Outcome, Policy, Predicate};
use croft_core::ports::NewInstance;
use croft_core::tenant::Tenant;
use croft_core::{Clock, Error, Reason, Result};
use croft_store::DeviceReport;

use crate::bed::Bed;
use crate::dirty::Dirty;
use crate::hooks::Hooks;
use crate::placer::{Attach, Placer};

fn call() -> Call {
    Call {
        principal: Principal::Local,
        method: "/test/Create",
        request_id: String::new(),
        body_digest: [0; 32],
        peer: String::new(),
        validate_only: false,
    }
}

fn card(id: &str, model: &str, memory_mib: i64) -> Device {
    let vgpu_types = vec![VgpuType {
        name: format!("{model}-8Q"),
        framebuffer_mib: 8192,
        mig_profile: String::new(),
        max_count: memory_mib / 8192,
    }];
    let gpu = Gpu {
        model: model.to_owned(),
        product_name: String::new(),
        uuid: String::new(),
        memory_mib,
        mode: Mode::Idle,
        mig_enabled: false,
        board: None,
        mig_instances: Vec::new(),
        vgpu_framework: "vendor".to_owned(),
        vgpu_types,
        heterogeneous_capable: false,
        fabric_partitions: Vec::new(),
    };
    Device {
        id: id.into(),
        kind: Kind::Gpu,
        state: State::Available,
        reason: String::new(),
        message: String::new(),
        pci_id: "10de:2330".to_owned(),
        vendor_name: String::new(),
        device_name: String::new(),
        class: "030200".to_owned(),
        serial: String::new(),
        slot_path: String::new(),
        driver: "nvidia".to_owned(),
        iommu_group: Some(1),
        companions: Vec::new(),
        numa_node: None,
        physical: None,
        functions_total: 8,
        functions_count: 0,
        gpu: Some(gpu),
        last_reset: None,
    }
}

fn report(devices: Vec<Device>) -> DeviceReport {
    DeviceReport {
        devices: Some(devices),
        boot_id: "boot".to_owned(),
        layout_generation: 0,
        layout_problems: Vec::new(),
    }
}

fn capacity() -> Capacity {
    Capacity {
        cells: vec![Cell { memory_mib: 65536, ..Cell::default() }],
        vcpus: 64,
        memory_mib: 65536,
        disk_gib: 1000,
        disk_free_gib: 900,
    }
}

struct Stage {
    bed: Bed,
    placer: Placer,
    _actor: tokio::task::JoinHandle<()>,
}

impl Stage {
    /// `acme`, an image, and `h1` with an H100 and an L40S.
    async fn new() -> Self {
        let bed = Bed::new().await;
        let now = bed.clock.now();
        let meta = |uid: String| Meta::new(uid, Labels::new(), Labels::new(), now);
        let tenant = Tenant {
            id: "acme".into(),
            meta: meta(TenantUid::new(now).to_string()),
            parent: None,
            display_name: String::new(),
        };
        bed.store.tenant_create(&call(), tenant).await.unwrap();
        let uid = ImageUid::new(now);
        let file = File { uri: "https://images.example/disk".to_owned(), sha256: "0".repeat(64) };
        let image = Image {
            uid,
            meta: meta(uid.to_string()),
            tenant: None,
            id: "d".to_owned(),
            description: String::new(),
            boot: Boot::Disk(DiskImage { file, format: Format::Qcow2, min_disk_gib: 1 }),
            firmware: Firmware::Uefi,
        };
        bed.store.image_create(&call(), image).await.unwrap();
        bed.host_with("h1", 1, capacity()).await;
        let devices = vec![card("0000:41:00.0", "h100", 81920), card("0000:42:00.0", "l40s", 46080)];
        bed.store.device_report(&"h1".into(), report(devices)).await.unwrap();
        let (placer, actor) = Placer::new(bed.store.clone(), Hooks::silent(), Arc::new(Dirty::default()));
        Self { bed, placer, _actor: tokio::spawn(actor) }
    }

    async fn limit(&self, resource: &str, limit: i64) {
        let set = move |own: &mut croft_core::quota::Labelled| {
            own.quota.limit = Some(limit);
            Ok(())
        };
        self.bed.store.quota_set(&call(), &"acme".into(), resource, "", set).await.unwrap();
    }

    async fn create(&self, id: &str, wanted: &[Wanted]) -> Result<Instance> {
        self.placer.create(call(), asked(id, wanted)).await.map(|admitted| admitted.instance)
    }

    async fn consistent(&self) {
        assert_eq!(self.bed.store.consistency().await.unwrap(), Vec::<String>::new());
    }
}

fn asked(id: &str, wanted: &[Wanted]) -> NewInstance {
    let requests = wanted.iter().enumerate();
    NewInstance {
        tenant: TenantId::from("acme"),
        id: id.to_owned(),
        labels: Labels::new(),
        annotations: Labels::new(),
        spec: Spec {
            vcpus: 1,
            memory_mib: 512,
            image: "images/d".to_owned(),
            image_uid: ImageUid::new(croft_core::Timestamp(0)),
            disks: vec![Disk { size_gib: 1 }],
            interfaces: Vec::new(),
            cpu: Cpu::default(),
            huge_page_kib: 0,
            cloud_init: CloudInit::default(),
            host_selector: Labels::new(),
            policy: Policy::Spread,
            node: None,
            devices: requests
                .map(|(at, wanted)| device::Request { id: format!("d-{at}"), wanted: wanted.clone() })
                .collect(),
        },
        device_paths: Default::default(),
        power: Power::Running,
        restart: Restart::OnFailure,
        stop_timeout: Duration::from_secs(90),
        user_data: String::new(),
    }
}

fn any() -> Wanted {
    Wanted::Gpu { model: None }
}

fn model(instance: &Instance) -> &str {
    &instance.placement.as_ref().unwrap().devices[0].model
}

#[tokio::test]
async fn what_no_host_has_is_refused_with_what_there_is() {
    let stage = Stage::new().await;
    for (wanted, field, says) in [
        (Wanted::Gpu { model: Some("a100".to_owned()) }, "gpu.model", "there are h100; l40s"),
        (Wanted::Mig { profile: "2g.20gb".to_owned(), model: None }, "mig.profile", "no host reports any"),
        (Wanted::Vgpu { type_name: "x".to_owned() }, "vgpu.type", "there are h100: h100-8Q; l40s: l40s-8Q"),
    ] {
        let Err(Error::Invalid(violations)) = stage.create("vm", &[wanted]).await else { panic!("{field}") };
        assert_eq!(violations[0].field, format!("instance.spec.devices[0].{field}"));
        assert!(violations[0].description.contains(says), "{}", violations[0].description);
    }
    let nics = [Wanted::Pool { pool: "nics".into() }];
    let denied = stage.create("vm", &nics).await.unwrap_err();
    assert_eq!(denied.reason(), Reason::DeviceNotGranted, "nobody learns which pools there are");
    stage.limit("devices/nics", 1).await;
    let unknown = stage.create("vm", &nics).await.unwrap_err();
    assert!(unknown.to_string().contains("pools/nics does not exist"), "{unknown}");
}

#[tokio::test]
async fn any_gpu_is_one_of_a_model_that_quota_leaves() {
    let stage = Stage::new().await;
    assert_eq!(stage.create("vm", &[any()]).await.unwrap_err().reason(), Reason::DeviceNotGranted);
    stage.limit("gpus/h100", 0).await;
    assert_eq!(stage.create("vm", &[any()]).await.unwrap_err().reason(), Reason::QuotaExceeded);
    stage.limit("gpus", 2).await;
    assert_eq!(model(&stage.create("vm", &[any()]).await.unwrap()), "l40s");
    let error = stage.create("more", &[any()]).await.unwrap_err();
    assert_eq!(error.reason(), Reason::NoCapacity, "{error}");
    stage.limit("gpus/h100", 1).await;
    assert_eq!(model(&stage.create("more", &[any()]).await.unwrap()), "h100");
    stage.consistent().await;
}

#[tokio::test]
async fn a_batch_spends_each_grant_once() {
    let stage = Stage::new().await;
    for (resource, limit) in [("gpus/h100", 1), ("gpus/l40s", 1)] {
        stage.limit(resource, limit).await;
    }
    let one = [any()];
    let (a, b, c) = tokio::join!(stage.create("a", &one), stage.create("b", &one), stage.create("c", &one));
    let mut models: Vec<String> = [&a, &b, &c].into_iter().flatten().map(|one| model(one).to_owned()).collect();
    models.sort();
    assert_eq!(models, ["h100", "l40s"]);
    let refused = [a, b, c].into_iter().find_map(Result::err).unwrap();
    assert_eq!(refused.reason(), Reason::QuotaExceeded, "{refused}");
    stage.consistent().await;
}

#[tokio::test]
async fn two_of_any_model_find_the_model_that_there_are_two_of() {
    let stage = Stage::new().await;
    let mut devices: Vec<Device> = ["41", "42"].map(|bus| card(&format!("0000:{bus}:00.0"), "h100", 81920)).into();
    devices.extend(["43", "44"].map(|bus| card(&format!("0000:{bus}:00.0"), "l40s", 46080)));
    stage.bed.store.device_report(&"h1".into(), report(devices)).await.unwrap();
    stage.limit("gpus", 4).await;
    stage.limit("gpus/h100", 1).await;
    let vm = stage.create("vm", &[any(), any()]).await.unwrap();
    assert!(vm.placement.unwrap().devices.iter().all(|one| one.model == "l40s"));
    stage.consistent().await;
}

#[tokio::test]
async fn explained_host_by_host() {
    let stage = Stage::new().await;
    stage.bed.host("h2", 2).await;
    stage.limit("gpus", 2).await;
    stage.create("vm", &[any(), any()]).await.unwrap();
    let verdicts = stage.placer.explain(asked("more", &[any()])).await.unwrap();
    let of = |host: &str| {
        let verdict = verdicts.iter().find(|one| one.host == HostId::from(host)).unwrap();
        match &verdict.outcome {
            Outcome::Fits { .. } => panic!("{host} fits"),
            Outcome::Fails { predicate, message, .. } => (*predicate, message.clone()),
        }
    };
    let (predicate, message) = of("h1");
    assert_eq!(predicate, Predicate::DeviceTaken, "{message}");
    assert_eq!(of("h2").0, Predicate::Size);
}

#[tokio::test]
async fn whoever_was_granted_nothing_of_a_pool_does_not_hear_whether_it_exists() {
    let stage = Stage::new().await;
    let matches = device::PoolMatch {
        kind: Kind::Function,
        ids: vec!["10de:2330".to_owned()],
        classes: Vec::new(),
        devices: Vec::new(),
        host_selector: Labels::new(),
    };
    let meta = Meta::new("p".to_owned(), Labels::new(), Labels::new(), stage.bed.clock.now());
    let pool = device::Pool { id: "secret".into(), meta, description: String::new(), matches };
    stage.bed.store.pool_create(&call(), pool).await.unwrap();
    let heard = async |pool: &str| {
        let wanted = Wanted::Pool { pool: pool.into() };
        match stage.placer.explain(asked("vm", &[wanted])).await.unwrap().remove(0).outcome {
            Outcome::Fits { .. } => panic!("it fits"),
            Outcome::Fails { message, .. } => message.replace(pool, "POOL"),
        }
    };
    assert_eq!(heard("secret").await, heard("no-such").await);
    stage.limit("devices/secret", 1).await;
    assert_ne!(heard("secret").await, heard("no-such").await);
}

#[tokio::test]
async fn attached_through_the_placer_and_refused_with_what_stands_in_the_way() {
    let stage = Stage::new().await;
    stage.limit("gpus", 2).await;
    let mut new = asked("vm", &[]);
    new.power = Power::Stopped;
    stage.placer.create(call(), new).await.unwrap();
    let attach = |device: &str, wanted: Wanted| {
        let device = device::Request { id: device.to_owned(), wanted };
        let attach = Attach { call: call(), tenant: "acme".into(), id: "vm".to_owned(), etag: String::new(), device };
        stage.placer.attach(attach)
    };
    let waits = attach("gpu", any()).await.unwrap_err();
    assert_eq!(waits.reason(), Reason::DeviceNeedsStop, "it is not known to be off yet");
    let vm = stage.bed.store.instance_get(&"acme".into(), "vm").await.unwrap().unwrap();
    stage.bed.off(&vm).await;
    let attached = attach("gpu", any()).await.unwrap();
    assert_eq!(attached.operation.subject, "gpu");
    assert_eq!(attached.instance.placement.unwrap().devices.len(), 1);
    attach("second", any()).await.unwrap();
    let refused = attach("third", any()).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::QuotaExceeded);
    stage.limit("gpus", 9).await;
    let refused = attach("third", any()).await.unwrap_err();
    assert!(refused.to_string().starts_with("hosts/h1, which has the instance: "), "{refused}");
    let unknown = attach("fourth", Wanted::Gpu { model: Some("a100".to_owned()) }).await.unwrap_err();
    let Error::Invalid(violations) = unknown else { panic!("{unknown}") };
    assert_eq!(violations[0].field, "device.gpu.model", "as AttachDevice has it");
    stage.consistent().await;
}

#[tokio::test]
async fn what_no_host_takes_after_a_fence_says_why() {
    let stage = Stage::new().await;
    let Stage { bed, placer, .. } = &stage;
    stage.limit("gpus", 1).await;
    let vm = stage.create("vm", &[any()]).await.unwrap();
    bed.store.host_fence(&call(), &"h1".into()).await.unwrap();
    bed.host_with("h2", 2, capacity()).await;
    bed.store.device_report(&"h2".into(), report(vec![card("0000:41:00.0", "l40s", 46080)])).await.unwrap();
    for model in ["gpus/h100", "gpus/l40s"] {
        stage.limit(model, 0).await;
    }
    let look = async || {
        bed.store.instance_settle(vec![vm.uid]).await.unwrap();
        placer.place_again(vm.uid);
        // Behind it in the inbox, and behind that: the first may be answered in the same turn.
        for _ in 0..2 {
            placer.explain(asked("any", &[])).await.unwrap();
        }
        bed.store.instance_by_uid(vm.uid).await.unwrap().unwrap()
    };
    let waits = look().await;
    assert_eq!((waits.status.state.as_str(), waits.status.reason.as_str()), ("PLACING", "QUOTA_EXCEEDED"));
    assert!(waits.status.message.contains("gpus/l40s of tenants/acme: limit 0"), "{}", waits.status.message);
    // The next look tells whoever waits for the operation.
    let waits = look().await;
    let revision = bed.store.revision().await.unwrap();
    assert_eq!((look().await.status, bed.store.revision().await.unwrap()), (waits.status, revision), "said once");
    stage.limit("gpus/l40s", 1).await;
    let placed = look().await;
    assert_eq!(model(&placed), "l40s");
    bed.store.instance_settle(vec![vm.uid]).await.unwrap();
    let status = bed.store.instance_by_uid(vm.uid).await.unwrap().unwrap().status;
    assert_eq!((status.state.as_str(), status.reason.as_str()), ("PENDING", ""));
    stage.consistent().await;
}

#[tokio::test]
async fn what_is_stopped_while_it_looks_for_a_host_no_longer_says_why_it_found_none() {
    let stage = Stage::new().await;
    let store = &stage.bed.store;
    let vm = stage.create("vm", &[]).await.unwrap();
    store.host_fence(&call(), &"h1".into()).await.unwrap();
    let full = Error::NoCapacity { message: "no room".to_owned(), verdicts: Vec::new() };
    store.instance_unplaced(vm.uid, &full).await.unwrap();
    let stop = croft_store::Command::Stop { timeout: None };
    store.instance_command(&call(), &vm.tenant, &vm.id, "", stop).await.unwrap();
    store.instance_settle(vec![vm.uid]).await.unwrap();
    store.instance_unplaced(vm.uid, &full).await.unwrap();
    let status = store.instance_by_uid(vm.uid).await.unwrap().unwrap().status;
    assert_eq!((status.state.as_str(), status.reason.as_str()), ("STOPPED", ""), "{}", status.message);
}
