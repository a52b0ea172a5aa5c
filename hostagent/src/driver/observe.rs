//! From the journal and a decision to the truth that the plane hears.

use croft_proto::agent::v1::InstanceObservation;
use croft_proto::agent::v1::instance_observation::Phase;
use croft_proto::v1::condition::Status;
use croft_proto::v1::{Condition, Exit};
use uuid::Uuid;

use super::decide::devices::Told;
use super::decide::{Decision, Why};
use crate::board::Board;
use crate::clock::Clock;
use crate::hypervisor::{Domain, Guest};
use crate::journal::{Ended, Entry, Record};
use crate::reasons;

const GUEST_READY: &str = "GuestReady";

/// Writes one instance's piece of the board; remembers what must not flap.
pub(super) struct Reporter {
    uid: Uuid,
    board: Board,
    clock: Clock,
    phase: Option<Phase>,
}

impl Reporter {
    pub(super) fn new(uid: Uuid, board: Board, clock: Clock) -> Self {
        Self { uid, board, clock, phase: None }
    }

    pub(super) fn publish(
        &mut self,
        record: &Record,
        decision: &Decision,
        domain: Option<&Domain>,
        guest: &Option<Guest>,
        devices: Told,
    ) {
        self.phase = decision.phase.or(self.phase);
        // Never seen so far: there is no truth to tell, and silence is not absence.
        let Some(phase) = self.phase else { return };
        let known = self.board.instance(self.uid);
        let mut conditions: Vec<_> = [guest_ready(phase, guest)].into_iter().chain(devices.condition).collect();
        for condition in &mut conditions {
            let before = known.iter().flat_map(|known| &known.conditions);
            let before = before.into_iter().find(|before| before.r#type == condition.r#type);
            condition.last_transition_time = match before {
                Some(before) if before.status == condition.status => before.last_transition_time,
                _ => Some(self.clock.wall().timestamp()),
            };
        }
        let observation = InstanceObservation {
            attached_devices: devices.attached,
            released_devices: devices.released,
            disk_generation: domain.map_or(0, |domain| domain.disk_generation),
            ..observation(self.uid, record, phase, &decision.why, conditions, guest)
        };
        self.board.set_instance(self.uid, observation);
    }
}

/// Its driver panicked: what was last seen of it may be out of date.
pub(super) fn tell_fault(record: &Record, entry: &Entry, board: &Board) {
    let known = board.instance(entry.uid).map(|known| (*known).clone());
    board.set_instance(
        entry.uid,
        InstanceObservation {
            uid: entry.uid.to_string(),
            generation: record.generation(),
            phase: Phase::Failed.into(),
            reason: reasons::AGENT_FAULT.to_owned(),
            message: "the host agent's task for it panicked and is started again; the agent's log says where"
                .to_owned(),
            ..known.unwrap_or_default()
        },
    );
}

fn observation(
    uid: Uuid,
    record: &Record,
    phase: Phase,
    why: &Why,
    conditions: Vec<Condition>,
    guest: &Option<Guest>,
) -> InstanceObservation {
    let gone = phase == Phase::Absent;
    InstanceObservation {
        uid: uid.to_string(),
        generation: record.generation(),
        phase: phase.into(),
        reason: why.reason.to_owned(),
        message: why.message.clone(),
        conditions: if gone { Vec::new() } else { conditions },
        addresses: guest.as_ref().map(|guest| guest.addresses.clone()).unwrap_or_default(),
        exit: record.ended.as_ref().map(exit),
        start_time: record.run.as_ref().map(|run| run.time.timestamp()),
        restart_count: record.restarts,
        power_generation: record.done.power,
        reboot_generation: record.done.reboot,
        reset_generation: record.done.reset,
        ..InstanceObservation::default()
    }
}

fn guest_ready(phase: Phase, guest: &Option<Guest>) -> Condition {
    let (status, reason, message) = match (phase, guest) {
        (Phase::Running | Phase::Stopping, Some(guest)) if guest.agent => {
            (Status::True, reasons::GUEST_AGENT_ANSWERS, "")
        }
        (Phase::Running | Phase::Stopping, _) => {
            (Status::False, reasons::GUEST_AGENT_SILENT, "the guest agent does not answer yet")
        }
        _ => (Status::False, reasons::NOT_RUNNING, ""),
    };
    Condition {
        r#type: GUEST_READY.to_owned(),
        status: status.into(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: None,
    }
}

fn exit(ended: &Ended) -> Exit {
    Exit { kind: ended.kind.wire().into(), message: ended.message.clone(), time: Some(ended.time.timestamp()) }
}
