//! Devices: exact pieces with one owner each, charged by what they are, given back by the host's word alone.

use croft_core::device::{Device, Kind, Mode, State as DeviceState};
use croft_core::instance::{Instance, Phase, State};
use croft_core::ports::NewInstance;
use croft_core::{Error, Reason, Result};
use croft_store::{ClaimAnswer, Command, DeviceFilter, Page, PlaceAnswer};

use crate::bed::{Bed, call, dry, h, refused, seen, small, told};
use crate::boards::{device, gpu, h100, l40s, mig, nic, of_pool, pool, vgpu};

const GPU: &str = "0000:41:00.0";
const MODEL: &str = "h100_sxm_80gb";

fn with(id: &str, devices: Vec<croft_core::device::Request>) -> NewInstance {
    let mut new = small("acme", id);
    new.spec.devices = devices;
    new
}

impl Bed {
    /// One host with these devices; `acme` may have all of them.
    pub async fn with_devices(devices: Vec<Device>) -> Self {
        let bed = Self::furnished().await;
        bed.devices("h1", devices).await;
        bed.limit("acme", "gpu_memory_mib", 1 << 30).await;
        bed
    }

    async fn have(&self, id: &str, devices: Vec<croft_core::device::Request>) -> Result<Instance> {
        self.claim(call(), with(id, devices)).await.map(|(_, instance)| instance)
    }

    async fn mode(&self, device: &str) -> Mode {
        self.record("h1", device).await.promise.unwrap().mode
    }

    async fn version(&self) -> i64 {
        self.store.host_view(&h("h1")).await.unwrap().unwrap().version
    }

    /// Behind the code's back; `false`: the database refused it.
    async fn insert(&self, device: &str, atoms: &[&str], owner: &Instance) -> bool {
        use sqlx::Connection as _;
        let url = format!("sqlite:{}", self.dir.path().join("croft.db").display());
        let mut conn = sqlx::AnyConnection::connect(&url).await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        let mut refused = None;
        for atom in atoms {
            let text = "INSERT INTO device_claims (host, device, atom, instance_uid) VALUES ('h1', $1, $2, $3)";
            let row = sqlx::query(text).bind((*device).to_owned()).bind((*atom).to_owned());
            if let Err(error) = row.bind(owner.uid.to_string()).execute(&mut *tx).await {
                refused = Some(error);
                break;
            }
        }
        // Never kept: each trial is against what the store itself wrote.
        tx.rollback().await.unwrap();
        let Some(error) = refused else { return true };
        assert!(error.as_database_error().unwrap().is_unique_violation(), "{error}");
        false
    }
}

fn words(atoms: &[croft_core::device::Atom]) -> Vec<String> {
    atoms.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn the_database_refuses_an_overlap_by_itself() {
    let (mut card, mut audio) = (h100(GPU), device("0000:41:00.1", Kind::Function));
    card.companions = vec![audio.id.clone()];
    audio.companions = vec![card.id.clone()];
    let slices = h100("0000:42:00.0");
    let shared = h100("0000:43:00.0");
    let bed = Bed::with_devices([card, audio, slices.clone(), shared].into_iter().chain(nic()).collect()).await;
    for (id, kind, pci) in [("vfs", Kind::VirtualFunction, "8086:10ca"), ("nics", Kind::Function, "8086:10c9")] {
        bed.store.pool_create(&call(), pool(id, kind, pci)).await.unwrap();
        bed.limit("acme", &format!("devices/{id}"), 8).await;
    }
    let other = bed.instance("acme", "other").await;
    // What a rogue writer would have to insert for each kind of thing.
    let whole: Vec<String> = {
        let view = bed.store.host_view(&h("h1")).await.unwrap().unwrap();
        words(&view.devices.0[&slices.id].whole())
    };
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    assert_eq!(whole.len(), 1 + 16 + 8 + 7 + 1);
    let slice = ["m4", "m5", "c3", "c4", "vf9"];
    let function = ["vf0"];

    // Nobody has anything: each of them alone would go in.
    for atoms in [&whole[..], &slice, &function] {
        assert!(bed.insert("0000:42:00.0", atoms, &other).await);
    }

    // A whole GPU, with its companion.
    let owner = bed.have("whole", vec![gpu("gpu")]).await.unwrap();
    let held = owner.placement.as_ref().unwrap().devices[0].device.to_string();
    assert_ne!(held, "", "{owner:?}");
    for atoms in [&whole[..], &slice, &["m0"], &["c6"], &["me0"], &function, &["vf15"]] {
        assert!(!bed.insert(&held, atoms, &other).await, "{atoms:?} beside a whole GPU");
    }
    bed.delete(&owner).await;

    // The companion counts as the GPU, and the GPU as the companion.
    bed.store.device_quarantine(&call(), &h("h1"), &"0000:42:00.0".into(), "").await.unwrap();
    bed.store.device_quarantine(&call(), &h("h1"), &"0000:43:00.0".into(), "").await.unwrap();
    let owner = bed.have("companion", vec![gpu("gpu")]).await.unwrap();
    assert_eq!(owner.placement.as_ref().unwrap().devices[0].companions.len(), 1);
    assert!(!bed.insert("0000:41:00.1", &["whole"], &other).await);
    assert_eq!(
        refused(bed.have("audio", vec![of_pool("nic", "nics"), of_pool("nic-2", "nics")]).await).reason(),
        Reason::NoCapacity
    );
    for id in ["0000:42:00.0", "0000:43:00.0"] {
        bed.store.device_release(&call(), &h("h1"), &id.into()).await.unwrap();
    }

    // A slice: shuts out whatever shares a memory or compute slice, a function, or all of it.
    let owner = bed.have("slice", vec![mig("mig", "3g.40gb")]).await.unwrap();
    let piece = owner.placement.as_ref().unwrap().devices[0].clone();
    let device = piece.device.to_string();
    for atom in words(&piece.atoms) {
        assert!(!bed.insert(&device, &[atom.as_str()], &other).await, "{atom} twice");
    }
    assert!(!bed.insert(&device, &whole, &other).await);
    let beside = if piece.mig_start == 0 { ["m4", "m5", "c5", "c6", "vf9"] } else { ["m0", "m1", "c5", "c6", "vf9"] };
    assert!(bed.insert(&device, &beside, &other).await, "what lies beside it is free");

    // A time-sliced vGPU holds its function, so nobody gets all of the GPU.
    let owner = bed.have("shared", vec![vgpu("vgpu", "H100XM-20C")]).await.unwrap();
    let piece = owner.placement.as_ref().unwrap().devices[0].clone();
    assert_ne!(piece.device.as_str(), device, "never beside MIG slices");
    assert!(!bed.insert(piece.device.as_str(), &whole, &other).await);
    assert!(
        !bed.insert(piece.device.as_str(), &words(&piece.atoms).iter().map(String::as_str).collect::<Vec<_>>(), &other)
            .await
    );

    // A virtual function, and then all of the card.
    let vf = bed.have("vf", vec![of_pool("nic", "vfs")]).await.unwrap();
    let card = ["whole", "vf0", "vf1", "vf2", "vf3", "vf4", "vf5", "vf6"];
    assert!(!bed.insert("0000:01:00.0", &card, &other).await);
    assert!(!bed.insert("0000:01:10.0", &["whole"], &other).await);
    bed.delete(&vf).await;
    bed.have("nic", vec![of_pool("nic", "nics")]).await.unwrap();
    assert!(!bed.insert("0000:01:00.0", &function, &other).await, "a function of a card that is taken whole");
    bed.consistent().await;
}

#[tokio::test]
async fn exact_pieces_are_claimed_charged_shown_and_given_back() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let vm = bed.have("vm", vec![mig("a", "2g.20gb"), mig("b", "1g.10gb")]).await.unwrap();
    let pieces = &vm.placement.as_ref().unwrap().devices;
    assert_eq!(pieces.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(bed.used("acme", &format!("gpu_slices/{MODEL}/2g.20gb")).await, 1);
    assert_eq!(bed.used("acme", "gpu_memory_mib").await, 20480 + 10240);
    let record = bed.record("h1", GPU).await;
    assert_eq!(record.promise.unwrap().mode, Mode::MigVgpu);
    assert_eq!(record.holders.len(), 1);
    assert_eq!(record.holders[0].name, "tenants/acme/instances/vm");
    assert_eq!(record.holders[0].mig_profiles, ["1g.10gb", "2g.20gb"]);
    assert!(!record.in_use(), "there is room");
    bed.consistent().await;
    assert_eq!(bed.get(vm.uid).await.placement, vm.placement, "as it was answered");

    bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    bed.see(vm.uid, Phase::Off).await;
    bed.settle(vm.uid).await;
    assert_eq!(bed.mode(GPU).await, Mode::MigVgpu, "stopped, it keeps what it has");
    bed.command(&vm, Command::Delete { force: false }).await.unwrap();
    assert_eq!(bed.record("h1", GPU).await.holders.len(), 1, "until the host says that nothing is left");
    bed.see(vm.uid, Phase::Absent).await;
    bed.settle(vm.uid).await;
    let record = bed.record("h1", GPU).await;
    assert_eq!((record.promise.unwrap().mode, record.holders.len()), (Mode::Idle, 0));
    assert_eq!(bed.used("acme", "gpu_memory_mib").await, 0);
    bed.consistent().await;
    bed.have("next", vec![gpu("gpu")]).await.unwrap();
    assert!(bed.record("h1", GPU).await.in_use());
    bed.consistent().await;
}

#[tokio::test]
async fn of_two_that_ask_for_the_last_slice_one_gets_it() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    bed.have("first", vec![mig("mig", "3g.40gb")]).await.unwrap();
    // Both were placed on the same look, as two replicas would.
    let one = bed.place(call(), with("one", vec![mig("mig", "3g.40gb")])).await;
    let two = bed.place(call(), with("two", vec![mig("mig", "3g.40gb")])).await;
    let three = bed.place(call(), small("acme", "three")).await;
    let answers = bed.store.instance_claim(vec![one, two.clone(), three]).await.unwrap();
    assert!(matches!(answers[0], ClaimAnswer::Admitted { .. }));
    assert_eq!(answers[1], ClaimAnswer::Stale);
    assert!(matches!(answers[2], ClaimAnswer::Admitted { .. }), "its neighbour is not disturbed");
    assert_eq!(bed.store.instance_claim(vec![two]).await.unwrap(), [ClaimAnswer::Stale], "the host moved on");
    let error = refused(bed.have("two", vec![mig("mig", "3g.40gb")]).await);
    assert!(error.to_string().contains("no place is left for 3g.40gb"), "{error}");
    bed.consistent().await;
}

#[tokio::test]
async fn a_batch_never_makes_one_gpu_two_things() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let mut batch = Vec::new();
    for (id, request) in [
        ("mig", mig("d", "1g.10gb")),
        ("shared", vgpu("d", "H100XM-20C")),
        ("whole", gpu("d")),
        ("other-size", vgpu("d", "H100XM-40C")),
    ] {
        batch.push(bed.place(call(), with(id, vec![request])).await);
    }
    let answers = bed.store.instance_claim(batch).await.unwrap();
    let admitted: Vec<bool> = answers.iter().map(|one| matches!(one, ClaimAnswer::Admitted { .. })).collect();
    assert_eq!(admitted, [true, false, false, false]);
    assert_eq!(bed.mode(GPU).await, Mode::MigVgpu);
    bed.consistent().await;
}

#[tokio::test]
async fn time_sliced_vgpus_of_one_gpu_have_one_size_and_its_framebuffer() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let mut batch = Vec::new();
    for id in ["small", "large"] {
        let type_name = if id == "small" { "H100XM-20C" } else { "H100XM-40C" };
        batch.push(bed.place(call(), with(id, vec![vgpu("d", type_name)])).await);
    }
    let answers = bed.store.instance_claim(batch).await.unwrap();
    assert_eq!(answers[1], ClaimAnswer::Stale, "placed on the same look, of another size");
    let error = refused(bed.have("large", vec![vgpu("d", "H100XM-40C")]).await);
    assert!(error.to_string().contains("cannot mix sizes"), "{error}");
    for id in ["two", "three", "four"] {
        bed.have(id, vec![vgpu("d", "H100XM-20C")]).await.unwrap();
    }
    let promise = bed.record("h1", GPU).await.promise.unwrap();
    assert_eq!((promise.framebuffer_mib, promise.framebuffer_used_mib, promise.vgpu_size_mib), (81920, 81920, 20480));
    assert!(bed.record("h1", GPU).await.in_use());
    assert_eq!(refused(bed.have("five", vec![vgpu("d", "H100XM-20C")]).await).reason(), Reason::NoCapacity);
    bed.consistent().await;
    for id in ["small", "two", "three", "four"] {
        let vm = bed.store.instance_get(&"acme".into(), id).await.unwrap().unwrap();
        assert_eq!(bed.mode(GPU).await, Mode::Vgpu);
        bed.delete(&vm).await;
        bed.consistent().await;
    }
    assert_eq!(bed.mode(GPU).await, Mode::Idle, "the last one has left");
    bed.have("large", vec![vgpu("d", "H100XM-40C")]).await.unwrap();
}

#[tokio::test]
async fn quota_denies_without_a_grant_and_every_limit_above_binds() {
    let bed = Bed::furnished().await;
    bed.devices("h1", vec![h100(GPU), l40s("0000:51:00.0")]).await;
    bed.tenant("child", Some("acme")).await;
    let ask = |request| {
        let mut new = small("child", "vm");
        new.spec.devices = vec![request];
        new
    };
    let slice = || ask(mig("mig", "2g.20gb"));
    let denied = refused(bed.claim(call(), slice()).await);
    assert_eq!(denied.reason(), Reason::DeviceNotGranted);
    assert!(denied.to_string().contains("gpu_slices/h100_sxm_80gb/2g.20gb"), "{denied}");
    bed.limit("acme", "gpus", 8).await;
    bed.limit("acme", &format!("gpu_slices/{MODEL}/2g.20gb"), 1).await;
    assert_eq!(refused(bed.claim(call(), slice()).await).reason(), Reason::DeviceNotGranted, "above is no grant");
    bed.limit("child", "gpu_memory_mib", 100_000).await;
    bed.claim(dry(), slice()).await.unwrap();
    assert_eq!(bed.used("acme", "gpu_memory_mib").await, 0, "a dry run charges nothing");
    let (_, vm) = bed.claim(call(), slice()).await.unwrap();
    assert_eq!(bed.used("acme", "gpu_memory_mib").await, 20480, "also what is not limited there");
    let mut second = slice();
    second.id = "second".to_owned();
    let Error::QuotaExceeded(violations) = refused(bed.claim(call(), second.clone()).await) else { panic!("quota") };
    assert_eq!((violations[0].tenant.as_str(), violations[0].used, violations[0].limit), ("acme", 1, 1));
    bed.delete(&vm).await;
    bed.claim(call(), second).await.unwrap();
    bed.consistent().await;
}

#[tokio::test]
async fn a_fence_gives_devices_and_their_charges_back_and_a_new_host_charges_what_it_gives() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let vm = bed.have("vm", vec![gpu("gpu")]).await.unwrap();
    assert_eq!(bed.used("acme", "gpus/h100_sxm_80gb").await, 1);
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    assert_eq!((bed.mode(GPU).await, bed.record("h1", GPU).await.holders.len()), (Mode::Idle, 0));
    assert_eq!((bed.used("acme", "gpus").await, bed.used("acme", "instances").await), (0, 1));
    bed.consistent().await;
    assert_eq!(refused(bed.have("other", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity, "its host is fenced");

    bed.host("h2", 8).await;
    bed.devices("h2", vec![l40s(GPU)]).await;
    assert!(matches!(bed.place_again(vm.uid).await, PlaceAnswer::Placed(_)));
    assert_eq!((bed.used("acme", "gpus/l40s_48gb").await, bed.used("acme", "gpus/h100_sxm_80gb").await), (1, 0));
    bed.consistent().await;
    bed.store.host_fence(&call(), &h("h2")).await.unwrap();
    bed.limit("acme", "gpus", 0).await;
    bed.host("h3", 8).await;
    bed.devices("h3", vec![l40s(GPU)]).await;
    let again = bed.place(call(), NewInstance { spec: bed.get(vm.uid).await.spec, ..small("any", "any") }).await;
    let (placement, claim, version) = again.placed.unwrap();
    let error = refused(bed.store.instance_place(vm.uid, placement, claim, version).await);
    assert_eq!(
        error.reason(),
        Reason::QuotaExceeded,
        "what it was is charged no more, what it would be is not granted"
    );
    bed.consistent().await;
}

#[tokio::test]
async fn a_report_writes_what_is_new_and_moves_the_host_for_what_placement_looks_at() {
    let bed = Bed::furnished().await;
    let view = bed.store.host_view(&h("h1")).await.unwrap().unwrap();
    assert!(!view.devices_seen);
    assert!(bed.devices("h1", vec![h100(GPU)]).await);
    assert!(bed.store.host_view(&h("h1")).await.unwrap().unwrap().devices_seen);
    let (version, before) = (bed.version().await, bed.dump().await);
    assert!(!bed.devices("h1", vec![h100(GPU)]).await, "nothing new");
    assert_eq!(bed.dump().await, before);

    let mut shown = h100(GPU);
    shown.gpu.as_mut().unwrap().mig_enabled = true;
    assert!(bed.devices("h1", vec![shown.clone()]).await);
    assert_eq!(bed.version().await, version, "only shown");
    assert!(bed.record("h1", GPU).await.device.gpu.unwrap().mig_enabled);
    (shown.state, shown.message) = (DeviceState::Unhealthy, "Xid 79".to_owned());
    assert!(bed.devices("h1", vec![shown]).await);
    assert_eq!(bed.version().await, version + 1);
    let events = bed.store.events_list(None, Some("hosts/h1/devices/0000:41:00.0"), &Page::first(9)).await.unwrap().0;
    assert_eq!(events.last().unwrap().message, "AVAILABLE to UNHEALTHY: Xid 79");

    // A host that started again has to look before anything is placed there.
    let boot = croft_store::HostReport { boot_id: "boot-2".to_owned(), ..crate::bed::report(16) };
    bed.store.host_report(&h("h1"), boot).await.unwrap();
    assert!(!bed.store.host_view(&h("h1")).await.unwrap().unwrap().devices_seen);
    bed.limit("acme", "gpus", 1).await;
    let error = refused(bed.have("vm", vec![gpu("gpu")]).await);
    assert!(error.to_string().contains("has not told of its devices since it started"), "{error}");
}

#[tokio::test]
async fn a_look_that_failed_changes_nothing() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let before = bed.dump().await;
    let mut blind = told(None);
    blind.boot_id = "boot-9".to_owned();
    blind.layout_problems = vec!["who knows".to_owned()];
    assert!(!bed.store.device_report(&h("h1"), blind).await.unwrap());
    assert_eq!(bed.dump().await, before);
}

#[tokio::test]
async fn a_device_that_is_missing_keeps_its_holder() {
    let bed = Bed::with_devices(nic().into_iter().chain([h100(GPU)]).collect()).await;
    bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap();
    bed.limit("acme", "devices/vfs", 8).await;
    let vm = bed.have("vm", vec![gpu("gpu"), of_pool("nic", "vfs")]).await.unwrap();
    assert!(bed.devices("h1", vec![]).await);
    let record = bed.record("h1", GPU).await;
    assert_eq!((record.device.state, record.holders.len()), (DeviceState::Missing, 1));
    assert_eq!(bed.record("h1", "0000:01:10.0").await.device.state, DeviceState::Missing, "held");
    let gone = bed.store.device_get(&h("h1"), &"0000:01:10.1".into()).await.unwrap();
    assert_eq!(gone, None, "a function that nobody holds comes and goes");
    assert!(!bed.devices("h1", vec![]).await, "known by now");
    bed.consistent().await;
    assert_eq!(refused(bed.have("other", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity);

    bed.delete(&vm).await;
    assert_eq!(bed.record("h1", GPU).await.device.state, DeviceState::Missing, "free, and still not there");
    assert_eq!(refused(bed.have("other", vec![gpu("gpu")]).await).reason(), Reason::NoCapacity);
    // Released, it is forgotten with the next look that does not find it.
    bed.store.device_release(&call(), &h("h1"), &GPU.into()).await.unwrap();
    assert!(bed.devices("h1", vec![]).await);
    assert_eq!(bed.store.device_get(&h("h1"), &GPU.into()).await.unwrap(), None);
    bed.devices("h1", vec![h100(GPU)]).await;
    bed.have("other", vec![gpu("gpu")]).await.unwrap();
    bed.consistent().await;
}

#[tokio::test]
async fn a_quarantine_keeps_new_ones_away_and_a_release_is_told_to_the_host() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let vm = bed.have("vm", vec![mig("mig", "1g.10gb")]).await.unwrap();
    let kept = bed.store.device_quarantine(&call(), &h("h1"), &GPU.into(), "smells").await.unwrap().into_inner();
    assert_eq!((kept.quarantine.as_deref(), kept.holders.len()), (Some("smells"), 1));
    assert!(refused(bed.have("two", vec![mig("mig", "1g.10gb")]).await).to_string().contains("is quarantined"));
    bed.devices("h1", vec![h100(GPU)]).await;
    assert!(bed.record("h1", GPU).await.quarantine.is_some(), "a report does not end it");

    let mut sick = h100(GPU);
    (sick.state, sick.message) = (DeviceState::Stuck, "a write never returned".to_owned());
    bed.devices("h1", vec![sick]).await;
    let error = refused(bed.store.device_release(&call(), &h("h1"), &GPU.into()).await);
    assert_eq!(error.reason(), Reason::DeviceFaulty);
    assert!(error.to_string().contains("a write never returned"), "{error}");
    // A fault that is found is mended first; of one that was only told of, nobody else can say that it is over.
    for (reason, ends) in [("LinkDegraded", false), ("XidError", true)] {
        let mut sick = h100(GPU);
        (sick.state, sick.reason) = (DeviceState::Unhealthy, reason.to_owned());
        bed.devices("h1", vec![sick]).await;
        let released = bed.store.device_release(&call(), &h("h1"), &GPU.into()).await;
        assert_eq!(released.is_ok(), ends, "{reason}");
    }
    bed.devices("h1", vec![h100(GPU)]).await;
    let first = bed.store.device_release(&call(), &h("h1"), &GPU.into()).await.unwrap().into_inner();
    let again = bed.store.device_release(&call(), &h("h1"), &GPU.into()).await.unwrap().into_inner();
    assert!(again.release_counter > first.release_counter && first.release_counter > 0);
    let told = bed.store.host_desired(&h("h1")).await.unwrap().releases;
    assert_eq!(told, [(GPU.into(), again.release_counter)]);
    bed.have("two", vec![mig("mig", "1g.10gb")]).await.unwrap();
    bed.delete(&vm).await;
    assert_eq!(bed.mode(GPU).await, Mode::MigVgpu, "one is left");
    let nobody = bed.store.device_release(&call(), &h("h1"), &"0000:99:00.0".into()).await;
    assert_eq!(refused(nobody).reason(), Reason::NotFound);
    bed.consistent().await;
}

#[tokio::test]
async fn devices_are_listed_by_kind_and_pool_in_pages() {
    let bed = Bed::with_devices(nic().into_iter().chain([h100(GPU)]).collect()).await;
    bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap();
    let ids = |records: &[croft_core::device::Record]| -> Vec<String> {
        records.iter().map(|one| one.device.id.to_string()).collect()
    };
    let all = DeviceFilter::default();
    let (first, next) = bed.store.device_list(&all, &Page::first(3)).await.unwrap();
    assert_eq!(ids(&first), ["0000:01:00.0", "0000:01:10.0", "0000:01:10.1"]);
    let (second, end) = bed.store.device_list(&all, &Page { size: 3, token: next }).await.unwrap();
    assert_eq!((ids(&second), end), (vec![GPU.to_owned()], None));
    let gpus = DeviceFilter { kinds: vec![Kind::Gpu], host: Some(h("h1")), ..all.clone() };
    assert_eq!(ids(&bed.store.device_list(&gpus, &Page::first(9)).await.unwrap().0), [GPU]);
    let of = DeviceFilter { pool: Some("vfs".into()), ..all.clone() };
    assert_eq!(bed.store.device_list(&of, &Page::first(9)).await.unwrap().0.len(), 2);
    let none = DeviceFilter { pool: Some("none".into()), ..all };
    assert_eq!(refused(bed.store.device_list(&none, &Page::first(9)).await).reason(), Reason::NotFound);
    assert_eq!(bed.store.device_all().await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_pool_lives_as_long_as_somebody_holds_something_of_it() {
    let bed = Bed::with_devices(nic()).await;
    let made =
        bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap().into_inner();
    let twice = bed.store.pool_create(&call(), pool("vfs", Kind::Usb, "1:1")).await;
    assert_eq!(refused(twice).reason(), Reason::AlreadyExists);
    bed.limit("acme", "devices/vfs", 1).await;
    let vm = bed.have("vm", vec![of_pool("nic", "vfs")]).await.unwrap();
    assert_eq!(bed.used("acme", "devices/vfs").await, 1);
    assert_eq!(refused(bed.have("two", vec![of_pool("nic", "vfs")]).await).reason(), Reason::QuotaExceeded);
    assert_eq!(refused(bed.store.pool_delete(&call(), &"vfs".into(), "").await).reason(), Reason::PoolInUse);
    let change = |pool: &mut croft_core::device::Pool| {
        pool.matches.ids = vec!["dead:beef".to_owned()];
        Ok(())
    };
    let etag = made.meta.etag();
    let changed = bed.store.pool_update(&call(), &"vfs".into(), &etag, change).await.unwrap().into_inner();
    assert_eq!(changed.meta.generation, 2);
    assert_eq!(bed.store.pool_get(&"vfs".into()).await.unwrap(), Some(changed.clone()));
    let stale = bed.store.pool_update(&call(), &"vfs".into(), &made.meta.etag(), |_| Ok(())).await;
    assert_eq!(refused(stale).reason(), Reason::EtagMismatch);
    bed.consistent().await;
    bed.delete(&vm).await;
    assert_eq!(bed.store.pool_list(&Page::first(9)).await.unwrap().0, [changed]);
    bed.store.pool_delete(&call(), &"vfs".into(), "").await.unwrap();
    assert_eq!(bed.store.pool_all().await.unwrap(), []);
    bed.consistent().await;
}

#[tokio::test]
async fn attached_to_what_runs_and_detached_by_the_hosts_word() {
    let bed = Bed::with_devices(nic()).await;
    bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap();
    let vm = bed.running("acme", "vm").await;
    let denied = refused(bed.attach(&vm, of_pool("nic", "vfs")).await);
    assert_eq!(denied.reason(), Reason::DeviceNotGranted);
    bed.limit("acme", "devices/vfs", 1).await;
    let (attach, with) = bed.attach(&vm, of_pool("nic", "vfs")).await.unwrap();
    assert_eq!((attach.subject.as_str(), with.meta.generation), ("nic", vm.meta.generation + 1));
    assert_eq!(with.placement.as_ref().unwrap().devices[0].device.as_str(), "0000:01:10.0");
    assert_eq!((bed.used("acme", "devices/vfs").await, bed.record("h1", "0000:01:10.0").await.holders.len()), (1, 1));
    assert_eq!(refused(bed.attach(&with, of_pool("nic", "vfs")).await).reason(), Reason::AlreadyExists);
    assert_eq!(refused(bed.attach(&with, of_pool("more", "vfs")).await).reason(), Reason::QuotaExceeded);
    assert_eq!(refused(bed.attach(&with, gpu("gpu")).await).reason(), Reason::DeviceNeedsStop);
    bed.consistent().await;
    bed.settle(vm.uid).await;
    assert!(!bed.operation(&attach).await.done, "the host has not answered to it");
    bed.see(vm.uid, Phase::Running).await;
    bed.settle(vm.uid).await;
    assert!(bed.operation(&attach).await.done);
    let desired = bed.store.host_desired(&h("h1")).await.unwrap();
    assert_eq!(desired.instances[0].0.placement, with.placement);

    assert_eq!(refused(bed.detach(&with, "none").await).reason(), Reason::InvalidArgument);
    let (detach, leaving) = bed.detach(&with, "nic").await.unwrap();
    let (again, _) = bed.detach(&with, "nic").await.unwrap();
    assert_eq!(again.uid, detach.uid, "the one under way");
    bed.consistent().await;
    // Word from before it was told proves nothing.
    let mut early = seen(&leaving, Phase::Running);
    early.generation -= 1;
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, early)], true).await.unwrap();
    assert_eq!(bed.record("h1", "0000:01:10.0").await.holders.len(), 1);
    let still = croft_core::instance::Observed { released_devices: vec![], ..seen(&leaving, Phase::Running) };
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, still)], true).await.unwrap();
    assert_eq!(bed.used("acme", "devices/vfs").await, 1, "still in the guest");
    bed.see(vm.uid, Phase::Running).await;
    assert!(bed.operation(&detach).await.done);
    let without = bed.get(vm.uid).await;
    assert!(without.spec.devices.is_empty() && without.intent.detaching.is_empty());
    assert_eq!(without.placement.as_ref().unwrap().devices, []);
    assert_eq!(without.status.state, State::Running);
    assert_eq!((bed.used("acme", "devices/vfs").await, bed.record("h1", "0000:01:10.0").await.holders.len()), (0, 0));
    bed.consistent().await;
    // The same word again, now that the id is in use once more.
    let (_, anew) = bed.attach(&without, of_pool("nic", "vfs")).await.unwrap();
    let old =
        croft_core::instance::Observed { released_devices: vec!["nic".to_owned()], ..seen(&anew, Phase::Running) };
    bed.store.instance_observe(&h("h1"), 1, vec![(vm.uid, old)], true).await.unwrap();
    assert_eq!(bed.record("h1", "0000:01:10.0").await.holders.len(), 1);
    bed.delete(&anew).await;
    bed.consistent().await;
}

#[tokio::test]
async fn a_stopped_one_gets_a_gpu_and_a_fence_ends_a_detach() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let vm = bed.running("acme", "vm").await;
    bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    bed.see(vm.uid, Phase::Off).await;
    bed.settle(vm.uid).await;
    let (attach, _) = bed.attach(&bed.get(vm.uid).await, gpu("gpu")).await.unwrap();
    assert_eq!(bed.mode(GPU).await, Mode::Passthrough);
    bed.see(vm.uid, Phase::Off).await;
    bed.settle(vm.uid).await;
    assert!(bed.operation(&attach).await.done, "it is there with the next start");
    let stale = {
        let device = mig("x", "1g.10gb");
        let placed = Ok(None);
        let (tenant, id) = (vm.tenant.clone(), vm.id.clone());
        croft_store::AttachRequest { call: call(), tenant, id, etag: String::new(), device, placed }
    };
    assert_eq!(bed.store.instance_attach(stale).await.unwrap(), croft_store::AttachAnswer::Stale);

    bed.command(&vm, Command::Start).await.unwrap();
    let runs = refused(bed.detach(&vm, "gpu").await);
    assert_eq!(runs.reason(), Reason::DeviceNeedsStop, "{runs}");
    assert!(bed.get(vm.uid).await.intent.detaching.is_empty());
    bed.command(&vm, Command::Stop { timeout: None }).await.unwrap();
    bed.see(vm.uid, Phase::Off).await;
    bed.settle(vm.uid).await;
    let (detach, _) = bed.detach(&vm, "gpu").await.unwrap();
    bed.store.host_fence(&call(), &h("h1")).await.unwrap();
    assert!(bed.operation(&detach).await.done, "off is out of the guest");
    assert!(bed.get(vm.uid).await.spec.devices.is_empty());
    assert_eq!(bed.mode(GPU).await, Mode::Idle);
    bed.consistent().await;
    // Without a host: asked for, given with the next one; and let go of at once.
    let (attach, homeless) = bed.attach(&bed.get(vm.uid).await, gpu("gpu")).await.unwrap();
    bed.settle(vm.uid).await;
    assert!(bed.operation(&attach).await.done && homeless.placement.is_none());
    assert_eq!(bed.used("acme", "gpus").await, 0);
    let (detach, _) = bed.detach(&homeless, "gpu").await.unwrap();
    bed.settle(vm.uid).await;
    assert!(bed.operation(&detach).await.done);
    assert!(bed.get(vm.uid).await.spec.devices.is_empty());
    bed.consistent().await;
}

#[tokio::test]
async fn a_layout_keeps_gpus_for_one_use_and_takes_nothing_away() {
    use croft_core::device::DeviceLayout;
    let bed = Bed::with_devices(nic().into_iter().chain([h100(GPU)]).collect()).await;
    let keep = |gpu_mode| vec![DeviceLayout { device: GPU.into(), virtual_functions: 0, gpu_mode }];
    let functions =
        |count| vec![DeviceLayout { device: "0000:01:00.0".into(), virtual_functions: count, gpu_mode: None }];
    let set = |devices| {
        let store = bed.store.clone();
        async move { store.host_layout_set(&call(), &h("h1"), "", devices).await.map(croft_store::Done::into_inner) }
    };
    let vm = bed.have("vm", vec![mig("mig", "1g.10gb")]).await.unwrap();
    assert_eq!(refused(set(keep(Some(Mode::Vgpu))).await).reason(), Reason::DeviceInUse);
    let layout = set(keep(Some(Mode::MigVgpu))).await.unwrap();
    assert_eq!((layout.generation, layout.settled()), (1, false));
    bed.delete(&vm).await;
    let error = refused(bed.have("vm", vec![gpu("gpu")]).await);
    assert!(error.to_string().contains("kept for MIG_VGPU"), "{error}");
    set(keep(Some(Mode::Idle))).await.unwrap();
    assert_eq!(refused(bed.have("vm", vec![mig("mig", "1g.10gb")]).await).reason(), Reason::NoCapacity);
    bed.have("vm", vec![gpu("gpu")]).await.unwrap();

    assert_eq!(refused(set(functions(8)).await).reason(), Reason::InvalidArgument, "it has 7");
    let wrong = vec![DeviceLayout { device: "0000:99:00.0".into(), virtual_functions: 0, gpu_mode: None }];
    assert_eq!(refused(set(wrong).await).reason(), Reason::InvalidArgument);
    let layout = set(functions(2)).await.unwrap();
    bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap();
    bed.limit("acme", "devices/vfs", 8).await;
    let holder = bed.have("holder", vec![of_pool("nic", "vfs")]).await.unwrap();
    for smaller in [functions(0), vec![]] {
        let error = refused(set(smaller).await);
        assert_eq!(error.reason(), Reason::DeviceInUse);
        assert!(error.to_string().contains("tenants/acme/instances/holder"), "{error}");
    }
    bed.delete(&holder).await;
    set(functions(0)).await.unwrap();

    let mut answer = told(Some(nic().into_iter().chain([h100(GPU)]).collect()));
    answer.layout_generation = layout.generation;
    answer.layout_problems = vec!["0000:01:00.0: busy".to_owned()];
    assert!(bed.store.device_report(&h("h1"), answer).await.unwrap());
    let now = bed.store.host_layout_get(&h("h1")).await.unwrap();
    assert_eq!((now.told_generation, now.problems.len(), now.settled()), (layout.generation, 1, false));
    assert_eq!(bed.store.host_desired(&h("h1")).await.unwrap().layout, now);
    let stale = bed.store.host_layout_set(&call(), &h("h1"), &layout.etag(), vec![]).await;
    assert_eq!(refused(stale).reason(), Reason::EtagMismatch);
}

#[tokio::test]
async fn a_killed_plane_finds_everything_where_it_was() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    let vm = bed.have("vm", vec![mig("mig", "3g.40gb")]).await.unwrap();
    let bed = bed.reopen().await;
    bed.consistent().await;
    let view = bed.store.host_view(&h("h1")).await.unwrap().unwrap();
    let gpu = &view.devices.0[&GPU.into()];
    assert_eq!((gpu.mode, gpu.taken.len()), (Mode::MigVgpu, vm.placement.unwrap().devices[0].atoms.len()));
    assert_eq!(bed.store.host_views().await.unwrap(), [view]);
}

#[tokio::test]
async fn a_host_that_is_deleted_takes_its_devices_along() {
    let bed = Bed::with_devices(vec![h100(GPU)]).await;
    bed.store.host_delete(&call(), &h("h1"), "").await.unwrap();
    let dump = bed.dump().await;
    for table in ["devices", "gpu_modes", "host_layouts"] {
        assert!(dump[table].is_empty(), "{table}");
    }
}
