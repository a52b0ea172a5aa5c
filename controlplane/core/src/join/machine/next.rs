//! The next acts, phase by phase.

use super::*;

/// What to do now; nothing: wait.
#[must_use]
pub fn next(node: &Node, guest: Guest, provider_id: &str, seen: &Seen, now: Timestamp) -> Vec<Act> {
    let foreign = seen.node.as_ref().filter(|there| there.provider_id != provider_id);
    if let (Some(there), true, Phase::Waiting | Phase::Booting) = (foreign, guest.wanted, node.phase) {
        return forget_then(node, seen, Act::Enter(Phase::Waiting, Why::NameTaken(there.provider_id.clone())));
    }
    // What is somebody else's is nothing to us.
    let seen = &Seen { node: seen.node.clone().filter(|_| foreign.is_none()), ..seen.clone() };
    match (node.phase, guest.wanted) {
        (Phase::Waiting, true) => waiting(node, guest, seen, now),
        (Phase::Booting, true) => booting(node, guest, seen, now),
        (Phase::Missed, true) => missed(node, seen),
        (Phase::Joined, true) => joined(node, guest, seen),
        (Phase::Leaving, true) => back(node, seen),
        (Phase::Left, true) => vec![Act::Enter(Phase::Waiting, Why::AsWanted)],
        (Phase::Left, false) => left(node, seen),
        (Phase::Leaving, false) => leaving(node, guest, seen, now),
        // Nobody is on it: there is nothing to drain.
        (Phase::Waiting | Phase::Booting | Phase::Missed, false) if seen.node.is_none() => left_behind(node, seen),
        (Phase::Waiting | Phase::Booting | Phase::Missed | Phase::Joined, false) => {
            vec![Act::Enter(Phase::Leaving, Why::AsWanted)]
        }
    }
}

fn waiting(node: &Node, guest: Guest, seen: &Seen, now: Timestamp) -> Vec<Act> {
    if let Some(there) = &seen.node {
        return stale(node, guest, there, seen, now);
    }
    if !guest.placed {
        // A token is for a boot that may come any moment.
        return if has_token(node, seen) { vec![Act::Forget] } else { Vec::new() };
    }
    if good(node, seen, now) {
        return vec![Act::Enter(Phase::Booting, Why::AsWanted)];
    }
    vec![Act::Token(now.plus(TOKEN_LIFE))]
}

/// Left over from the machine that was there before: the one that is to boot makes its own.
fn stale(node: &Node, guest: Guest, there: &SeenNode, seen: &Seen, now: Timestamp) -> Vec<Act> {
    if seen.pods == 0 || !drains(node, guest, now) { vec![Act::DeleteNode] } else { tell_pods(node, guest, there) }
}

fn booting(node: &Node, guest: Guest, seen: &Seen, now: Timestamp) -> Vec<Act> {
    if seen.node.is_some() {
        return forget_then(node, seen, Act::Enter(Phase::Joined, Why::AsWanted));
    }
    if late(node, guest, seen, now) {
        return forget_then(node, seen, Act::Enter(Phase::Missed, Why::TooLate));
    }
    if good(node, seen, now) { Vec::new() } else { vec![Act::Token(now.plus(TOKEN_LIFE))] }
}

fn missed(node: &Node, seen: &Seen) -> Vec<Act> {
    match seen.node {
        Some(_) => forget_then(node, seen, Act::Enter(Phase::Joined, Why::AsWanted)),
        None if has_token(node, seen) => vec![Act::Forget],
        None => Vec::new(),
    }
}

fn joined(node: &Node, guest: Guest, seen: &Seen) -> Vec<Act> {
    let mut acts = Vec::new();
    if has_token(node, seen) {
        acts.push(Act::Forget);
    }
    let Some(there) = &seen.node else { return acts };
    if !there.dressed {
        acts.push(Act::Dress);
    }
    if guest.off != there.out_of_service {
        acts.push(Act::OutOfService(guest.off));
    }
    acts
}

/// It is wanted again before it left.
fn back(node: &Node, seen: &Seen) -> Vec<Act> {
    match &seen.node {
        // The machine that it was is no more.
        _ if node.lost => vec![Act::Enter(Phase::Waiting, Why::AsWanted)],
        Some(there) if there.cordoned => vec![Act::Uncordon],
        Some(_) => vec![Act::Enter(Phase::Joined, Why::AsWanted)],
        None => vec![Act::Enter(Phase::Waiting, Why::AsWanted)],
    }
}

fn leaving(node: &Node, guest: Guest, seen: &Seen, now: Timestamp) -> Vec<Act> {
    let Some(there) = &seen.node else { return left_behind(node, seen) };
    // Before anything else that the cluster might refuse.
    if !drains(node, guest, now) {
        return vec![Act::DeleteNode];
    }
    if !there.cordoned {
        return vec![Act::Cordon];
    }
    if seen.pods == 0 { vec![Act::DeleteNode] } else { tell_pods(node, guest, there) }
}

/// Whether its Node waits for the pods that are on it.
#[must_use]
pub fn drains(node: &Node, guest: Guest, now: Timestamp) -> bool {
    let goes = match node.phase {
        Phase::Leaving => !guest.wanted,
        Phase::Waiting => node.lost,
        Phase::Booting | Phase::Missed | Phase::Joined | Phase::Left => false,
    };
    goes && !guest.forced && !node.drain.is_some_and(|drain| drain.is_over(now))
}

/// First the pods, then the record: time counts only from when they were told. Of a machine that is off, nobody on it can end a
/// pod any more: the cluster does, and detaches its volumes. A Node that is deleted before takes longer to be given up.
fn tell_pods(node: &Node, guest: Guest, there: &SeenNode) -> Vec<Act> {
    let way = node.drain.map(|drain| drain.way);
    let (mut acts, new) = match (guest.off, way) {
        (true, _) if !there.out_of_service => return vec![Act::OutOfService(true)],
        (true, Some(Way::LetGo)) => (Vec::new(), None),
        (true, _) => (Vec::new(), Some(Way::LetGo)),
        (false, None) => (vec![Act::Evict], Some(Way::Evicted)),
        (false, Some(_)) => (vec![Act::Evict], None),
    };
    acts.extend(new.map(Act::Drains));
    acts
}

fn left(node: &Node, seen: &Seen) -> Vec<Act> {
    // A kubelet that still runs makes its Node again until its machine is off.
    let mut acts = Vec::new();
    if seen.node.is_some() {
        acts.push(Act::DeleteNode);
    }
    if has_token(node, seen) {
        acts.push(Act::Forget);
    }
    acts
}

fn left_behind(node: &Node, seen: &Seen) -> Vec<Act> {
    forget_then(node, seen, Act::Enter(Phase::Left, Why::AsWanted))
}

fn forget_then(node: &Node, seen: &Seen, then: Act) -> Vec<Act> {
    if has_token(node, seen) { vec![Act::Forget] } else { vec![then] }
}

fn has_token(node: &Node, seen: &Seen) -> bool {
    seen.token || node.token.is_some()
}

fn good(node: &Node, seen: &Seen, now: Timestamp) -> bool {
    seen.token && node.token.as_ref().is_some_and(|token| token.expire_time.since(now) > TOKEN_RENEW)
}

/// Not while nobody could ask: a cluster that was away is given some time to be asked again.
fn late(node: &Node, guest: Guest, seen: &Seen, now: Timestamp) -> bool {
    let over = match guest.start_time {
        Some(start) => now.since(start.max(node.phase_time)) > JOIN_DEADLINE,
        None => now.since(node.phase_time) > START_DEADLINE,
    };
    over && now.since(seen.since) > JOIN_GRACE
}
