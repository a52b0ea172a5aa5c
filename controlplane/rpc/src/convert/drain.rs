//! A host's maintenance: how far it is, and what a drain does to each instance.

use croft_core::id::{HostId, InstanceUid};
use croft_core::maintenance::{Effect, Expected, Maintenance, Phase, Step};
use croft_core::validate::Violations;
use croft_proto::v1;
use croft_proto::v1::{drain_step, host_maintenance};

use super::time;

#[must_use]
pub fn maintenance_out(maintenance: &Maintenance) -> v1::HostMaintenance {
    let phase = match maintenance.phase {
        Phase::Draining => host_maintenance::Phase::Draining,
        Phase::Drained => host_maintenance::Phase::Drained,
    };
    v1::HostMaintenance {
        phase: phase.into(),
        start_time: Some(time::out(maintenance.start_time)),
        drained_time: maintenance.drained_time.map(time::out),
        actor: maintenance.actor.clone(),
        reason: maintenance.why.clone(),
    }
}

#[must_use]
pub fn plan_out(host: &HostId, steps: Vec<Step>) -> v1::DrainPlan {
    v1::DrainPlan { host: format!("hosts/{host}"), steps: steps.into_iter().map(step_out).collect() }
}

fn step_out(step: Step) -> v1::DrainStep {
    let Step { instance, uid, effect, message, starts_again } = step;
    v1::DrainStep { instance, uid: uid.to_string(), effect: effect_out(effect).into(), message, starts_again }
}

fn effect_out(effect: Effect) -> drain_step::Effect {
    match effect {
        Effect::Stops => drain_step::Effect::Stops,
        Effect::StaysOff => drain_step::Effect::StaysOff,
        Effect::Leaves => drain_step::Effect::Leaves,
        Effect::Cannot => drain_step::Effect::Cannot,
    }
}

/// What somebody was shown of `host`. What is wrong with it is noted.
pub fn expected_into(host: &HostId, plan: v1::DrainPlan, violations: &mut Violations) -> Vec<Expected> {
    let whose = format!("hosts/{host}");
    let ours = plan.host == whose;
    violations.check(ours, "expect.host", format!("is a preview of `{}`, and this is {whose}", plan.host));
    let step = |(at, step): (usize, v1::DrainStep)| {
        let uid = InstanceUid::parse(&step.uid);
        violations.check(uid.is_some(), &format!("expect.steps[{at}].uid"), "is not the uid of an instance");
        let effect = effect_into(step.effect());
        violations.check(effect.is_some(), &format!("expect.steps[{at}].effect"), "is none that a preview says");
        Some(Expected { instance: step.instance, uid: uid?, effect: effect? })
    };
    plan.steps.into_iter().enumerate().filter_map(step).collect()
}

fn effect_into(effect: drain_step::Effect) -> Option<Effect> {
    match effect {
        drain_step::Effect::Stops => Some(Effect::Stops),
        drain_step::Effect::StaysOff => Some(Effect::StaysOff),
        drain_step::Effect::Leaves => Some(Effect::Leaves),
        drain_step::Effect::Cannot => Some(Effect::Cannot),
        drain_step::Effect::Unspecified => None,
    }
}
