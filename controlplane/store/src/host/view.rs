//! Hosts as placement sees them: each with everything that was claimed on it.

use std::collections::BTreeMap;

use croft_core::Result;
use croft_core::id::HostId;
use croft_core::placement::HostView;
use sqlx::AnyConnection;

use super::{Row, select_hosts};
use crate::column::from_json;
use crate::device::view::Devices;
use crate::open::Store;
use crate::sql::sql;

#[derive(sqlx::FromRow)]
struct Claimed {
    host: String,
    claim: String,
}

#[derive(sqlx::FromRow)]
struct Version {
    id: String,
    version: i64,
}

fn empty(row: Row) -> Result<HostView> {
    let version = row.version;
    let devices_seen = !row.boot_id.is_empty() && row.boot_id == row.devices_boot_id;
    Ok(HostView { devices_seen, ..HostView::empty(&row.try_into()?, version) })
}

async fn view(conn: &mut AnyConnection, id: &HostId) -> Result<Option<HostView>> {
    let Some(row) = super::row(conn, id).await? else { return Ok(None) };
    let mut view = empty(row)?;
    let mut devices = Devices::read(conn, Some(id)).await?;
    devices.fill(&mut view);
    let claims: Vec<Claimed> = sql("SELECT host, claim FROM host_claims WHERE host = $1").bind(id).all(conn).await?;
    for claimed in claims {
        view.take(&from_json(&claimed.claim, "host_claims.claim")?);
    }
    devices.finish(&mut view);
    Ok(Some(view))
}

impl Store {
    /// All, by id.
    pub async fn host_views(&self) -> Result<Vec<HostView>> {
        let mut tx = self.snapshot().await?;
        let rows: Vec<Row> = sql(select_hosts!("ORDER BY id")).all(&mut tx).await?;
        let mut devices = Devices::read(&mut tx, None).await?;
        let mut views = BTreeMap::new();
        for row in rows {
            let mut view = empty(row)?;
            devices.fill(&mut view);
            views.insert(view.id.0.clone(), view);
        }
        let claims: Vec<Claimed> = sql("SELECT host, claim FROM host_claims").all(&mut tx).await?;
        for claimed in claims {
            if let Some(view) = views.get_mut(&claimed.host) {
                view.take(&from_json(&claimed.claim, "host_claims.claim")?);
            }
        }
        let mut views: Vec<HostView> = views.into_values().collect();
        views.iter_mut().for_each(|view| devices.finish(view));
        Ok(views)
    }

    /// To see which views are out of date.
    pub async fn host_versions(&self) -> Result<Vec<(HostId, i64)>> {
        let rows: Vec<Version> =
            sql("SELECT id, version FROM hosts ORDER BY id").all(&mut *self.reader().await?).await?;
        Ok(rows.into_iter().map(|row| (HostId(row.id), row.version)).collect())
    }

    pub async fn host_view(&self, id: &HostId) -> Result<Option<HostView>> {
        view(&mut *self.snapshot().await?, id).await
    }
}
