use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use croft_core::cluster::{Cluster, Status};
use croft_core::condition::{Condition, ConditionStatus};
use croft_core::device::{Atom, Device, Gpu, Holder, Kind, Mode, Promise, Record, State as DeviceState};
use croft_core::host::{Capacity, Resources, State as HostState};
use croft_core::id::InstanceUid;
use croft_core::instance::State;
use croft_core::meta::Meta;
use croft_core::placement::HostView;
use croft_core::placement::device::DeviceViews;
use croft_core::quota::Quota;
use croft_engine::Meter;
use croft_store::StateCount;
use tonic::Code;

use super::meter::EngineMeter;
use super::*;

fn device(id: &str, kind: Kind) -> Device {
    Device {
        id: id.into(),
        kind,
        state: DeviceState::Available,
        reason: String::new(),
        message: String::new(),
        pci_id: String::new(),
        vendor_name: String::new(),
        device_name: "a dongle".to_owned(),
        class: String::new(),
        serial: String::new(),
        slot_path: String::new(),
        driver: String::new(),
        iommu_group: None,
        companions: Vec::new(),
        numa_node: None,
        physical: None,
        functions_total: 0,
        functions_count: 0,
        gpu: None,
        last_reset: None,
    }
}

fn record(device: Device) -> Record {
    Record {
        host: "h1".into(),
        device,
        quarantine: None,
        release_counter: 0,
        update_time: Timestamp(0),
        promise: None,
        holders: Vec::new(),
    }
}

/// With one vGPU on it.
fn l40s() -> Record {
    let gpu = Gpu {
        model: "l40s_48gb".to_owned(),
        product_name: String::new(),
        uuid: "GPU-1".to_owned(),
        memory_mib: 49_152,
        mode: Mode::Vgpu,
        mig_enabled: false,
        board: None,
        mig_instances: Vec::new(),
        vgpu_framework: "vendor".to_owned(),
        vgpu_types: Vec::new(),
        heterogeneous_capable: false,
        fabric_partitions: Vec::new(),
    };
    let holder = Holder {
        uid: InstanceUid::new(Timestamp(1)),
        name: "tenants/acme/instances/train".to_owned(),
        atoms: vec![Atom::Function(0)],
        mig_profiles: Vec::new(),
        vgpu_types: vec!["L40S-8Q".to_owned()],
    };
    let promise =
        Promise { mode: Mode::Idle, framebuffer_mib: 49_152, framebuffer_used_mib: 8192, vgpu_size_mib: 8192 };
    let found = record(Device { gpu: Some(gpu), ..device("0000:41:00.0", Kind::Gpu) });
    Record { promise: Some(promise), holders: vec![holder], ..found }
}

fn usb() -> Record {
    Record { quarantine: Some("wobbles".to_owned()), ..record(device("usb-0000:00:14.0-2", Kind::Usb)) }
}

/// Reached, with its rights not known.
fn cluster() -> Cluster {
    let reachable = Condition {
        kind: "Reachable".to_owned(),
        status: ConditionStatus::True,
        reason: String::new(),
        message: String::new(),
        last_transition_time: Timestamp(0),
    };
    let policies =
        Condition { kind: "PoliciesInstalled".to_owned(), status: ConditionStatus::False, ..reachable.clone() };
    let rights =
        Condition { kind: "RightsSufficient".to_owned(), status: ConditionStatus::Unknown, ..reachable.clone() };
    let status = Status {
        conditions: vec![reachable, policies, rights],
        credential_expire_time: Some(Timestamp(2_100_000_000_000_000)),
        answer_time: Some(Timestamp(2_000_000_000_500_000)),
        nodes: 5,
        nodes_ready: 4,
        ..Status::default()
    };
    Cluster {
        meta: Meta::new("u".to_owned(), BTreeMap::new(), BTreeMap::new(), Timestamp(0)),
        tenant: Some("acme".into()),
        id: "prod".to_owned(),
        description: String::new(),
        tenants: Vec::new(),
        credential_digest: String::new(),
        node_server: String::new(),
        cluster_dns: Vec::new(),
        status,
    }
}

fn truth() -> Arc<Truth> {
    let quota = |tenant: &str, limit, used| Quota {
        tenant: tenant.into(),
        resource: "vcpus".to_owned(),
        limit,
        used,
        generation: 1,
    };
    let host = HostView {
        id: "h1".into(),
        version: 1,
        labels: BTreeMap::new(),
        state: HostState::Ready,
        cordoned: false,
        maintenance: None,
        unready: None,
        capacity: Capacity { vcpus: 8, memory_mib: 16_384, disk_gib: 100, ..Capacity::default() },
        reserve: Resources { vcpus: 0, memory_mib: 1024, disk_gib: 10 },
        foreign: Resources { vcpus: 1, memory_mib: 512, disk_gib: 0 },
        overhead_memory_mib: 256,
        cpu_overcommit_percent: 400,
        claimed: Resources { vcpus: 2, memory_mib: 2304, disk_gib: 20 },
        dedicated: BTreeSet::from([4, 5]),
        huge_claimed: BTreeMap::from([((0, 2048), 1024)]),
        instances: 3,
        devices: DeviceViews::default(),
        devices_seen: true,
        seed_files: false,
        rebuilds: false,
    };
    let count = |state, instances| StateCount {
        tenant: "acme".into(),
        state,
        instances,
        since: Timestamp(1_900_000_000_000_000),
    };
    Arc::new(Truth {
        quotas: Some(vec![quota("acme", Some(50), 12), quota("free", None, 3)]),
        hosts: Some(vec![host]),
        instances: Some(vec![count(State::Running, 2), count(State::Stopped, 1)]),
        devices: Some(vec![l40s(), usb()]),
        clusters: Some(vec![cluster()]),
    })
}

/// Metrics in which everything has been counted once.
fn busy() -> Arc<Metrics> {
    let metrics = Metrics::new();
    metrics.observe("/croft.v1.Instances/GetInstance", Code::NotFound, Duration::from_millis(3));
    metrics.observe("/croft.agent.v1.Agent/Session", Code::Ok, Duration::from_secs(3600));
    metrics.handshake(Handshake::Good);
    metrics.certificate("ca", Timestamp(2_000_000_000_000_000));
    let meter = EngineMeter(metrics.clone());
    meter.claimed(Duration::from_millis(2), 16);
    meter.reconciled(Duration::from_millis(1), 3);
    meter.left(State::Starting, Duration::from_secs(4));
    metrics
}

#[track_caller]
fn assert_line(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
}

#[test]
fn what_is_counted_and_what_is_read_are_both_there() {
    let metrics = busy();
    let (_open, _connection) = (metrics.call("/croft.v1.Instances/WatchInstances"), metrics.connection());
    drop(metrics.call("/croft.v1.Instances/GetInstance"));
    let text = metrics.render(&truth(), Format::Prometheus).unwrap();
    for line in [
        r#"croft_quota_limit{tenant="acme",resource="vcpus"} 50"#,
        r#"croft_quota_used{tenant="acme",resource="vcpus"} 12"#,
        r#"croft_quota_used{tenant="free",resource="vcpus"} 3"#,
        r#"croft_hosts{state="READY"} 1"#,
        r#"croft_hosts{state="FENCED"} 0"#,
        r#"croft_host_capacity{host="h1",resource="memory_mib"} 16384"#,
        r#"croft_host_claimed{host="h1",resource="vcpus"} 4"#,
        r#"croft_host_claimed{host="h1",resource="memory_mib"} 3328"#,
        r#"croft_host_free{host="h1",resource="vcpus"} 21"#,
        r#"croft_instances{tenant="acme",state="RUNNING"} 2"#,
        r#"croft_instances_oldest_timestamp_seconds{tenant="acme",state="RUNNING"} 1900000000"#,
        r#"croft_grpc_requests_total{method="/croft.v1.Instances/GetInstance",code="NOT_FOUND"} 1"#,
        r#"croft_grpc_open_requests{method="/croft.v1.Instances/WatchInstances"} 1"#,
        r#"croft_grpc_open_requests{method="/croft.v1.Instances/GetInstance"} 0"#,
        "croft_connections 1",
        r#"croft_tls_handshakes_total{result="good"} 1"#,
        r#"croft_tls_handshakes_total{result="refused"} 0"#,
        "croft_placement_seconds_count 1",
        r#"croft_claim_batch_size_bucket{le="16.0"} 1"#,
        r#"croft_instance_state_seconds_bucket{le="5.0",state="STARTING"} 1"#,
        r#"croft_certificate_expiry_timestamp_seconds{certificate="ca"} 2000000000"#,
        r#"croft_devices{host="h1",kind="GPU",state="AVAILABLE"} 1"#,
        r#"croft_devices{host="h1",kind="USB",state="QUARANTINED"} 1"#,
        concat!(
            r#"croft_device_info{host="h1",device="0000:41:00.0",kind="GPU",model="l40s_48gb",uuid="GPU-1","#,
            r#"tenant="acme",instance="train",profile="L40S-8Q"} 1"#
        ),
        concat!(
            r#"croft_device_info{host="h1",device="usb-0000:00:14.0-2",kind="USB",model="a dongle",uuid="","#,
            r#"tenant="",instance="",profile=""} 1"#
        ),
        r#"croft_gpu_framebuffer_bytes{host="h1",device="0000:41:00.0"} 51539607552"#,
        r#"croft_gpu_framebuffer_used_bytes{host="h1",device="0000:41:00.0"} 8589934592"#,
        r#"croft_cluster_reachable{cluster="tenants/acme/clusters/prod"} 1"#,
        r#"croft_cluster_condition{cluster="tenants/acme/clusters/prod",condition="PoliciesInstalled"} 0"#,
        concat!(
            r#"croft_cluster_expiry_timestamp_seconds{cluster="tenants/acme/clusters/prod","#,
            r#"certificate="credential"} 2100000000"#
        ),
        r#"croft_cluster_answer_timestamp_seconds{cluster="tenants/acme/clusters/prod"} 2000000000"#,
        r#"croft_cluster_nodes_ready{cluster="tenants/acme/clusters/prod"} 4"#,
        r#"croft_scrape_errors_total{family="hosts"} 0"#,
        &format!(r#"croft_build_info{{version="{}"}} 1"#, croft_program::version()),
    ] {
        assert_line(&text, line);
    }
    assert!(!text.contains(r#"croft_quota_limit{tenant="free""#), "unlimited is no number");
    assert!(!text.contains("RightsSufficient"), "what is not known is no number");
    assert!(!text.contains(r#"croft_grpc_request_seconds_count{method="/croft.agent.v1.Agent/Session""#), "{text}");
}

#[test]
fn what_could_not_be_read_is_missing_and_not_zero() {
    let unread = Arc::new(Truth { hosts: None, instances: None, devices: None, clusters: None, ..(*truth()).clone() });
    let text = Metrics::new().render(&unread, Format::Prometheus).unwrap();
    assert!(text.contains("croft_quota_used{"));
    for family in ["croft_hosts", "croft_host_capacity", "croft_instances", "croft_device", "croft_cluster"] {
        assert!(!text.contains(family), "{family} in\n{text}");
    }
}

#[test]
fn openmetrics_ends_as_it_must() {
    let text = busy().render(&truth(), Format::OpenMetrics).unwrap();
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    assert_line(&text, "# TYPE croft_grpc_requests counter");
    assert_line(&text, "# TYPE croft_build info");
}

/// Every name that is exported is in the list that operators read.
#[test]
fn each_metric_is_documented() {
    let text = busy().render(&truth(), Format::Prometheus).unwrap();
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    for line in text.lines() {
        if let Some((name, _)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            assert!(docs.contains(&format!("`{name}")), "{name} is not in docs/metrics.md");
        }
    }
}

#[test]
fn promtool_finds_nothing_to_say() {
    let text = busy().render(&truth(), Format::Prometheus).unwrap();
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match spawned {
        Ok(child) => child,
        Err(error) => {
            let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!in_ci, "promtool (Debian package prometheus) must be there in CI: {error}");
            eprintln!("SKIPPED: promtool is not installed ({error}); Debian has it in the package prometheus");
            return;
        }
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let ended = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.trim().is_empty(), "{said}");
}
