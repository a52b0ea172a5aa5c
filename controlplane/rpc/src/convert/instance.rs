//! Instances: the spec that a user sends, and what he reads back.
//!
//! User data comes in here and never goes out: it is a secret of the store from then on.

use std::time::Duration;

use croft_core::device::Paths;
use croft_core::id::{ImageUid, TenantId};
use croft_core::instance::check::{self, STOP_TIMEOUT_MAX};
use croft_core::instance::{
    Address, CloudInit, Cpu, DEFAULT_STOP_TIMEOUT, Disk, Exit, ExitKind, Instance, Interface, Power, Restart, Spec,
    State, seed,
};
use croft_core::meta::check_annotations;
use croft_core::placement::Policy;
use croft_core::ports::NewInstance;
use croft_core::validate::Violations;
use croft_core::{Result, name, network};
use croft_proto::v1;
use v1::instance_spec as wire;

use super::{meta, node, request, time};

/// Where the device requests stand.
pub const DEVICES: &str = "instance.spec.devices";

#[must_use]
pub fn out(instance: &Instance) -> v1::Instance {
    v1::Instance {
        name: instance.name(),
        metadata: Some(meta::out(&instance.meta)),
        spec: Some(spec_out(instance)),
        status: Some(status_out(instance)),
    }
}

fn spec_out(instance: &Instance) -> v1::InstanceSpec {
    let (spec, intent) = (&instance.spec, &instance.intent);
    v1::InstanceSpec {
        power: power_out(intent.power).into(),
        restart: restart_out(intent.restart).into(),
        stop_timeout: Some(time::span_out(intent.stop_timeout)),
        vcpus: i32::try_from(spec.vcpus).unwrap_or(i32::MAX),
        memory_mib: spec.memory_mib,
        boot_source: Some(wire::BootSource::Image(spec.image.clone())),
        disks: spec.disks.iter().map(|disk| v1::Disk { size_gib: disk.size_gib }).collect(),
        interfaces: spec
            .interfaces
            .iter()
            .map(|interface| v1::NetworkInterface { network: format!("networks/{}", interface.network) })
            .collect(),
        cpu: Some(cpu_out(spec.cpu)),
        huge_page_kib: spec.huge_page_kib,
        cloud_init: Some(v1::CloudInit {
            user_data: String::new(),
            network_config: spec.cloud_init.network_config.clone(),
            ssh_authorized_keys: spec.cloud_init.ssh_authorized_keys.clone(),
            hostname: spec.cloud_init.hostname.clone(),
            user_data_digest: spec.cloud_init.user_data_digest.clone(),
        }),
        host_selector: spec.host_selector.clone(),
        placement_policy: match spec.policy {
            Policy::Spread => wire::PlacementPolicy::Spread,
            Policy::Pack => wire::PlacementPolicy::Pack,
        }
        .into(),
        runtime: wire::Runtime::Kvm.into(),
        node: spec.node.as_ref().map(node::out),
        devices: spec.devices.iter().map(request::out).collect(),
    }
}

fn status_out(instance: &Instance) -> v1::InstanceStatus {
    let status = &instance.status;
    let seen = status.observed.as_ref();
    v1::InstanceStatus {
        state: state_out(status.state).into(),
        reason: status.reason.clone(),
        message: status.message.clone(),
        conditions: seen
            .iter()
            .flat_map(|seen| seen.conditions.iter().map(meta::condition_out))
            .chain(instance.node.as_ref().map(node::condition_out))
            .collect(),
        observed_generation: seen.map_or(0, |seen| seen.generation),
        host: instance.host().map(|host| format!("hosts/{host}")).unwrap_or_default(),
        addresses: seen.map(|seen| seen.addresses.iter().map(address_out).collect()).unwrap_or_default(),
        exit: seen.and_then(|seen| seen.exit.as_ref()).map(exit_out),
        state_time: Some(time::out(status.state_time)),
        start_time: seen.and_then(|seen| seen.start_time).map(time::out),
        restart_count: seen.map_or(0, |seen| i32::try_from(seen.restart_count).unwrap_or(i32::MAX)),
        node: instance.node.as_ref().map(node::status_out),
        devices: instance
            .placement
            .iter()
            .flat_map(|placement| placement.devices.iter().map(|one| request::assignment_out(&placement.host, one)))
            .collect(),
    }
}

/// `default_disk_gib`: the root disk of who names none. Everything that is wrong is named at once.
pub fn into(tenant: TenantId, id: &str, instance: v1::Instance, default_disk_gib: i64) -> Result<NewInstance> {
    let mut violations = Violations::new();
    // Core checks the labels with the rest.
    let v1::Metadata { labels, annotations, .. } = instance.metadata.unwrap_or_default();
    check_annotations("instance.metadata.annotations", &annotations, &mut violations);
    let wire = instance.spec.unwrap_or_default();
    let power = power_into(wire.power, &mut violations).unwrap_or(Power::Running);
    let restart = restart_into(wire.restart, &mut violations).unwrap_or(Restart::OnFailure);
    let stop_timeout = stop_timeout_into(wire.stop_timeout, &mut violations).unwrap_or(DEFAULT_STOP_TIMEOUT);
    let user_data = wire.cloud_init.as_ref().map(|cloud_init| cloud_init.user_data.clone()).unwrap_or_default();
    let (spec, device_paths) = spec_into(wire, default_disk_gib, &mut violations);
    check::check(id, &spec, &user_data, &labels, &mut violations);
    violations.finish()?;
    let id = id.to_owned();
    Ok(NewInstance { tenant, id, labels, annotations, spec, device_paths, power, restart, stop_timeout, user_data })
}

fn spec_into(wire: v1::InstanceSpec, default_disk_gib: i64, violations: &mut Violations) -> (Spec, Paths) {
    let policy = policy_into(wire.placement_policy, violations);
    if wire::Runtime::try_from(wire.runtime).is_err() {
        violations.add("instance.spec.runtime", format!("KVM, not {}", wire.runtime));
    }
    let image = match wire.boot_source {
        Some(wire::BootSource::Image(image)) => image,
        None => String::new(),
    };
    if name::image("", &image).is_err() {
        let what = "name an image: images/… or tenants/…/images/…";
        violations
            .add("instance.spec.image", if image.is_empty() { what.to_owned() } else { format!("`{image}`: {what}") });
    }
    let mut disks: Vec<_> = wire.disks.iter().map(|disk| Disk { size_gib: disk.size_gib }).collect();
    if disks.is_empty() {
        disks.push(Disk { size_gib: default_disk_gib });
    }
    let v1::Cpu { dedicated, single_numa_cell } = wire.cpu.unwrap_or_default();
    let (devices, paths) = request::list_into(DEVICES, wire.devices, violations);
    let spec = Spec {
        vcpus: i64::from(wire.vcpus),
        memory_mib: wire.memory_mib,
        image,
        // The claim looks the image up in its own transaction.
        image_uid: ImageUid(uuid::Uuid::nil()),
        disks,
        interfaces: interfaces_into(&wire.interfaces, violations),
        cpu: Cpu { dedicated, single_numa_cell },
        huge_page_kib: wire.huge_page_kib,
        cloud_init: cloud_init_into(wire.cloud_init.unwrap_or_default()),
        host_selector: wire.host_selector,
        policy,
        node: wire.node.map(|wish| node::into(wish, violations)),
        devices,
    };
    (spec, paths)
}

fn interfaces_into(interfaces: &[v1::NetworkInterface], violations: &mut Violations) -> Vec<Interface> {
    if interfaces.is_empty() {
        return vec![Interface { network: network::DEFAULT.into() }];
    }
    let mut parsed = Vec::new();
    for (at, interface) in interfaces.iter().enumerate() {
        let field = format!("instance.spec.interfaces[{at}].network");
        match name::network(&field, &interface.network) {
            Ok(network) => parsed.push(Interface { network }),
            Err(_) => violations.add(field, format!("`{}` is not of the form networks/…", interface.network)),
        }
    }
    parsed
}

fn cloud_init_into(wire: v1::CloudInit) -> CloudInit {
    let user_data_digest =
        if wire.user_data.is_empty() { String::new() } else { seed::digest(wire.user_data.as_bytes()) };
    CloudInit {
        hostname: wire.hostname,
        ssh_authorized_keys: wire.ssh_authorized_keys,
        network_config: wire.network_config,
        user_data_digest,
    }
}

/// `None` where nothing was said, or nothing that we know, which is noted.
pub fn power_into(power: i32, violations: &mut Violations) -> Option<Power> {
    match wire::Power::try_from(power) {
        Ok(wire::Power::Unspecified) => None,
        Ok(wire::Power::Running) => Some(Power::Running),
        Ok(wire::Power::Stopped) => Some(Power::Stopped),
        Err(_) => {
            violations.add("instance.spec.power", format!("RUNNING or STOPPED, not {power}"));
            None
        }
    }
}

/// As [`power_into`].
pub fn restart_into(restart: i32, violations: &mut Violations) -> Option<Restart> {
    match wire::Restart::try_from(restart) {
        Ok(wire::Restart::Unspecified) => None,
        Ok(wire::Restart::Always) => Some(Restart::Always),
        Ok(wire::Restart::OnFailure) => Some(Restart::OnFailure),
        Ok(wire::Restart::Never) => Some(Restart::Never),
        Err(_) => {
            violations.add("instance.spec.restart", format!("ALWAYS, ON_FAILURE or NEVER, not {restart}"));
            None
        }
    }
}

/// As [`power_into`].
pub fn stop_timeout_into(span: Option<prost_types::Duration>, violations: &mut Violations) -> Option<Duration> {
    time::span_into("instance.spec.stop_timeout", span, STOP_TIMEOUT_MAX, violations)
}

fn policy_into(policy: i32, violations: &mut Violations) -> Policy {
    match wire::PlacementPolicy::try_from(policy) {
        Ok(wire::PlacementPolicy::Unspecified | wire::PlacementPolicy::Spread) => Policy::Spread,
        Ok(wire::PlacementPolicy::Pack) => Policy::Pack,
        Err(_) => {
            violations.add("instance.spec.placement_policy", format!("SPREAD or PACK, not {policy}"));
            Policy::Spread
        }
    }
}

#[must_use]
pub fn power_out(power: Power) -> wire::Power {
    match power {
        Power::Running => wire::Power::Running,
        Power::Stopped => wire::Power::Stopped,
    }
}

#[must_use]
pub fn restart_out(restart: Restart) -> wire::Restart {
    match restart {
        Restart::Always => wire::Restart::Always,
        Restart::OnFailure => wire::Restart::OnFailure,
        Restart::Never => wire::Restart::Never,
    }
}

#[must_use]
pub fn cpu_out(cpu: Cpu) -> v1::Cpu {
    v1::Cpu { dedicated: cpu.dedicated, single_numa_cell: cpu.single_numa_cell }
}

#[must_use]
pub fn state_out(state: State) -> v1::instance_status::State {
    use v1::instance_status::State as Wire;
    match state {
        State::Pending => Wire::Pending,
        State::Placing => Wire::Placing,
        State::Preparing => Wire::Preparing,
        State::Starting => Wire::Starting,
        State::Running => Wire::Running,
        State::Stopping => Wire::Stopping,
        State::Stopped => Wire::Stopped,
        State::Deleting => Wire::Deleting,
        State::Failed => Wire::Failed,
        State::Unknown => Wire::Unknown,
    }
}

fn address_out(address: &Address) -> v1::Address {
    let Address { ip, mac, source, leased } = address.clone();
    v1::Address { ip, mac, source, leased }
}

#[must_use]
pub fn exit_out(exit: &Exit) -> v1::Exit {
    let kind = match exit.kind {
        ExitKind::GuestPoweroff => v1::exit::Kind::GuestPoweroff,
        ExitKind::Stopped => v1::exit::Kind::Stopped,
        ExitKind::Killed => v1::exit::Kind::Killed,
        ExitKind::Crashed => v1::exit::Kind::Crashed,
        ExitKind::HostShutdown => v1::exit::Kind::HostShutdown,
    };
    v1::Exit { kind: kind.into(), message: exit.message.clone(), time: Some(time::out(exit.time)) }
}

#[cfg(test)]
#[path = "instance_tests.rs"]
mod tests;
