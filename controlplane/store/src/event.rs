//! Events: the part of history that people read.

use croft_core::Result;
use croft_core::event::{Change, Changed, Event};
use croft_core::id::TenantId;

use crate::change::{self, Row};
use crate::open::Store;
use crate::page::Page;
use crate::sql::sql;

/// The reasons of the events that the store itself writes.
pub mod reason {
    pub const INSTANCE_CREATED: &str = "InstanceCreated";
    pub const INSTANCE_PENDING: &str = "InstancePending";
    pub const INSTANCE_PLACING: &str = "InstancePlacing";
    pub const INSTANCE_PREPARING: &str = "InstancePreparing";
    pub const INSTANCE_STARTING: &str = "InstanceStarting";
    pub const INSTANCE_RUNNING: &str = "InstanceRunning";
    pub const INSTANCE_STOPPING: &str = "InstanceStopping";
    pub const INSTANCE_STOPPED: &str = "InstanceStopped";
    pub const INSTANCE_DELETING: &str = "InstanceDeleting";
    pub const INSTANCE_FAILED: &str = "InstanceFailed";
    pub const INSTANCE_UNKNOWN: &str = "InstanceUnknown";
    pub const INSTANCE_DELETED: &str = "InstanceDeleted";
    pub const INSTANCE_PLACED: &str = "InstancePlaced";
    pub const INSTANCE_FENCED: &str = "InstanceFenced";
    pub const INSTANCE_MOVED: &str = "InstanceMoved";
    pub const HOST_ENROLLED: &str = "HostEnrolled";
    pub const HOST_READY: &str = "HostReady";
    pub const HOST_UNREACHABLE: &str = "HostUnreachable";
    pub const HOST_FENCED: &str = "HostFenced";
    pub const HOST_CORDONED: &str = "HostCordoned";
    pub const HOST_UNCORDONED: &str = "HostUncordoned";
    pub const HOST_DRAINING: &str = "HostDraining";
    pub const HOST_DRAINED: &str = "HostDrained";
    pub const HOST_UNDRAINED: &str = "HostUndrained";
    pub const HOST_DELETED: &str = "HostDeleted";
    pub const DEVICE_QUARANTINED: &str = "DeviceQuarantined";
    pub const DEVICE_RELEASED: &str = "DeviceReleased";
    pub const DEVICE_CHANGED: &str = "DeviceStateChanged";
    pub const DEVICE_ATTACHED: &str = "DeviceAttached";
    pub const DEVICE_DETACHED: &str = "DeviceDetached";
    pub const NODE_JOINING: &str = "NodeJoining";
    pub const NODE_JOINED: &str = "NodeJoined";
    pub const NODE_READY: &str = "NodeReady";
    pub const NODE_MISSED: &str = "NodeMissed";
    pub const NODE_RESTARTED: &str = "NodeRestarted";
    pub const NODE_REBUILT: &str = "NodeRebuilt";
    pub const NODE_REPAIR_HELD_BACK: &str = "NodeRepairHeldBack";
    pub const NODE_LEAVING: &str = "NodeLeaving";
    pub const NODE_LEFT: &str = "NodeLeft";
    pub const NODE_LEFT_BEHIND: &str = "NodeLeftBehind";
    pub const NODE_NAME_TAKEN: &str = "NodeNameTaken";
    pub const NODE_DRAIN_BLOCKED: &str = "NodeDrainBlocked";
    pub const NODE_CERTIFICATE_DENIED: &str = "NodeCertificateDenied";
    pub const CLUSTER_CONDITION_CHANGED: &str = "ClusterConditionChanged";

    pub const ALL: &[&str] = &[
        INSTANCE_CREATED,
        INSTANCE_PENDING,
        INSTANCE_PLACING,
        INSTANCE_PREPARING,
        INSTANCE_STARTING,
        INSTANCE_RUNNING,
        INSTANCE_STOPPING,
        INSTANCE_STOPPED,
        INSTANCE_DELETING,
        INSTANCE_FAILED,
        INSTANCE_UNKNOWN,
        INSTANCE_DELETED,
        INSTANCE_PLACED,
        INSTANCE_FENCED,
        INSTANCE_MOVED,
        HOST_ENROLLED,
        HOST_READY,
        HOST_UNREACHABLE,
        HOST_FENCED,
        HOST_CORDONED,
        HOST_UNCORDONED,
        HOST_DRAINING,
        HOST_DRAINED,
        HOST_UNDRAINED,
        HOST_DELETED,
        DEVICE_QUARANTINED,
        DEVICE_RELEASED,
        DEVICE_CHANGED,
        DEVICE_ATTACHED,
        DEVICE_DETACHED,
        NODE_JOINING,
        NODE_JOINED,
        NODE_READY,
        NODE_MISSED,
        NODE_RESTARTED,
        NODE_REBUILT,
        NODE_REPAIR_HELD_BACK,
        NODE_LEAVING,
        NODE_LEFT,
        NODE_LEFT_BEHIND,
        NODE_NAME_TAKEN,
        NODE_DRAIN_BLOCKED,
        NODE_CERTIFICATE_DENIED,
        CLUSTER_CONDITION_CHANGED,
    ];
}

impl Store {
    /// For what happened without a row being written. `revision` and `time` are given by the commit.
    pub async fn event_append(&self, event: Event) -> Result<()> {
        self.transaction(move |tx| {
            Box::pin(async move {
                let time = tx.now;
                tx.append(Event { time, ..event });
                Ok(())
            })
        })
        .await
    }

    /// Oldest first. The revision is that of the snapshot: watch from the one that came with the first page.
    pub async fn events_list(
        &self,
        within: Option<&TenantId>,
        target: Option<&str>,
        page: &Page,
    ) -> Result<(Vec<Event>, Option<String>, i64)> {
        let list = format!("events {within:?} {target:?}");
        let after = page.after::<1>(&list)?.and_then(|[revision]| revision.parse().ok()).unwrap_or(i64::MIN);
        let mut tx = self.snapshot().await?;
        let revision = change::revision(&mut tx).await?;
        let rows: Vec<Row> = sql("SELECT revision, kind, body
                                  FROM changes
                                  WHERE topic = 'event'
                                    AND revision > $1
                                    AND ($2 IS NULL OR target = $2)
                                    AND ($3 IS NULL OR tenant_uid IN (
                                        SELECT a.tenant_uid
                                        FROM tenant_ancestors a
                                        JOIN tenants t ON t.uid = a.ancestor_uid
                                        WHERE t.id = $3))
                                  ORDER BY revision
                                  LIMIT $4")
        .bind(after)
        .bind(target)
        .bind(within)
        .bind(page.fetch())
        .all(&mut tx)
        .await?;
        let mut events = Vec::with_capacity(rows.len());
        for row in rows {
            if let Changed::Event(event) = Change::try_from(row)?.what {
                events.push(event);
            }
        }
        let next = page.cut(&list, &mut events, |event| [event.revision.to_string()]);
        Ok((events, next, revision))
    }
}
