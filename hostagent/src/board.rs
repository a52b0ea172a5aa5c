//! What the agent believes to be true now, as the plane is to hear it.
//!
//! Drivers, the host report and the image fetches write their own piece; the link sends each session what it has not heard.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use croft_proto::agent::v1::{HostObservation, ImageObservation, InstanceObservation};
use tokio::sync::watch;
use uuid::Uuid;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Board {
    facts: Arc<Mutex<Facts>>,
    version: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    pub host: Option<Arc<HostObservation>>,
    pub instances: HashMap<Uuid, Arc<InstanceObservation>>,
    pub images: HashMap<String, Arc<ImageObservation>>,
}

impl Default for Board {
    fn default() -> Self {
        Self { facts: Arc::default(), version: Arc::new(watch::Sender::new(0)) }
    }
}

impl Board {
    pub fn set_host(&self, host: HostObservation) {
        self.change(|facts| replace(&mut facts.host, host));
    }

    pub fn set_instance(&self, uid: Uuid, observation: InstanceObservation) {
        self.change(|facts| upsert(&mut facts.instances, uid, observation));
    }

    /// Nothing more to say about it, ever.
    pub fn forget_instance(&self, uid: Uuid) {
        self.change(|facts| facts.instances.remove(&uid).is_some());
    }

    pub fn set_image(&self, observation: ImageObservation) {
        self.change(|facts| upsert(&mut facts.images, observation.uid.clone(), observation));
    }

    /// Nothing more to say about the others; one that is being fetched speaks up again.
    pub fn keep_images(&self, keep: impl Fn(&str) -> bool) {
        self.change(|facts| {
            let before = facts.images.len();
            facts.images.retain(|uid, _| keep(uid));
            facts.images.len() != before
        });
    }

    #[must_use]
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    #[must_use]
    pub fn instance(&self, uid: Uuid) -> Option<Arc<InstanceObservation>> {
        self.lock().instances.get(&uid).cloned()
    }

    /// Changes whenever the facts do.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Wakes whoever watches: the journal says something that the board does not.
    pub fn stir(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    fn change(&self, change: impl FnOnce(&mut Facts) -> bool) {
        if change(&mut self.lock()) {
            self.version.send_modify(|version| *version += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn replace<T: PartialEq>(slot: &mut Option<Arc<T>>, value: T) -> bool {
    let differs = slot.as_deref() != Some(&value);
    if differs {
        *slot = Some(Arc::new(value));
    }
    differs
}

fn upsert<K: std::hash::Hash + Eq, T: PartialEq>(map: &mut HashMap<K, Arc<T>>, key: K, value: T) -> bool {
    let differs = map.get(&key).map(|old| &**old) != Some(&value);
    if differs {
        map.insert(key, Arc::new(value));
    }
    differs
}
