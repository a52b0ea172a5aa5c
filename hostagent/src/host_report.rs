//! What the host is and has: the machine's inventory, what foreign domains hold, how the hypervisor is.

use std::path::PathBuf;
use std::time::Duration;

use croft_proto::agent::v1::{HostObservation, HostPolicy};
use croft_proto::v1::condition::Status;
use croft_proto::v1::{Condition, HostInfo, Resources};
use tokio::sync::watch;

use crate::board::Board;
use crate::clock::Clock;
use crate::driver::Shared;
use crate::hypervisor::{self, About};
use crate::metrics::Metrics;
use crate::surveyor::Look;
use crate::{devices, features, inventory, reasons};

/// Devices come and go, and file systems fill up.
const EVERY: Duration = Duration::from_secs(60);

const HYPERVISOR_READY: &str = "HypervisorReady";
const DISK_PRESSURE: &str = "DiskPressure";
const DEVICES_SEEN: &str = "DevicesSeen";

/// Where the inventory comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// Read below this root: `/`, or a directory that holds one.
    Machine(PathBuf),
    /// A simulated machine says what it has.
    Fixed(Box<HostObservation>),
    /// The same, with the devices and drivers of a simulated host below this root.
    Simulated(Box<HostObservation>, PathBuf),
}

/// Keeps the host's piece of the board up to date, until the agent ends.
pub(crate) async fn run(source: Source, shared: Shared, policy: watch::Receiver<HostPolicy>) {
    let mut looks = shared.surveyor.watch();
    let mut devices = shared.devices.report();
    let mut policy = policy;
    let (mut about, mut version) = (None, String::new());
    loop {
        let machine = observe(&source).await;
        match shared.hypervisor.about().await {
            Ok(now) => {
                hear(&mut version, now.hypervisor.as_ref(), &shared.metrics);
                about = Some(now);
            }
            Err(error) => hear(&mut version, Err(&error), &shared.metrics),
        }
        let later = shared.clock.steady().plus(EVERY);
        loop {
            // Until there was a look that saw something, nobody knows what is taken: a host without a report gets no
            // instances, and one that gave a report before this agent was started keeps that one.
            let look = looks.borrow_and_update().clone();
            if let Some(look) = look.filter(|look| look.outcome.is_ok() || shared.board.facts().host.is_some()) {
                let about = about.as_ref().map(|about| (about, version.as_str()));
                let mut report = report(&machine, about, &look, &policy.borrow_and_update(), &shared.board);
                with_devices(&mut report, &devices.borrow_and_update());
                shared.board.set_host(stamped(report, &shared.board, &shared.clock));
            }
            tokio::select! {
                () = shared.clock.sleep_until(later) => break,
                Ok(()) = looks.changed() => {}
                Ok(()) = devices.changed() => {}
                Ok(()) = policy.changed() => {}
            }
        }
    }
}

/// One that is silent for a while is what it was: it is upgraded by whoever restarts it, and says so then.
fn hear(version: &mut String, said: Result<&String, &hypervisor::Error>, metrics: &Metrics) {
    match said {
        Ok(now) => version.clone_from(now),
        Err(error) => {
            metrics.hypervisor_error("about");
            tracing::warn!("the hypervisor does not say what it is: {error}");
        }
    }
}

async fn observe(source: &Source) -> HostObservation {
    match source {
        Source::Fixed(observation) => (**observation).clone(),
        Source::Simulated(observation, root) => {
            let (mut observation, root) = ((**observation).clone(), root.clone());
            // An error means that the runtime is going down.
            let machine = tokio::task::spawn_blocking(move || inventory::observe(&root)).await.unwrap_or_default();
            if let (Some(info), Some(machine)) = (&mut observation.info, machine.info) {
                info.driver_flavour = machine.driver_flavour;
                info.pci_devices = machine.pci_devices;
                info.usb_devices = machine.usb_devices;
            }
            observation
        }
        Source::Machine(root) => {
            let root = root.clone();
            // An error means that the runtime is going down.
            tokio::task::spawn_blocking(move || inventory::observe(&root)).await.unwrap_or_default()
        }
    }
}

fn report(
    machine: &HostObservation,
    about: Option<(&About, &str)>,
    look: &Look,
    policy: &HostPolicy,
    board: &Board,
) -> HostObservation {
    let mut report = machine.clone();
    let info = report.info.get_or_insert_with(HostInfo::default);
    info.agent_version = croft_program::version().to_owned();
    info.features = features::ALL.iter().map(ToString::to_string).collect();
    if let Some((about, version)) = about {
        version.clone_into(&mut info.hypervisor);
        info.domain_type.clone_from(&about.domain_type);
        info.domain_type_reason.clone_from(&about.domain_type_reason);
        if let Some(capacity) = &mut report.capacity {
            capacity.disk_gib = signed(about.disk_gib);
            capacity.disk_free_gib = signed(about.disk_free_gib);
        }
        report.conditions.push(disk_pressure(about, policy));
    }
    match &look.outcome {
        Ok(survey) => {
            info.boot_id.clone_from(&look.boot_id);
            info.foreign_domains = survey.foreign.iter().map(|domain| domain.name.clone()).collect();
            info.foreign_domains.sort();
            report.foreign = Some(Resources {
                vcpus: signed(survey.foreign.iter().map(|domain| domain.vcpus).sum()),
                memory_mib: signed(survey.foreign.iter().map(|domain| domain.memory_mib).sum()),
                disk_gib: signed(survey.foreign.iter().map(|domain| domain.disk_gib).sum()),
            });
            report.conditions.push(condition(HYPERVISOR_READY, Status::True, reasons::HYPERVISOR_ANSWERS, ""));
        }
        Err(message) => {
            // Not seen is not free: what foreign domains held when they were last seen still counts.
            if let Some(known) = board.facts().host {
                report.foreign = known.foreign;
                if let Some(known) = &known.info {
                    info.boot_id.clone_from(&known.boot_id);
                    info.foreign_domains.clone_from(&known.foreign_domains);
                }
            }
            let fault = condition(HYPERVISOR_READY, Status::False, reasons::HYPERVISOR_UNAVAILABLE, message);
            report.conditions.push(fault);
        }
    }
    report
}

/// Nothing, before the first look, and for an agent without devices.
fn with_devices(report: &mut HostObservation, devices: &devices::Report) {
    report.devices_seen = devices.seen;
    report.devices.clone_from(&devices.devices);
    report.layout_generation = devices.layout_generation;
    report.layout_problems.clone_from(&devices.problems);
    if devices.seen {
        report.conditions.push(condition(DEVICES_SEEN, Status::True, reasons::DEVICES_SEEN, ""));
    } else if !devices.why.is_empty() {
        report.conditions.push(condition(DEVICES_SEEN, Status::False, reasons::DEVICES_UNSEEN, &devices.why));
    }
}

fn disk_pressure(about: &About, policy: &HostPolicy) -> Condition {
    if signed(about.disk_free_gib) < policy.disk_reserve_gib {
        let message = format!(
            "{} GiB are free where images and disks are, the reserve is {} GiB: nothing new is placed here",
            about.disk_free_gib, policy.disk_reserve_gib
        );
        return condition(DISK_PRESSURE, Status::True, reasons::DISK_RESERVE_REACHED, &message);
    }
    condition(DISK_PRESSURE, Status::False, reasons::DISK_RESERVE_FREE, "")
}

/// Conditions keep the time of their last change.
fn stamped(mut report: HostObservation, board: &Board, clock: &Clock) -> HostObservation {
    let known = board.facts().host;
    for condition in &mut report.conditions {
        let before = known.iter().flat_map(|known| &known.conditions).find(|before| before.r#type == condition.r#type);
        condition.last_transition_time = match before {
            Some(before) if before.status == condition.status => before.last_transition_time,
            _ => Some(clock.wall().timestamp()),
        };
    }
    report
}

fn condition(kind: &str, status: Status, reason: &str, message: &str) -> Condition {
    Condition {
        r#type: kind.to_owned(),
        status: status.into(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: None,
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hypervisor_that_is_silent_for_a_while_is_what_it_was_and_is_counted() {
        let (metrics, mut version) = (Metrics::default(), String::new());
        let silent = hypervisor::Error::Unavailable("libvirt did not tell its version within 15 s".to_owned());
        hear(&mut version, Ok(&"libvirt 9.0.0, QEMU 7.2.22".to_owned()), &metrics);
        for _ in 0..2 {
            hear(&mut version, Err(&silent), &metrics);
            assert_eq!(version, "libvirt 9.0.0, QEMU 7.2.22");
        }
        let text = metrics.render(&Board::default(), &crate::metrics::Seen::default());
        assert!(text.contains("hypervisor_errors_total{verb=\"about\"} 2"), "{text}");
        hear(&mut version, Ok(&"libvirt 9.0.0, QEMU 7.2.23".to_owned()), &metrics);
        assert_eq!(version, "libvirt 9.0.0, QEMU 7.2.23");
    }
}
