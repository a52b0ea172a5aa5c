//! Reading instances.

use croft_core::id::{HostId, InstanceUid, TenantId};
use croft_core::instance::{Instance, State};
use croft_core::meta::Labels;
use croft_core::{Result, Timestamp};

use super::{Row, select_instances};
use crate::change;
use crate::open::Store;
use crate::page::Page;
use crate::sql::{Sql, sql};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InstanceFilter {
    /// Of this tenant and all below it.
    pub within: Option<TenantId>,
    /// Of this tenant alone.
    pub tenant: Option<TenantId>,
    pub host: Option<HostId>,
    /// All of these.
    pub labels: Labels,
}

impl InstanceFilter {
    fn apply(&self, mut statement: Sql) -> Sql {
        if let Some(tenant) = &self.tenant {
            statement = statement.push(" AND tenant = ").push_bind(tenant);
        }
        if let Some(host) = &self.host {
            statement = statement.push(" AND host = ").push_bind(host);
        }
        if let Some(within) = &self.within {
            statement = statement
                .push(
                    " AND tenant IN (
                        SELECT below.id
                        FROM tenants below
                        JOIN tenant_ancestors a ON a.tenant_uid = below.uid
                        JOIN tenants t ON t.uid = a.ancestor_uid
                        WHERE t.id = ",
                )
                .push_bind(within)
                .push(")");
        }
        for (key, value) in &self.labels {
            statement = statement
                .push(" AND uid IN (SELECT instance_uid FROM instance_labels WHERE label_key = ")
                .push_bind(key)
                .push(" AND label_value = ")
                .push_bind(value)
                .push(")");
        }
        statement
    }
}

#[derive(sqlx::FromRow)]
struct Count {
    tenant: String,
    state: String,
    instances: i64,
    since: i64,
}

/// How many instances of a tenant are in a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateCount {
    pub tenant: TenantId,
    pub state: State,
    pub instances: i64,
    /// When the one that has been in it for longest came into it.
    pub since: Timestamp,
}

impl Store {
    pub async fn instance_get(&self, tenant: &TenantId, id: &str) -> Result<Option<Instance>> {
        super::by_name(&mut *self.reader().await?, tenant, id).await
    }

    pub async fn instance_by_uid(&self, uid: InstanceUid) -> Result<Option<Instance>> {
        Ok(super::by_uids(&mut *self.reader().await?, &[uid]).await?.pop())
    }

    /// By tenant and id. The revision is that of the snapshot: to miss nothing, watch from the one that came with the
    /// first page.
    pub async fn instance_list(
        &self,
        filter: &InstanceFilter,
        page: &Page,
    ) -> Result<(Vec<Instance>, Option<String>, i64)> {
        let list = format!("instances {filter:?}");
        let [tenant, id] = page.after::<2>(&list)?.unwrap_or_default();
        let mut tx = self.snapshot().await?;
        let revision = change::revision(&mut tx).await?;
        let from = sql(select_instances!("WHERE (tenant, id) > ($1, $2)")).bind(tenant).bind(id);
        let rows: Vec<Row> =
            filter.apply(from).push(" ORDER BY tenant, id LIMIT ").push_bind(page.fetch()).all(&mut tx).await?;
        let mut instances: Vec<Instance> = rows.into_iter().map(TryInto::try_into).collect::<Result<_>>()?;
        let next = page.cut(&list, &mut instances, |instance| [instance.tenant.to_string(), instance.id.clone()]);
        Ok((instances, next, revision))
    }

    /// Everything that somebody must look at after a start: on its way, with open operations, touched since it was last
    /// settled, or out of step with how its host is seen.
    pub async fn instance_unsettled(&self) -> Result<Vec<InstanceUid>> {
        // A branch for each index: a fleet at rest costs next to nothing.
        let uids: Vec<(String,)> = sql("SELECT uid
                                        FROM instances
                                        WHERE settled = 0
                                        UNION
                                        SELECT uid
                                        FROM instances
                                        WHERE state IN ('PENDING', 'PLACING', 'PREPARING', 'STARTING', 'STOPPING',
                                                        'DELETING')
                                        UNION
                                        SELECT i.uid
                                        FROM operations o
                                        JOIN instances i ON i.uid = o.target_uid
                                        WHERE o.done = 0
                                        UNION
                                        SELECT i.uid
                                        FROM instances i
                                        JOIN hosts h ON h.id = i.host
                                        WHERE i.state = 'UNKNOWN' AND h.state IN ('READY', 'ENROLLED')
                                        UNION
                                        SELECT uid
                                        FROM instances
                                        WHERE state <> 'UNKNOWN'
                                          AND host IN (
                                              SELECT id FROM hosts WHERE state IN ('UNREACHABLE', 'FENCED'))
                                        ORDER BY 1")
        .all(&mut *self.reader().await?)
        .await?;
        uids.iter().map(|(text,)| super::uid(text)).collect()
    }

    pub async fn instance_on_host(&self, host: &HostId) -> Result<Vec<InstanceUid>> {
        let uids: Vec<(String,)> = sql("SELECT uid
                                        FROM instances
                                        WHERE host = $1
                                        ORDER BY uid")
        .bind(host)
        .all(&mut *self.reader().await?)
        .await?;
        uids.iter().map(|(text,)| super::uid(text)).collect()
    }

    /// For metrics.
    pub async fn instances_by_state(&self) -> Result<Vec<StateCount>> {
        let counts: Vec<Count> = sql("SELECT tenant, state, COUNT(*) AS instances, MIN(state_time) AS since
                                      FROM instances
                                      GROUP BY tenant, state
                                      ORDER BY tenant, state")
        .all(&mut *self.reader().await?)
        .await?;
        let count = |row: Count| {
            Ok(StateCount {
                tenant: TenantId(row.tenant),
                state: super::state(&row.state)?,
                instances: row.instances,
                since: Timestamp(row.since),
            })
        };
        counts.into_iter().map(count).collect()
    }
}
