//! Random lives of many instances: whatever happens in whichever order, the rows agree, no limit is passed, no host is
//! overfull, and a claim is refused for quota exactly when a model that counts from scratch says so.

use std::collections::BTreeMap;

use croft_core::device::{Kind, Mode, Request};
use croft_core::id::InstanceUid;
use croft_core::instance::{Instance, Phase, Power, State};
use croft_core::{Clock, Error, Reason};
use croft_store::{Command, Drain, InstanceFilter, PlaceAnswer};
use proptest::prelude::*;

use crate::bed::{Bed, call, h, seen, small, t};
use crate::boards::{gpu, h100, mig, nic, of_pool, pool, vgpu};

const TENANTS: [&str; 3] = ["acme", "child", "leaf"];
const LIMITS: [(&str, &str, i64); 4] =
    [("acme", "vcpus", 12), ("child", "instances", 5), ("leaf", "vcpus", 4), ("acme", "disk_gib", 80)];
const HOSTS: [&str; 2] = ["h1", "h2"];
const PHASES: [Phase; 8] = [
    Phase::Absent,
    Phase::Preparing,
    Phase::Starting,
    Phase::Running,
    Phase::Stopping,
    Phase::Off,
    Phase::Paused,
    Phase::Failed,
];

#[derive(Debug, Clone)]
enum Step {
    Claim {
        tenant: usize,
        vcpus: i64,
        dedicated: bool,
        devices: Vec<usize>,
    },
    Attach {
        at: usize,
        device: usize,
    },
    Detach {
        at: usize,
    },
    /// What the host has, without some of it.
    Tell {
        host: usize,
        without: usize,
    },
    Command {
        at: usize,
        which: usize,
    },
    Observe {
        at: usize,
        phase: usize,
    },
    Look {
        host: usize,
    },
    SettleAll,
    Fence {
        host: usize,
    },
    Drain {
        host: usize,
    },
    Undrain {
        host: usize,
    },
    ComeBack {
        host: usize,
    },
    Silence,
    PlaceAll,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3_usize, 1..4_i64, any::<bool>(), proptest::collection::vec(0..6_usize, 0..3))
            .prop_map(|(tenant, vcpus, dedicated, devices)| Step::Claim { tenant, vcpus, dedicated, devices }),
        2 => (0..16_usize, 0..6_usize).prop_map(|(at, device)| Step::Attach { at, device }),
        3 => (0..16_usize).prop_map(|at| Step::Detach { at }),
        1 => (0..2_usize, 0..8_usize).prop_map(|(host, without)| Step::Tell { host, without }),
        4 => (0..16_usize, 0..8_usize).prop_map(|(at, which)| Step::Command { at, which }),
        6 => (0..16_usize, 0..8_usize).prop_map(|(at, phase)| Step::Observe { at, phase }),
        1 => (0..2_usize).prop_map(|host| Step::Look { host }),
        4 => Just(Step::SettleAll),
        1 => (0..2_usize).prop_map(|host| Step::Fence { host }),
        2 => (0..2_usize).prop_map(|host| Step::Drain { host }),
        2 => (0..2_usize).prop_map(|host| Step::Undrain { host }),
        2 => (0..2_usize).prop_map(|host| Step::ComeBack { host }),
        1 => Just(Step::Silence),
        2 => Just(Step::PlaceAll),
        1 => Just(Step::Kill),
    ]
}

async fn all(bed: &Bed) -> Vec<Instance> {
    bed.store.instance_list(&InstanceFilter::default(), &croft_store::Page::first(1000)).await.unwrap().0
}

fn below(tenant: &str) -> &'static [&'static str] {
    match tenant {
        "acme" => &["acme", "child", "leaf"],
        "child" => &["child", "leaf"],
        _ => &["leaf"],
    }
}

/// Counted from what exists, without any counter.
fn over_quota(existing: &[Instance], tenant: &str, more: &BTreeMap<String, i64>) -> bool {
    LIMITS.iter().any(|(limited, resource, limit)| {
        let concerned = below(limited);
        let used: i64 = existing
            .iter()
            .filter(|instance| concerned.contains(&instance.tenant.as_str()))
            .map(|instance| instance.spec.charges().get(*resource).copied().unwrap_or(0))
            .sum();
        concerned.contains(&tenant) && used + more.get(*resource).copied().unwrap_or(0) > *limit
    })
}

fn request(id: &str, which: usize) -> Request {
    match which {
        0 => mig(id, "1g.10gb"),
        1 => mig(id, "3g.40gb"),
        2 => vgpu(id, "H100XM-20C"),
        3 => vgpu(id, "H100XM-40C"),
        4 => gpu(id),
        _ => of_pool(id, "vfs"),
    }
}

async fn attach(bed: &Bed, instance: &Instance, id: &str, which: usize) {
    match bed.attach(instance, request(id, which)).await {
        Ok((operation, _)) => assert_eq!(operation.subject, id),
        Err(error) => assert!(
            matches!(
                error.reason(),
                Reason::NoCapacity | Reason::DeviceNeedsStop | Reason::InstanceDeleting | Reason::AlreadyExists
            ),
            "{error}"
        ),
    }
}

async fn detach(bed: &Bed, instance: &Instance) {
    let Some(request) = instance.spec.devices.first() else { return };
    if let Err(error) = bed.detach(instance, &request.id).await {
        assert!(matches!(error.reason(), Reason::InstanceDeleting | Reason::DeviceNeedsStop), "{error}");
    }
}

/// `without`: one that is not seen, and past the last one all are.
async fn tell(bed: &Bed, host: &str, without: usize) {
    let mut devices: Vec<_> = nic().into_iter().chain([h100("0000:41:00.0"), h100("0000:42:00.0")]).collect();
    if without < devices.len() {
        devices.remove(without);
    }
    bed.devices(host, devices).await;
}

async fn claim(bed: &Bed, number: usize, tenant: &str, vcpus: i64, dedicated: bool, devices: &[usize]) {
    let existing = all(bed).await;
    let mut new = small(tenant, &format!("vm-{number}"));
    new.spec.vcpus = vcpus;
    new.spec.cpu.dedicated = dedicated;
    new.spec.devices = devices.iter().enumerate().map(|(at, which)| request(&format!("d-{at}"), *which)).collect();
    let charges = new.spec.charges();
    match bed.claim(bed.fresh(), new).await {
        Ok(_) => assert!(!over_quota(&existing, tenant, &charges), "admitted over a limit"),
        Err(Error::QuotaExceeded(_)) => assert!(over_quota(&existing, tenant, &charges), "refused below the limits"),
        Err(error) => {
            assert_eq!(error.reason(), Reason::NoCapacity, "{error}");
            assert!(!over_quota(&existing, tenant, &charges), "quota is asked first");
        }
    }
}

async fn command(bed: &Bed, instance: &Instance, which: usize) {
    let command = match which {
        0 => Command::Start,
        1 => Command::Stop { timeout: None },
        2 => Command::Reboot,
        3 => Command::Reset,
        4 => Command::Rebuild,
        5 => Command::RebuildElsewhere { room: Ok(()) },
        _ => Command::Delete { force: which == 7 },
    };
    if let Err(error) = bed.command(instance, command).await {
        let expected =
            matches!(error.reason(), Reason::InstanceDeleting | Reason::InstanceNotRunning | Reason::InstanceUnknown);
        assert!(expected, "{error}");
    }
}

async fn drain(bed: &Bed, host: &str) {
    if let Err(error) = bed.store.host_drain(&call(), &h(host), Drain::default()).await {
        assert!(
            matches!(error.reason(), Reason::HostInMaintenance | Reason::HostUnreachable | Reason::HostFenced),
            "{error}"
        );
    }
    bed.store.host_drained(&h(host)).await.unwrap();
}

fn powers(existing: &[Instance]) -> Vec<(InstanceUid, Power)> {
    existing.iter().map(|one| (one.uid, one.intent.power)).collect()
}

async fn come_back(bed: &Bed, host: &str) {
    let epoch = bed.get_host(host).await.epoch;
    bed.heard(host).await;
    let placed: Vec<_> = all(bed).await.into_iter().filter(|one| one.host() == Some(&h(host))).collect();
    let truth = placed.iter().map(|one| (one.uid, seen(one, Phase::Running))).collect();
    bed.store.instance_observe(&h(host), epoch, truth, true).await.unwrap();
    bed.store.host_epoch_confirmed(&h(host), epoch).await.unwrap();
}

async fn run(mut bed: Bed, steps: Vec<Step>) -> Bed {
    for (number, step) in steps.into_iter().enumerate() {
        let existing = all(&bed).await;
        let pick = |at: usize| existing.get(at % existing.len().max(1));
        match step {
            Step::Claim { tenant, vcpus, dedicated, devices } => {
                claim(&bed, number, TENANTS[tenant], vcpus, dedicated, &devices).await;
            }
            Step::Attach { at, device } => {
                if let Some(instance) = pick(at) {
                    attach(&bed, instance, &format!("a-{number}"), device).await;
                }
            }
            Step::Detach { at } => {
                if let Some(instance) = pick(at) {
                    detach(&bed, instance).await;
                }
            }
            Step::Tell { host, without } => tell(&bed, HOSTS[host], without).await,
            Step::Command { at, which } => {
                if let Some(instance) = pick(at) {
                    command(&bed, instance, which).await;
                }
            }
            Step::Observe { at, phase } => {
                if let Some(instance) = pick(at).filter(|instance| instance.host().is_some()) {
                    bed.see(instance.uid, PHASES[phase]).await;
                }
            }
            Step::Look { host } => {
                let epoch = bed.get_host(HOSTS[host]).await.epoch;
                bed.store.instance_observe(&h(HOSTS[host]), epoch, vec![], true).await.unwrap();
            }
            Step::SettleAll => {
                let uids = bed.store.instance_unsettled().await.unwrap();
                bed.store.instance_settle(uids).await.unwrap();
            }
            Step::Fence { host } => {
                bed.store.host_fence(&call(), &h(HOSTS[host])).await.unwrap();
            }
            Step::Drain { host } => {
                drain(&bed, HOSTS[host]).await;
                assert_eq!(powers(&all(&bed).await), powers(&existing), "nobody's wish is changed");
            }
            Step::Undrain { host } => {
                bed.store.host_undrain(&call(), &h(HOSTS[host])).await.unwrap();
                assert_eq!(powers(&all(&bed).await), powers(&existing), "nobody's wish is changed");
            }
            Step::ComeBack { host } => come_back(&bed, HOSTS[host]).await,
            Step::Silence => {
                bed.advance(4000);
                bed.store.host_lease_expire(bed.clock.now()).await.unwrap();
            }
            Step::PlaceAll => place_all(&bed, &existing).await,
            Step::Kill => bed = bed.reopen().await,
        }
        check(&bed).await;
    }
    bed
}

async fn place_all(bed: &Bed, existing: &[Instance]) {
    for instance in existing.iter().filter(|one| one.status.state == State::Placing && one.placement.is_none()) {
        if let Ok((placement, claim, version)) = bed.placed(instance.into()).await {
            let answer = bed.store.instance_place(instance.uid, placement, claim, version).await.unwrap();
            assert!(!matches!(answer, PlaceAnswer::Stale), "nobody else places");
        }
    }
}

async fn check(bed: &Bed) {
    bed.consistent().await;
    for (tenant, resource, limit) in LIMITS {
        let used = bed.used(tenant, resource).await;
        assert!(used <= limit, "{resource} of {tenant}: {used} > {limit}");
    }
    for view in bed.store.host_views().await.unwrap() {
        if view.maintenance.is_some() {
            let desired = bed.store.host_desired(&view.id).await.unwrap();
            let off = |(one, ..): &(Instance, _, _, _)| one.intent.power == Power::Stopped;
            assert!(desired.instances.iter().all(off), "{} is to run something", view.id);
        }
        let free = view.free();
        assert!(free.vcpus >= 0 && free.memory_mib >= 0 && free.disk_gib >= 0, "{} is overfull: {free:?}", view.id);
        for gpu in view.devices.0.values().filter(|one| one.gpu().is_some()) {
            assert_eq!(gpu.mode == Mode::Idle, gpu.taken.is_empty(), "{gpu:?}");
        }
    }
}

/// Everything can always be brought to its end, and then nothing is held.
async fn wind_down(bed: &Bed) {
    for instance in all(bed).await {
        bed.command(&instance, Command::Delete { force: true }).await.unwrap();
    }
    for host in HOSTS {
        bed.store.host_fence(&call(), &h(host)).await.unwrap();
    }
    let uids = bed.store.instance_unsettled().await.unwrap();
    bed.store.instance_settle(uids).await.unwrap();
    let dump = bed.dump().await;
    for table in ["instances", "charges", "host_claims", "device_claims", "secrets", "instance_labels"] {
        assert!(dump[table].is_empty(), "{table}: {:?}", dump[table]);
    }
    for tenant in TENANTS {
        for quota in bed.store.quota_list(&t(tenant)).await.unwrap() {
            assert_eq!(quota.0.quota.used, 0, "{}", quota.0.quota.name());
        }
    }
    bed.consistent().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rows_always_agree(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bed = Bed::new().await;
            bed.tenant("acme", None).await;
            bed.tenant("child", Some("acme")).await;
            bed.tenant("leaf", Some("child")).await;
            bed.image("debian", None).await;
            bed.host("h1", 8).await;
            bed.host("h2", 4).await;
            bed.store.pool_create(&call(), pool("vfs", Kind::VirtualFunction, "8086:10ca")).await.unwrap();
            for host in HOSTS {
                tell(&bed, host, usize::MAX).await;
            }
            for tenant in TENANTS {
                bed.limit(tenant, "gpu_memory_mib", 1 << 40).await;
                bed.limit(tenant, "devices/vfs", 1 << 40).await;
            }
            for (tenant, resource, limit) in LIMITS {
                bed.limit(tenant, resource, limit).await;
            }
            let bed = run(bed, steps).await;
            wind_down(&bed).await;
        });
    }
}
