//! Tells one session what it has not heard yet: everything once, then what changed.
//!
//! No timers: while a message waits for room in the stream, further changes gather, and the next message has them all.

use std::collections::HashMap;
use std::sync::Arc;

use croft_proto::agent::v1::{ImageObservation, InstanceObservation, Observation, agent_message};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::session::{Outbox, Over};
use crate::board::Facts;
use crate::crash;
use crate::driver::Shared;
use crate::supervisor::Supervisor;

/// Of instances in one message that is not complete; well below the 4 MiB that a gRPC message may have.
const BATCH: usize = 500;

pub(super) async fn run(
    synced: oneshot::Receiver<()>,
    supervisor: &Supervisor,
    shared: &Shared,
    outbox: Outbox,
) -> Over {
    // Before the Sync is on the disk nothing can be said about what the plane wants.
    if synced.await.is_err() {
        return Over;
    }
    let mut told = Facts::default();
    let mut changed = shared.board.watch();
    let mut census = std::pin::pin!(census(supervisor, shared));
    let mut complete = false;
    loop {
        changed.mark_unchanged();
        for observation in news(&mut told, shared.board.facts()) {
            if let Err(over) = send(&outbox, observation).await {
                return over;
            }
        }
        tokio::select! {
            all = &mut census, if !complete => {
                complete = true;
                // The host and its images were told above.
                let instances = all.iter().map(|instance| (**instance).clone()).collect();
                told.instances = by_uid(all);
                if let Err(over) = send(&outbox, Observation { instances, complete, ..Observation::default() }).await {
                    return over;
                }
            }
            // The board outlives the link.
            Ok(()) = changed.changed() => {}
        }
    }
}

/// Everything, once the hypervisor answers.
async fn census(supervisor: &Supervisor, shared: &Shared) -> Vec<Arc<InstanceObservation>> {
    let mut looks = shared.surveyor.watch();
    loop {
        looks.mark_unchanged();
        if let Some(all) = supervisor.census().await {
            return all;
        }
        if looks.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn by_uid(all: Vec<Arc<InstanceObservation>>) -> HashMap<Uuid, Arc<InstanceObservation>> {
    all.into_iter().filter_map(|instance| Some((Uuid::try_parse(&instance.uid).ok()?, instance))).collect()
}

/// What differs from what was told, in messages of bearable size; brings `told` up to date.
fn news(told: &mut Facts, facts: Facts) -> Vec<Observation> {
    let mut instances: Vec<InstanceObservation> = changed(&told.instances, &facts.instances);
    instances.sort_by(|a, b| a.uid.cmp(&b.uid));
    let images: Vec<ImageObservation> = changed(&told.images, &facts.images);
    let host = (facts.host != told.host).then(|| facts.host.as_deref().cloned()).flatten();
    *told = facts;
    if host.is_none() && instances.is_empty() && images.is_empty() {
        return Vec::new();
    }
    let mut rest = instances.split_off(instances.len().min(BATCH));
    let mut messages = vec![Observation { host, instances, complete: false, images }];
    while !rest.is_empty() {
        let next = rest.split_off(rest.len().min(BATCH));
        messages.push(Observation { instances: rest, ..Observation::default() });
        rest = next;
    }
    messages
}

fn changed<K: std::hash::Hash + Eq, T: PartialEq + Clone>(
    told: &HashMap<K, Arc<T>>,
    now: &HashMap<K, Arc<T>>,
) -> Vec<T> {
    let differs = |(key, fact): &(&K, &Arc<T>)| told.get(*key) != Some(*fact);
    now.iter().filter(differs).map(|(_, fact)| (**fact).clone()).collect()
}

async fn send(outbox: &Outbox, observation: Observation) -> Result<(), Over> {
    crash::point("agent.report.before");
    outbox.send(agent_message::Kind::Observation(observation)).await?;
    crash::point("agent.report.after");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(count: u32) -> Facts {
        let mut facts = Facts::default();
        for number in 0..count {
            let uid = Uuid::from_u128(u128::from(number));
            let observation = InstanceObservation { uid: uid.to_string(), ..InstanceObservation::default() };
            facts.instances.insert(uid, Arc::new(observation));
        }
        facts
    }

    #[test]
    fn nothing_new_is_no_message() {
        let mut told = facts(3);
        assert!(news(&mut told, facts(3)).is_empty());
    }

    #[test]
    fn many_changes_are_told_once_each_in_bearable_messages() {
        let mut told = facts(1);
        let messages = news(&mut told, facts(1201));
        assert_eq!(messages.iter().map(|message| message.instances.len()).collect::<Vec<_>>(), [500, 500, 200]);
        assert!(messages.iter().all(|message| !message.complete));
        assert!(news(&mut told, facts(1201)).is_empty());
    }
}
