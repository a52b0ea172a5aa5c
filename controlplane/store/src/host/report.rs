//! What a host says of itself. Written only where it differs from what is known.
//!
//! The first report makes an ENROLLED host READY: before it nothing is known that could be placed on.

use croft_core::Result;
use croft_core::condition::Condition;
use croft_core::host::{Capacity, Host, LEASE, Resources, State, unready};
use croft_core::id::HostId;

use super::lease;
use crate::column::to_json;
use crate::open::Store;
use crate::sql::sql;

#[derive(Debug, Clone, PartialEq)]
pub struct HostReport {
    pub capacity: Capacity,
    /// `None`: it could not look, and what was known stays.
    pub foreign: Option<Resources>,
    /// `HostInfo`, proto JSON.
    pub info: serde_json::Value,
    pub features: Vec<String>,
    pub conditions: Vec<Condition>,
    pub boot_id: String,
}

impl HostReport {
    fn differs(&self, host: &Host, boot_id: &str) -> bool {
        host.state == State::Enrolled
            || self.moves(host)
            || self.info != host.info
            || self.features != host.features
            || self.conditions != host.conditions
            || self.boot_id != boot_id
    }

    /// Whether placement has to look again.
    fn moves(&self, host: &Host) -> bool {
        self.capacity != host.capacity
            || self.foreign.is_some_and(|foreign| foreign != host.foreign)
            || unready(&self.conditions) != host.unready()
    }
}

impl Store {
    /// `true`: something was new.
    pub async fn host_report(&self, id: &HostId, report: HostReport) -> Result<bool> {
        // The usual report says nothing new, and then waits for no writer.
        if let Some(row) = super::row(&mut *self.reader().await?, id).await? {
            let boot_id = row.boot_id.clone();
            if !report.differs(&row.try_into()?, &boot_id) {
                return Ok(false);
            }
        }
        let id = id.clone();
        self.transaction(move |tx| {
            Box::pin(async move {
                let host = super::require(&mut tx.conn, &id).await?;
                sql("UPDATE hosts
                     SET capacity = $2, foreign_resources = $3, info = $4, features = $5, conditions = $6, boot_id = $7,
                         version = version + $8 + CASE WHEN boot_id = $7 OR devices_boot_id = '' THEN 0 ELSE 1 END
                     WHERE id = $1")
                .bind(&id)
                .bind(to_json(&report.capacity)?)
                .bind(to_json(&report.foreign.unwrap_or(host.foreign))?)
                .bind(to_json(&report.info)?)
                .bind(to_json(&report.features)?)
                .bind(to_json(&report.conditions)?)
                .bind(&report.boot_id)
                .bind(i64::from(report.moves(&host)))
                .run(&mut tx.conn)
                .await?;
                if host.state == State::Enrolled {
                    lease::begin(tx, &id, tx.now.plus(LEASE)).await?;
                }
                Ok(true)
            })
        })
        .await
    }
}
