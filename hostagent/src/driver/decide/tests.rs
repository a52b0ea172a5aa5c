//! Every row of the table in docs/states/agent-driver.md, and what must hold in all of them.

use croft_proto::agent::v1::DesiredInstance;
use croft_proto::v1::instance_spec::{self, Restart};
use uuid::Uuid;

use super::*;
use crate::clock::{Moment, Wall};
use crate::journal::{Corrupt, Done, End, Ended, Grave, Reboot, Run, Stop};

mod always;
mod off;
mod overruled;
mod rebuild;
mod running;
mod seed;
mod stopped;
mod troubles;

const BOOT: &str = "boot";
const NOW: Steady = Steady(1_000_000_000);
const TIMEOUT: i64 = 90;

fn ago(seconds: i64) -> Moment {
    Moment { boot_id: BOOT.to_owned(), at: Steady(NOW.0 - seconds * 1_000_000) }
}

fn later(seconds: i64) -> Steady {
    Steady(NOW.0 + seconds * 1_000_000)
}

fn desired(power: instance_spec::Power) -> DesiredInstance {
    DesiredInstance {
        uid: Uuid::nil().to_string(),
        generation: 7,
        power: power.into(),
        restart: Restart::OnFailure.into(),
        stop_timeout_seconds: TIMEOUT,
        power_generation: 3,
        ..DesiredInstance::default()
    }
}

/// Wanted running, at rest: everything that was asked for was done.
fn wanted() -> Record {
    Record { done: Done { power: 3, reboot: 0, reset: 0 }, ..Record::new(desired(instance_spec::Power::Running)) }
}

fn unwanted() -> Record {
    Record { done: Done { power: 3, reboot: 0, reset: 0 }, ..Record::new(desired(instance_spec::Power::Stopped)) }
}

fn with_run(record: Record) -> Record {
    Record { run: Some(Run { began: ago(50), time: Wall(0) }), ..record }
}

fn ended(kind: End, power_generation: i64) -> Option<Ended> {
    let message = "how it ended".to_owned();
    Some(Ended { kind, message, time: Wall(0), moment: ago(0), power_generation, answered: false })
}

fn domain(power: Power) -> Domain {
    Domain { uid: Uuid::nil(), power, generation: 7, disk_generation: 0, devices: Vec::new() }
}

fn running() -> Domain {
    domain(Power::Running)
}

fn off() -> Domain {
    domain(Power::Off(OffReason::Shutdown))
}

fn paused(reason: &str) -> Domain {
    domain(Power::Paused { reason: reason.to_owned(), message: "words".to_owned() })
}

/// One case: the world around a record.
#[derive(Debug)]
struct World {
    record: Record,
    domain: Option<Domain>,
    starts: Starts,
    memory: Memory,
    devices: crate::devices::View,
    guest_restarts: Option<u64>,
    disk_free_gib: u64,
    hypervisor_answers: bool,
}

impl World {
    fn new(record: Record, domain: impl Into<Option<Domain>>) -> Self {
        Self {
            record,
            domain: domain.into(),
            starts: Starts::Allowed,
            memory: Memory::default(),
            devices: crate::devices::View::default(),
            guest_restarts: Some(0),
            disk_free_gib: 100,
            hypervisor_answers: true,
        }
    }

    fn prepared(mut self) -> Self {
        self.memory.prepared = Some(7);
        self
    }

    fn decide(&self) -> Decision {
        let seen = match &self.domain {
            _ if !self.hypervisor_answers => Seen::Nothing("libvirtd is down"),
            None => Seen::Absent,
            Some(domain) => Seen::Present(domain),
        };
        decide(&View {
            record: &self.record,
            seen,
            boot_id: BOOT,
            now: NOW,
            starts: self.starts,
            features: &["boot.disk"],
            devices: &self.devices,
            guest_restarts: self.guest_restarts,
            disk_free_gib: self.disk_free_gib,
            memory: &self.memory,
        })
    }

    #[track_caller]
    fn acts(&self, phase: impl Into<Option<Phase>>, action: Action) {
        let decision = self.decide();
        assert_eq!((decision.phase, &decision.next), (phase.into(), &Next::Act(action)), "{decision:?}");
    }

    #[track_caller]
    fn waits(&self, phase: Phase, reason: &str, until: Option<Steady>) {
        let decision = self.decide();
        assert_eq!(
            (decision.phase, decision.why.reason, &decision.next),
            (Some(phase), reason, &Next::Wait(until)),
            "{decision:?}"
        );
    }
}

fn buried(force: bool) -> Record {
    Record {
        tombstone: Some(Grave { generation: 0, force, stop_timeout_seconds: TIMEOUT, removed: false, gone: false }),
        ..with_run(wanted())
    }
}

fn asked(seconds_ago: i64, power_generation: i64) -> Option<Stop> {
    Some(Stop { asked: ago(seconds_ago), power_generation, pulled: false })
}
