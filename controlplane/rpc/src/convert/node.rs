//! The node that a guest becomes: what a user asks of it, and how far it is.

use croft_core::join::keep::Repair;
use croft_core::join::machine::{Phase, told};
use croft_core::join::node::{DEFAULT_RECIPE, Effect, Taint, Wish, check_labels, check_taints};
use croft_core::join::{machine, node};
use croft_core::name;
use croft_core::validate::Violations;
use croft_proto::v1;
use v1::node_status::Phase as WirePhase;
use v1::node_taint::Effect as WireEffect;

use super::{meta, time};

const FIELD: &str = "instance.spec.node";
const RECIPE_MAX: usize = 40;

/// Which recipes there are is the plane's to say, whether the cluster may be joined the claim's.
pub fn into(wish: v1::NodeWish, violations: &mut Violations) -> Wish {
    let repair = repair_into(Some(wish.repair), violations).unwrap_or_default();
    let v1::NodeWish { cluster, recipe, labels, taints, repair: _ } = wish;
    if name::cluster("", &cluster).is_err() {
        let what = "name a cluster: clusters/… or tenants/…/clusters/…";
        let said = if cluster.is_empty() { what.to_owned() } else { format!("`{cluster}`: {what}") };
        violations.add(format!("{FIELD}.cluster"), said);
    }
    let recipe = if recipe.is_empty() { DEFAULT_RECIPE.to_owned() } else { recipe };
    violations.check_slug(&recipe, RECIPE_MAX, &format!("{FIELD}.recipe"));
    check_labels(&format!("{FIELD}.labels"), &labels, violations);
    let taints: Vec<Taint> =
        taints.into_iter().enumerate().map(|(at, taint)| taint_into(at, taint, violations)).collect();
    check_taints(&format!("{FIELD}.taints"), &taints, violations);
    Wish { cluster, cluster_uid: String::new(), recipe, labels, taints, repair }
}

/// `None`: it is not said.
pub fn repair_into(repair: Option<i32>, violations: &mut Violations) -> Option<Repair> {
    match v1::node_wish::Repair::try_from(repair?) {
        Ok(v1::node_wish::Repair::Unspecified) => None,
        Ok(v1::node_wish::Repair::None) => Some(Repair::None),
        Ok(v1::node_wish::Repair::Restart) => Some(Repair::Restart),
        Ok(v1::node_wish::Repair::Rebuild) => Some(Repair::Rebuild),
        Ok(v1::node_wish::Repair::Replace) => Some(Repair::Replace),
        Err(_) => {
            violations.add(format!("{FIELD}.repair"), "NONE, RESTART, REBUILD or REPLACE");
            None
        }
    }
}

fn repair_out(repair: Repair) -> v1::node_wish::Repair {
    match repair {
        Repair::None => v1::node_wish::Repair::None,
        Repair::Restart => v1::node_wish::Repair::Restart,
        Repair::Rebuild => v1::node_wish::Repair::Rebuild,
        Repair::Replace => v1::node_wish::Repair::Replace,
    }
}

fn taint_into(at: usize, taint: v1::NodeTaint, violations: &mut Violations) -> Taint {
    let effect = match taint.effect() {
        WireEffect::NoSchedule => Effect::NoSchedule,
        WireEffect::PreferNoSchedule => Effect::PreferNoSchedule,
        WireEffect::NoExecute => Effect::NoExecute,
        WireEffect::Unspecified => {
            let what = "NO_SCHEDULE, PREFER_NO_SCHEDULE or NO_EXECUTE";
            violations.add(format!("{FIELD}.taints[{at}].effect"), what);
            Effect::NoSchedule
        }
    };
    Taint { key: taint.key, value: taint.value, effect }
}

#[must_use]
pub fn out(wish: &node::Wish) -> v1::NodeWish {
    let taint = |taint: &Taint| {
        let effect = match taint.effect {
            Effect::NoSchedule => WireEffect::NoSchedule,
            Effect::PreferNoSchedule => WireEffect::PreferNoSchedule,
            Effect::NoExecute => WireEffect::NoExecute,
        };
        v1::NodeTaint { key: taint.key.clone(), value: taint.value.clone(), effect: effect.into() }
    };
    v1::NodeWish {
        cluster: wish.cluster.clone(),
        recipe: wish.recipe.clone(),
        labels: wish.labels.clone(),
        taints: wish.taints.iter().map(taint).collect(),
        repair: repair_out(wish.repair).into(),
    }
}

#[must_use]
pub fn status_out(node: &machine::Node) -> v1::NodeStatus {
    let phase = match node.phase {
        Phase::Waiting => WirePhase::Waiting,
        Phase::Booting => WirePhase::Booting,
        Phase::Missed => WirePhase::Missed,
        Phase::Joined => WirePhase::Joined,
        Phase::Leaving => WirePhase::Leaving,
        Phase::Left => WirePhase::Left,
    };
    v1::NodeStatus {
        name: node.name.clone(),
        phase: phase.into(),
        phase_time: Some(time::out(node.phase_time)),
        reason: node.reason.clone(),
        message: told::message(node),
        repair_times: node.repairs.iter().map(|at| time::out(*at)).collect(),
        rebuild_times: node.rebuilds.iter().map(|at| time::out(*at)).collect(),
    }
}

/// Beside those that the host tells.
#[must_use]
pub fn condition_out(node: &machine::Node) -> v1::Condition {
    meta::condition_out(&told::condition(node))
}

#[cfg(test)]
mod tests {
    use croft_core::Timestamp;
    use croft_core::join::machine::Node;

    use super::*;

    fn taint(key: &str, effect: WireEffect) -> v1::NodeTaint {
        v1::NodeTaint { key: key.into(), value: "yes".into(), effect: effect.into() }
    }

    #[test]
    fn what_is_asked_comes_back_and_the_usual_recipe_is_named() {
        let wish = v1::NodeWish {
            cluster: "tenants/acme/clusters/prod".into(),
            recipe: String::new(),
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            taints: vec![taint("gpu", WireEffect::NoSchedule), taint("gpu", WireEffect::NoExecute)],
            repair: v1::node_wish::Repair::Restart.into(),
        };
        let mut violations = Violations::new();
        let kept = into(wish.clone(), &mut violations);
        violations.finish().unwrap();
        assert_eq!(out(&kept), v1::NodeWish { recipe: "kubelet".into(), ..wish });
    }

    #[test]
    fn everything_that_is_wrong_is_named_by_its_field() {
        let wish = v1::NodeWish {
            cluster: "prod".into(),
            recipe: "../kubelet".into(),
            labels: [("node-role.kubernetes.io/control-plane".to_owned(), String::new())].into(),
            taints: vec![taint("gpu", WireEffect::Unspecified), taint("croft.dev/tenant", WireEffect::NoSchedule)],
            repair: 7,
        };
        let mut violations = Violations::new();
        into(wish, &mut violations);
        let croft_core::Error::Invalid(violations) = violations.finish().unwrap_err() else { panic!("invalid") };
        let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        let expected = [
            "instance.spec.node.repair",
            "instance.spec.node.cluster",
            "instance.spec.node.recipe",
            "instance.spec.node.labels[node-role.kubernetes.io/control-plane]",
            "instance.spec.node.taints[0].effect",
            "instance.spec.node.taints[1].key",
        ];
        assert_eq!(fields, expected);
    }

    #[test]
    fn how_far_it_is_shows_as_a_phase_and_a_condition() {
        let mut node = Node::new("train-1-deadbeef".into(), Phase::Waiting, Timestamp(1));
        node.enter(Phase::Joined, Timestamp(2_000_000));
        node.is_ready(true, Timestamp(3_000_000));
        let shown = status_out(&node);
        assert_eq!((shown.phase(), shown.phase_time.unwrap().seconds), (WirePhase::Joined, 2));
        let condition = condition_out(&node);
        assert_eq!((condition.r#type.as_str(), condition.status().as_str_name()), ("Joined", "TRUE"));
        assert_eq!(condition.last_transition_time.unwrap().seconds, 3);
    }
}
