//! What a session has told its agent, against what the agent should know: the difference is the next message. Pure, and
//! level-triggered: it does not matter why somebody looks, or how often.
//!
//! Nothing is removed by an absence. A removal is a tombstone that the store made; an instance that is in neither list
//! any more has been reported gone by this very host.

use std::collections::BTreeMap;

use croft_core::Result;
use croft_proto::agent::v1 as wire;
use croft_store::Desired;
use wire::plane_message::Kind;

use crate::convert;

/// The whole desired state, by uid.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    pub epoch: i64,
    pub revision: i64,
    policy: wire::HostPolicy,
    instances: BTreeMap<String, wire::DesiredInstance>,
    tombstones: BTreeMap<String, wire::Tombstone>,
}

impl Wanted {
    pub fn new(desired: Desired) -> Result<Self> {
        let policy = policy(&desired);
        let mut instances = BTreeMap::new();
        for (instance, image, tenant, networks) in &desired.instances {
            let object = convert::desired::out(instance, image, tenant, networks)?;
            instances.insert(object.uid.clone(), object);
        }
        let tombstones = desired.tombstones.iter().map(|tombstone| {
            let (uid, force, generation) = (tombstone.uid.to_string(), tombstone.force, tombstone.generation);
            let stop_timeout_seconds = convert::desired::seconds(tombstone.stop_timeout);
            (uid.clone(), wire::Tombstone { uid, force, stop_timeout_seconds, generation })
        });
        let tombstones = tombstones.collect();
        Ok(Self { epoch: desired.epoch, revision: desired.revision, policy, instances, tombstones })
    }
}

fn policy(desired: &Desired) -> wire::HostPolicy {
    let release = |(device, counter): &(croft_core::id::DeviceId, i64)| wire::DeviceRelease {
        device: device.to_string(),
        counter: *counter,
    };
    wire::HostPolicy {
        disk_reserve_gib: desired.disk_reserve_gib,
        layout_generation: desired.layout.generation,
        layout: desired.layout.devices.iter().map(convert::layout::device_out).collect(),
        releases: desired.releases.iter().map(release).collect(),
    }
}

/// Nothing, at first.
#[derive(Debug, Default)]
pub struct Sent(Option<Wanted>);

impl Sent {
    /// What to say now; `None`: the agent has been told everything.
    pub fn next(&mut self, wanted: Wanted) -> Option<Kind> {
        let message = match &self.0 {
            // What an epoch or a policy changes is more than a difference can say.
            Some(sent) if sent.epoch == wanted.epoch && sent.policy == wanted.policy => {
                Kind::Change(change(sent, &wanted)?)
            }
            _ => Kind::Sync(wire::Sync {
                epoch: wanted.epoch,
                revision: wanted.revision,
                instances: wanted.instances.values().cloned().collect(),
                tombstones: wanted.tombstones.values().cloned().collect(),
                policy: Some(wanted.policy.clone()),
            }),
        };
        self.0 = Some(wanted);
        Some(message)
    }
}

fn change(sent: &Wanted, wanted: &Wanted) -> Option<wire::Change> {
    let upserts: Vec<_> = differing(&sent.instances, &wanted.instances);
    let tombstones: Vec<_> = differing(&sent.tombstones, &wanted.tombstones);
    if upserts.is_empty() && tombstones.is_empty() {
        return None;
    }
    Some(wire::Change { epoch: wanted.epoch, revision: wanted.revision, upserts, tombstones })
}

fn differing<T: Clone + PartialEq>(old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) -> Vec<T> {
    new.iter().filter(|(uid, object)| old.get(*uid) != Some(*object)).map(|(_, object)| object.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(epoch: i64, revision: i64, instances: &[(&str, i64)], tombstones: &[&str]) -> Wanted {
        let object =
            |uid: &str, generation| wire::DesiredInstance { uid: uid.into(), generation, ..Default::default() };
        let tombstone = |uid: &str| wire::Tombstone { uid: uid.into(), ..Default::default() };
        Wanted {
            epoch,
            revision,
            policy: wire::HostPolicy::default(),
            instances: instances.iter().map(|(uid, n)| ((*uid).to_owned(), object(uid, *n))).collect(),
            tombstones: tombstones.iter().map(|uid| ((*uid).to_owned(), tombstone(uid))).collect(),
        }
    }

    fn changed(message: Option<Kind>) -> (i64, Vec<String>, Vec<String>) {
        let Some(Kind::Change(change)) = message else { panic!("not a Change: {message:?}") };
        let upserts = change.upserts.into_iter().map(|object| object.uid).collect();
        (change.revision, upserts, change.tombstones.into_iter().map(|tombstone| tombstone.uid).collect())
    }

    #[test]
    fn first_everything_then_what_differs_then_nothing() {
        let mut sent = Sent::default();
        let first = sent.next(wanted(1, 10, &[("a", 1), ("b", 1)], &["x"]));
        let Some(Kind::Sync(sync)) = first else { panic!("not a Sync: {first:?}") };
        assert_eq!((sync.revision, sync.instances.len(), sync.tombstones.len()), (10, 2, 1));
        assert_eq!(sent.next(wanted(1, 11, &[("a", 1), ("b", 1)], &["x"])), None);
        let message = sent.next(wanted(1, 12, &[("a", 2), ("b", 1), ("c", 1)], &["x"]));
        assert_eq!(changed(message), (12, vec!["a".into(), "c".into()], vec![]));
        let message = sent.next(wanted(1, 13, &[("a", 2), ("c", 1)], &["b", "x"]));
        assert_eq!(changed(message), (13, vec![], vec!["b".into()]));
    }

    #[test]
    fn what_is_gone_needs_no_word() {
        let mut sent = Sent::default();
        sent.next(wanted(1, 10, &[("a", 1)], &["x"]));
        assert_eq!(sent.next(wanted(1, 11, &[], &[])), None);
    }

    #[test]
    fn a_fence_or_another_policy_is_told_as_a_whole() {
        let mut sent = Sent::default();
        sent.next(wanted(1, 10, &[("a", 1)], &[]));
        assert!(matches!(sent.next(wanted(2, 11, &[], &["a"])), Some(Kind::Sync(sync)) if sync.epoch == 2));
        let roomier = Wanted {
            policy: wire::HostPolicy { disk_reserve_gib: 50, ..Default::default() },
            ..wanted(2, 12, &[], &["a"])
        };
        assert!(matches!(sent.next(roomier), Some(Kind::Sync(_))));
    }
}
