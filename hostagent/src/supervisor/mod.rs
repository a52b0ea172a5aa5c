//! Takes intent from the plane, journals it, and keeps one driver for each instance.
//!
//! An epoch above the journal's means that this host was fenced: its tombstones are carried out, plug pulled, before any
//! start, and only then is the epoch written. Until then the gate ([`Starts`]) is shut. It is shut as well after the
//! machine restarted, until the plane confirmed the epoch: the host may have been fenced while it was down.
//!
//! What the plane neither lists nor buries is left alone, and reported. Refuses to touch a VM: drivers do.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use croft_proto::agent::v1::{Change, DesiredInstance, HostPolicy, InstanceObservation, Sync, Tombstone};
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

use crate::crash;
use crate::driver::decide::Starts;
use crate::driver::{Shared, spawn_driver};
use crate::journal::{self, Entry, HostRecord, Journal, Kept, Record};
use crate::surveyor::Look;

mod orphans;

type Entries = HashMap<Uuid, Arc<Entry>>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the control plane is at epoch {plane} and this host's journal at {journal}: the plane was probably restored \
         from an old backup. Fence the host until its epoch is above {journal}, or delete it and enrol it again"
    )]
    OldEpoch { plane: i64, journal: i64 },
    #[error(transparent)]
    Journal(#[from] journal::Error),
}

/// (epoch, revision) that is on the disk.
pub type Reached = (i64, i64);

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    host: Kept<HostRecord>,
    entries: std::sync::Mutex<Entries>,
    // One message from the plane at a time, in order.
    applying: Mutex<()>,
    starts: watch::Sender<Starts>,
    policy: watch::Sender<HostPolicy>,
    shared: Shared,
}

impl Supervisor {
    /// Takes over what the journal knows; drivers begin to work at once, with the plane or without it. `starts` is shut,
    /// and opens here when the plane confirmed the epoch in this very boot.
    pub async fn start(opened: journal::Opened, starts: watch::Sender<Starts>, shared: Shared) -> Self {
        let host = opened.host.read().await;
        // A boot id that cannot be read confirms nothing.
        let boot_id = shared.hypervisor.boot_id().await.ok();
        if boot_id.is_some_and(|boot_id| boot_id == host.boot_id) && host.fencing.is_none() {
            starts.send_replace(Starts::Allowed);
        }
        let supervisor = Self(Arc::new(Inner {
            journal: opened.journal,
            host: opened.host,
            entries: std::sync::Mutex::default(),
            applying: Mutex::default(),
            starts,
            policy: watch::Sender::new(HostPolicy::default()),
            shared,
        }));
        for (uid, record) in opened.records {
            supervisor.adopt(Arc::new(supervisor.0.journal.entry(uid, record)));
        }
        supervisor
    }

    /// Everything is on the disk when it returns.
    pub async fn sync(&self, sync: Sync, boot_id: &str) -> Result<Reached, Error> {
        let _one = self.0.applying.lock().await;
        let known = self.0.host.read().await.epoch;
        if sync.epoch < known {
            return Err(Error::OldEpoch { plane: sync.epoch, journal: known });
        }
        if sync.epoch > known {
            self.fence(&sync, known).await?;
        }
        let mut listed = HashSet::new();
        for tombstone in &sync.tombstones {
            listed.extend(self.bury(tombstone, tombstone.force).await?);
        }
        for desired in sync.instances {
            listed.extend(self.upsert(desired, Source::Sync).await?);
        }
        for (uid, entry) in self.entries() {
            if listed.contains(&uid) {
                continue;
            }
            if entry.read().await.is_gone() {
                self.let_go(&entry).await?;
            } else {
                entry.update(|record| record.listed = false).await?;
                entry.wake();
            }
        }
        self.0.policy.send_replace(sync.policy.unwrap_or_default());
        self.reached(sync.epoch, sync.revision, Some(boot_id)).await?;
        self.0.starts.send_replace(Starts::Allowed);
        Ok((sync.epoch, sync.revision))
    }

    /// Everything is on the disk when it returns.
    pub async fn change(&self, change: Change) -> Result<Reached, Error> {
        let _one = self.0.applying.lock().await;
        let host = self.0.host.read().await;
        if change.epoch != host.epoch {
            return Err(Error::OldEpoch { plane: change.epoch, journal: host.epoch });
        }
        for tombstone in &change.tombstones {
            self.bury(tombstone, tombstone.force).await?;
        }
        for desired in change.upserts {
            self.upsert(desired, Source::Change).await?;
        }
        self.reached(change.epoch, change.revision, None).await?;
        Ok((change.epoch, change.revision))
    }

    /// The machine restarted under a living agent (only a simulated one can): as after a start of the agent.
    pub fn boot_changed(&self) {
        self.0.starts.send_replace(Starts::AwaitEpoch);
    }

    #[must_use]
    pub fn policy(&self) -> watch::Receiver<HostPolicy> {
        self.0.policy.subscribe()
    }

    pub async fn epoch(&self) -> i64 {
        self.0.host.read().await.epoch
    }

    #[must_use]
    pub fn entry(&self, uid: Uuid) -> Option<Arc<Entry>> {
        self.lock().get(&uid).cloned()
    }

    #[must_use]
    pub fn entries(&self) -> Vec<(Uuid, Arc<Entry>)> {
        self.lock().iter().map(|(uid, entry)| (*uid, Arc::clone(entry))).collect()
    }

    pub async fn images_last_wanted(&self) -> std::collections::BTreeMap<Uuid, i64> {
        self.0.host.read().await.images
    }

    /// Changes the host's part of the journal.
    pub async fn update_host(&self, change: impl FnOnce(&mut HostRecord)) -> Result<(), journal::Error> {
        self.0.host.update(change).await
    }

    /// Makes everybody look again.
    pub fn wake_all(&self) {
        for entry in self.lock().values() {
            entry.wake();
        }
    }

    /// Everything of Croft's on this host in one successful look, for a report that claims to be complete; `None` when
    /// the hypervisor does not answer. Waits until every driver has said its first word: what is not in the answer is
    /// not there.
    pub async fn census(&self) -> Option<Vec<Arc<InstanceObservation>>> {
        let mut changed = self.0.shared.board.watch();
        loop {
            changed.mark_unchanged();
            let look = self.0.shared.surveyor.fresh().await;
            look.outcome.as_ref().ok()?;
            self.report_orphans(&look);
            let facts = self.0.shared.board.facts();
            if self.lock().keys().all(|uid| facts.instances.contains_key(uid)) {
                return Some(facts.instances.into_values().collect());
            }
            changed.changed().await.ok()?;
        }
    }

    /// Pulls the plug on what was fenced, and waits until nothing of it can run. Devices that do not come home are not waited
    /// for: nobody else gets them, and a host must not stay shut for one.
    async fn fence(&self, sync: &Sync, known: i64) -> Result<(), Error> {
        match known {
            0 => tracing::info!(epoch = sync.epoch, "the first epoch that this host hears of"),
            _ => tracing::warn!(from = known, to = sync.epoch, buried = sync.tombstones.len(), "this host was fenced"),
        }
        self.0.starts.send_replace(Starts::AwaitEpoch);
        self.0.host.update(|host| host.fencing = Some(sync.epoch)).await?;
        let mut buried = Vec::new();
        for tombstone in &sync.tombstones {
            buried.extend(self.bury(tombstone, true).await?);
        }
        let mut changed = self.0.shared.board.watch();
        for uid in buried {
            while let Some(entry) = self.entry(uid)
                && entry.read().await.may_run()
            {
                // Whoever writes that it is gone says so on the board afterwards.
                let _ = changed.changed().await;
            }
        }
        Ok(())
    }

    async fn bury(&self, tombstone: &Tombstone, force: bool) -> Result<Option<Uuid>, Error> {
        let Some(uid) = parse(&tombstone.uid) else { return Ok(None) };
        crash::point("agent.journal.before");
        if let Some(entry) = self.entry(uid) {
            entry.update(|record| record.bury(tombstone, force)).await?;
            entry.wake();
        } else {
            let mut record = Record { listed: true, ..Record::default() };
            record.bury(tombstone, force);
            let entry = Arc::new(self.0.journal.entry(uid, record));
            entry.persist().await?;
            self.adopt(entry);
        }
        crash::point("agent.journal.after");
        Ok(Some(uid))
    }

    async fn upsert(&self, desired: DesiredInstance, source: Source) -> Result<Option<Uuid>, Error> {
        let Some(uid) = parse(&desired.uid) else { return Ok(None) };
        crash::point("agent.journal.before");
        if let Some(entry) = self.entry(uid) {
            let known = entry.read().await;
            if source == Source::Change && desired.generation < known.generation() {
                return Ok(Some(uid));
            }
            entry
                .update(|record| match &record.tombstone {
                    // A fenced instance may be placed on this very host again, once nothing of its first life is left.
                    Some(_) => record.after = Some(desired),
                    None => record.set_desired(desired),
                })
                .await?;
            entry.wake();
        } else {
            let entry = Arc::new(self.0.journal.entry(uid, Record::new(desired)));
            entry.persist().await?;
            self.adopt(entry);
        }
        crash::point("agent.journal.after");
        Ok(Some(uid))
    }

    /// Gone, and the plane has stopped asking for that.
    async fn let_go(&self, entry: &Arc<Entry>) -> Result<(), Error> {
        entry.retire().await?;
        self.lock().remove(&entry.uid);
        self.0.shared.board.forget_instance(entry.uid);
        Ok(())
    }

    async fn reached(&self, epoch: i64, revision: i64, boot_id: Option<&str>) -> Result<(), Error> {
        crash::point("agent.epoch.before");
        self.0
            .host
            .update(|host| {
                (host.epoch, host.revision) = (epoch, revision);
                if let Some(boot_id) = boot_id {
                    host.boot_id = boot_id.to_owned();
                    host.fencing = None;
                }
            })
            .await?;
        crash::point("agent.epoch.after");
        Ok(())
    }

    fn adopt(&self, entry: Arc<Entry>) {
        // Known before its driver speaks, so that it is never taken for an orphan.
        self.lock().insert(entry.uid, Arc::clone(&entry));
        spawn_driver(&entry, self.0.shared.clone());
    }

    fn report_orphans(&self, look: &Look) {
        // Locked throughout: nothing is adopted between the question and the answer.
        let entries = self.lock();
        orphans::report(&self.0.shared.board, look, |uid| entries.contains_key(&uid));
    }

    /// Reports domains of Croft's that nobody told this agent about, as looks come in.
    pub async fn watch_orphans(self) {
        let mut looks = self.0.shared.surveyor.watch();
        while looks.changed().await.is_ok() {
            let look = looks.borrow_and_update().clone();
            if let Some(look) = look {
                self.report_orphans(&look);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.0.entries.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The whole truth of the plane: taken as it is.
    Sync,
    /// One step: an older generation than is known is late news.
    Change,
}

fn parse(uid: &str) -> Option<Uuid> {
    Uuid::try_parse(uid)
        .inspect_err(|error| tracing::error!("the control plane sent an instance with uid {uid:?}, ignored: {error}"))
        .ok()
}
