//! Domains of Croft's that neither the journal nor the plane knows: left alone, and reported with generation 0 so that
//! somebody can decide.

use std::collections::HashSet;

use croft_proto::agent::v1::InstanceObservation;
use croft_proto::agent::v1::instance_observation::Phase;
use uuid::Uuid;

use crate::board::Board;
use crate::driver::decide::paused_reason;
use crate::hypervisor::Power;
use crate::reasons;
use crate::surveyor::Look;

/// `known`: has it a driver, which reports for itself?
pub(super) fn report(board: &Board, look: &Look, known: impl Fn(Uuid) -> bool) {
    let Ok(survey) = &look.outcome else { return };
    let mut seen = HashSet::new();
    for domain in survey.ours.iter().filter(|domain| !known(domain.uid)) {
        let (phase, reason) = match &domain.power {
            Power::Running => (Phase::Running, reasons::NOT_DESIRED),
            Power::Paused { reason, .. } => (Phase::Paused, paused_reason(reason)),
            Power::Off(_) => (Phase::Off, reasons::NOT_DESIRED),
        };
        seen.insert(domain.uid);
        board.set_instance(domain.uid, observation(domain.uid, phase, reason));
    }
    // An orphan that somebody removed by hand is told once more, as absent.
    for (uid, told) in board.facts().instances {
        if !known(uid) && !seen.contains(&uid) && told.phase() != Phase::Absent {
            board.set_instance(uid, observation(uid, Phase::Absent, ""));
        }
    }
}

fn observation(uid: Uuid, phase: Phase, reason: &str) -> InstanceObservation {
    InstanceObservation {
        uid: uid.to_string(),
        phase: phase.into(),
        reason: reason.to_owned(),
        ..InstanceObservation::default()
    }
}
