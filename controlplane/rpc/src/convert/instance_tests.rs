use std::collections::BTreeMap;

use croft_core::Timestamp;
use croft_core::condition::{Condition, ConditionStatus};
use croft_core::id::InstanceUid;
use croft_core::instance::{Intent, Observed, Phase, Status};
use croft_core::meta::Meta;
use croft_core::placement::Placement;

use super::*;

fn sent() -> v1::Instance {
    let spec = v1::InstanceSpec {
        vcpus: 2,
        memory_mib: 2048,
        boot_source: Some(wire::BootSource::Image("images/debian".into())),
        ..Default::default()
    };
    v1::Instance { spec: Some(spec), ..Default::default() }
}

fn new(instance: v1::Instance) -> Result<NewInstance> {
    into("acme".into(), "web", instance, 3)
}

/// As the plane would keep it.
fn kept(new: NewInstance) -> Instance {
    let uid = InstanceUid::new(Timestamp(1));
    Instance {
        uid,
        tenant: new.tenant,
        id: new.id,
        meta: Meta::new(uid.to_string(), new.labels, new.annotations, Timestamp(1)),
        spec: new.spec,
        intent: Intent::first(new.power, new.restart, new.stop_timeout),
        placement: Some(Placement { host: "h1".into(), pins: Vec::new(), devices: Vec::new(), parked: None }),
        node: None,
        status: Status::first(State::Pending, Timestamp(2)),
    }
}

#[test]
fn what_is_left_out_gets_the_defaults() {
    let new = new(sent()).unwrap();
    assert_eq!((new.power, new.restart), (Power::Running, Restart::OnFailure));
    assert_eq!((new.stop_timeout, new.spec.policy), (Duration::from_secs(90), Policy::Spread));
    assert_eq!(new.spec.disks, [Disk { size_gib: 3 }]);
    assert_eq!(new.spec.interfaces, [Interface { network: "default".into() }]);
    assert_eq!((new.user_data.as_str(), new.spec.cloud_init.user_data_digest.as_str()), ("", ""));
}

#[test]
fn what_is_said_comes_back_but_for_the_secret() {
    let mut instance = sent();
    instance.metadata =
        Some(v1::Metadata { labels: BTreeMap::from([("team".into(), "ml".into())]), ..Default::default() });
    let spec = instance.spec.as_mut().unwrap();
    spec.power = wire::Power::Stopped.into();
    spec.restart = wire::Restart::Always.into();
    spec.stop_timeout = Some(time::span_out(Duration::from_secs(5)));
    spec.disks = vec![v1::Disk { size_gib: 20 }];
    spec.interfaces = vec![v1::NetworkInterface { network: "networks/lan".into() }];
    spec.cpu = Some(v1::Cpu { dedicated: true, single_numa_cell: true });
    spec.huge_page_kib = 2048;
    spec.host_selector = BTreeMap::from([("rack".into(), "7".into())]);
    spec.placement_policy = wire::PlacementPolicy::Pack.into();
    spec.runtime = wire::Runtime::Kvm.into();
    let gpu = v1::device_request::Wanted::Gpu(v1::device_request::WholeGpu { model: "h100_sxm_80gb".into() });
    spec.devices = vec![v1::DeviceRequest { id: "train".into(), count: 1, wanted: Some(gpu) }];
    spec.cloud_init = Some(v1::CloudInit {
        user_data: "#!/bin/sh\necho secret\n".into(),
        network_config: "version: 2\n".into(),
        ssh_authorized_keys: vec!["ssh-ed25519 AAAAC3 me".into()],
        hostname: "web-1".into(),
        user_data_digest: "not the caller's to say".into(),
    });
    let said = spec.clone();

    let shown = out(&kept(new(instance).unwrap())).spec.unwrap();
    let cloud_init = shown.cloud_init.clone().unwrap();
    assert_eq!(cloud_init.user_data, "");
    assert_eq!(cloud_init.user_data_digest, seed::digest(b"#!/bin/sh\necho secret\n"));
    let hidden = said.cloud_init.as_ref().map(|said| v1::CloudInit {
        user_data: String::new(),
        user_data_digest: cloud_init.user_data_digest,
        ..said.clone()
    });
    assert_eq!(shown, v1::InstanceSpec { cloud_init: hidden, ..said });
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let instance = v1::Instance {
        metadata: Some(v1::Metadata { labels: BTreeMap::from([("a b".into(), "x".into())]), ..Default::default() }),
        spec: Some(v1::InstanceSpec {
            power: 9,
            restart: 9,
            placement_policy: 9,
            runtime: 9,
            stop_timeout: Some(prost_types::Duration { seconds: 4000, nanos: 0 }),
            boot_source: Some(wire::BootSource::Image("debian".into())),
            interfaces: vec![v1::NetworkInterface { network: "br0".into() }],
            cloud_init: Some(v1::CloudInit { user_data: "users: []".into(), ..Default::default() }),
            devices: vec![v1::DeviceRequest::default()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let error = into("acme".into(), "Web", instance, 1).unwrap_err();
    let croft_core::Error::Invalid(violations) = error else { panic!("{error:?}") };
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "instance.spec.power",
            "instance.spec.restart",
            "instance.spec.stop_timeout",
            "instance.spec.placement_policy",
            "instance.spec.runtime",
            "instance.spec.image",
            "instance.spec.devices[0]",
            "instance.spec.interfaces[0].network",
            "instance_id",
            "instance.metadata.labels[a b]",
            "instance.spec.vcpus",
            "instance.spec.memory_mib",
            "instance.spec.cloud_init.user_data",
        ]
    );
}

#[test]
fn the_status_is_what_the_host_last_said() {
    let mut instance = kept(new(sent()).unwrap());
    let pending = out(&instance).status.unwrap();
    assert_eq!((pending.state(), pending.host.as_str()), (v1::instance_status::State::Pending, "hosts/h1"));
    assert_eq!((pending.observed_generation, pending.start_time), (0, None));

    let condition = Condition {
        kind: "GuestReady".into(),
        status: ConditionStatus::True,
        reason: "GuestAgentAnswers".into(),
        message: String::new(),
        last_transition_time: Timestamp(4),
    };
    instance.status.state = State::Running;
    instance.status.observed = Some(Observed {
        generation: 7,
        phase: Phase::Running,
        reason: String::new(),
        message: String::new(),
        conditions: vec![condition],
        addresses: vec![Address {
            ip: "10.200.0.2".into(),
            mac: "02:00".into(),
            source: "dhcp-lease".into(),
            leased: true,
        }],
        exit: Some(Exit { kind: ExitKind::Crashed, message: "panic".into(), time: Timestamp(3) }),
        start_time: Some(Timestamp(5)),
        restart_count: 1,
        power_generation: 1,
        reboot_generation: 0,
        reset_generation: 0,
        disk_generation: 0,
        attached_devices: Vec::new(),
        released_devices: Vec::new(),
    });
    let running = out(&instance).status.unwrap();
    assert_eq!((running.state(), running.observed_generation), (v1::instance_status::State::Running, 7));
    assert_eq!(running.conditions[0].r#type, "GuestReady");
    assert_eq!(running.addresses[0].ip, "10.200.0.2");
    assert_eq!(running.exit.unwrap().kind(), v1::exit::Kind::Crashed);
    assert_eq!((running.start_time, running.restart_count), (Some(time::out(Timestamp(5))), 1));
}

#[test]
fn every_state_has_its_name_on_the_wire() {
    for row in State::TABLE {
        assert_eq!(state_out(row.state).as_str_name(), row.state.as_str());
    }
}
