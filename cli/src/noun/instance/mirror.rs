//! What a watcher knows: each instance as last seen.
//!
//! ```text
//!  restart() ── ADDED… ── SYNCED ── ADDED, MODIFIED, REMOVED… ──► token too old ──► restart()
//! ```
//! After a restart the plane tells everything again; only what differs from what is known comes out, and what is not
//! told again before SYNCED is gone.

use std::collections::{BTreeMap, BTreeSet};

use croft_proto::v1::{self, watch_instances_response::Kind};

#[derive(Debug, Default)]
pub struct Mirror {
    known: BTreeMap<String, v1::Instance>,
    /// Told since the last restart; `None` once SYNCED.
    told: Option<BTreeSet<String>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub kind: Kind,
    pub instance: v1::Instance,
}

impl Mirror {
    /// The watch begins without a token: everything will be told.
    pub fn restart(&mut self) {
        self.told = Some(BTreeSet::new());
    }

    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.told.is_none()
    }

    /// What the message changes for whoever saw everything before it.
    pub fn absorb(&mut self, message: v1::WatchInstancesResponse) -> Vec<Change> {
        let kind = message.kind();
        let Some(instance) = message.instance else {
            return if kind == Kind::Synced { self.synced() } else { Vec::new() };
        };
        match kind {
            Kind::Removed => {
                let gone = self.known.remove(&instance.name);
                gone.map(|_| Change { kind: Kind::Removed, instance }).into_iter().collect()
            }
            Kind::Added | Kind::Modified => {
                if let Some(told) = &mut self.told {
                    told.insert(instance.name.clone());
                }
                self.upsert(instance)
            }
            Kind::Unspecified | Kind::Synced | Kind::Bookmark => Vec::new(),
        }
    }

    fn upsert(&mut self, instance: v1::Instance) -> Vec<Change> {
        let before = self.known.insert(instance.name.clone(), instance.clone());
        let uid = |instance: &v1::Instance| instance.metadata.as_ref().map(|metadata| metadata.uid.clone());
        match before {
            None => vec![Change { kind: Kind::Added, instance }],
            Some(before) if before == instance => Vec::new(),
            // Deleted and made again under the same name while nobody looked.
            Some(before) if uid(&before) != uid(&instance) => {
                vec![Change { kind: Kind::Removed, instance: before }, Change { kind: Kind::Added, instance }]
            }
            Some(_) => vec![Change { kind: Kind::Modified, instance }],
        }
    }

    fn synced(&mut self) -> Vec<Change> {
        let Some(told) = self.told.take() else { return Vec::new() };
        let gone: Vec<_> = self.known.keys().filter(|name| !told.contains(*name)).cloned().collect();
        gone.iter()
            .filter_map(|name| self.known.remove(name))
            .map(|instance| Change { kind: Kind::Removed, instance })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, uid: &str, generation: i64) -> v1::Instance {
        let metadata = v1::Metadata { uid: uid.into(), generation, ..v1::Metadata::default() };
        v1::Instance { name: name.into(), metadata: Some(metadata), ..v1::Instance::default() }
    }

    fn tell(mirror: &mut Mirror, kind: Kind, instance: Option<v1::Instance>) -> Vec<(Kind, String)> {
        let message = v1::WatchInstancesResponse { kind: kind.into(), instance, ..Default::default() };
        mirror.absorb(message).into_iter().map(|change| (change.kind, change.instance.name)).collect()
    }

    fn watching(names: &[&str]) -> Mirror {
        let mut mirror = Mirror::default();
        mirror.restart();
        for name in names {
            assert_eq!(
                tell(&mut mirror, Kind::Added, Some(instance(name, name, 1))),
                [(Kind::Added, (*name).to_owned())]
            );
        }
        assert_eq!(tell(&mut mirror, Kind::Synced, None), []);
        mirror
    }

    #[test]
    fn being_told_again_is_no_news() {
        let mut mirror = watching(&["a", "b"]);
        mirror.restart();
        assert_eq!(tell(&mut mirror, Kind::Added, Some(instance("a", "a", 1))), []);
        assert_eq!(tell(&mut mirror, Kind::Added, Some(instance("b", "b", 2))), [(Kind::Modified, "b".into())]);
        assert_eq!(tell(&mut mirror, Kind::Synced, None), []);
        assert!(mirror.is_synced());
    }

    #[test]
    fn what_went_while_nobody_looked_is_removed_at_synced() {
        let mut mirror = watching(&["a", "b"]);
        mirror.restart();
        assert_eq!(tell(&mut mirror, Kind::Added, Some(instance("c", "c", 1))), [(Kind::Added, "c".into())]);
        assert_eq!(tell(&mut mirror, Kind::Added, Some(instance("a", "a", 1))), []);
        assert_eq!(tell(&mut mirror, Kind::Synced, None), [(Kind::Removed, "b".into())]);
    }

    #[test]
    fn another_instance_of_the_same_name_is_another_instance() {
        let mut mirror = watching(&["a"]);
        mirror.restart();
        let told = tell(&mut mirror, Kind::Added, Some(instance("a", "second", 1)));
        assert_eq!(told, [(Kind::Removed, "a".into()), (Kind::Added, "a".into())]);
    }

    #[test]
    fn a_restart_in_the_middle_of_a_restart_removes_nothing_too_early() {
        let mut mirror = watching(&["a", "b"]);
        mirror.restart();
        assert_eq!(tell(&mut mirror, Kind::Added, Some(instance("a", "a", 1))), []);
        mirror.restart();
        assert_eq!(tell(&mut mirror, Kind::Added, Some(instance("a", "a", 1))), []);
        assert_eq!(tell(&mut mirror, Kind::Added, Some(instance("b", "b", 1))), []);
        assert_eq!(tell(&mut mirror, Kind::Synced, None), []);
    }

    #[test]
    fn doubled_messages_come_out_once() {
        let mut mirror = watching(&["a"]);
        assert_eq!(tell(&mut mirror, Kind::Modified, Some(instance("a", "a", 2))), [(Kind::Modified, "a".into())]);
        assert_eq!(tell(&mut mirror, Kind::Modified, Some(instance("a", "a", 2))), []);
        assert_eq!(tell(&mut mirror, Kind::Removed, Some(instance("a", "a", 2))), [(Kind::Removed, "a".into())]);
        assert_eq!(tell(&mut mirror, Kind::Removed, Some(instance("a", "a", 2))), []);
        assert_eq!(tell(&mut mirror, Kind::Bookmark, None), []);
    }
}
