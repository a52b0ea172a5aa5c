//! Instances: the row, how it is read and written back.

pub(crate) mod attach;
pub(crate) mod away;
pub(crate) mod charged;
pub(crate) mod claim;
pub(crate) mod command;
pub(crate) mod gone;
pub(crate) mod keep;
pub(crate) mod list;
pub(crate) mod node;
pub(crate) mod observe;
pub(crate) mod place;
pub(crate) mod settle;
pub(crate) mod update;

use croft_core::id::{HostId, InstanceUid, TenantId};
use croft_core::instance::{Instance, State, Status};
use croft_core::meta::Meta;
use croft_core::{Error, Result, Timestamp};
use sqlx::AnyConnection;

use crate::column::{from_json, to_json, wrong};
use crate::meta::MetaRow;
use crate::sql::sql;

#[derive(sqlx::FromRow)]
pub(crate) struct Row {
    #[sqlx(flatten)]
    meta: MetaRow,
    tenant: String,
    id: String,
    delete_time: Option<i64>,
    spec: String,
    intent: String,
    placement: Option<String>,
    node: Option<String>,
    state: String,
    state_time: i64,
    reason: String,
    message: String,
    observed: Option<String>,
    observed_time: Option<i64>,
}

/// All of an instance's row, and the rest of the statement.
macro_rules! select_instances {
    ($tail:literal) => {
        concat!(
            "SELECT uid, tenant, id, generation, labels, annotations, create_time, update_time, delete_time, spec,
                    intent, placement, node, state, state_time, reason, message, observed, observed_time
             FROM instances ",
            $tail
        )
    };
}
pub(crate) use select_instances;

impl TryFrom<Row> for Instance {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self> {
        Ok(Self {
            uid: uid(&row.meta.uid)?,
            tenant: TenantId(row.tenant),
            id: row.id,
            meta: Meta { delete_time: row.delete_time.map(Timestamp), ..row.meta.read("instances")? },
            spec: from_json(&row.spec, "instances.spec")?,
            intent: from_json(&row.intent, "instances.intent")?,
            placement: row.placement.map(|text| from_json(&text, "instances.placement")).transpose()?,
            node: row.node.map(|text| from_json(&text, "instances.node")).transpose()?,
            status: Status {
                state: state(&row.state)?,
                state_time: Timestamp(row.state_time),
                reason: row.reason,
                message: row.message,
                observed: row.observed.map(|text| from_json(&text, "instances.observed")).transpose()?,
                observed_time: row.observed_time.map(Timestamp),
            },
        })
    }
}

pub(crate) fn uid(text: &str) -> Result<InstanceUid> {
    InstanceUid::parse(text).ok_or_else(|| wrong("instances.uid", text))
}

pub(crate) fn state(word: &str) -> Result<State> {
    State::parse(word).ok_or_else(|| wrong("instances.state", word))
}

/// Whether what is told of it has been looked at since it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    Yes,
    /// Intent or truth changed: somebody has to work out its state.
    No,
}

pub(crate) async fn by_name(conn: &mut AnyConnection, tenant: &TenantId, id: &str) -> Result<Option<Instance>> {
    let row: Option<Row> =
        sql(select_instances!("WHERE tenant = $1 AND id = $2")).bind(tenant).bind(id).optional(conn).await?;
    row.map(TryInto::try_into).transpose()
}

pub(crate) async fn require(conn: &mut AnyConnection, tenant: &TenantId, id: &str) -> Result<Instance> {
    by_name(conn, tenant, id).await?.ok_or_else(|| Error::not_found(format!("tenants/{tenant}/instances/{id}")))
}

/// Those of these that exist, in no order.
pub(crate) async fn by_uids(conn: &mut AnyConnection, uids: &[InstanceUid]) -> Result<Vec<Instance>> {
    if uids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<Row> = sql(select_instances!("WHERE uid IN ")).list(uids).all(conn).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

pub(crate) async fn on_host(conn: &mut AnyConnection, host: &HostId) -> Result<Vec<Instance>> {
    let rows: Vec<Row> = sql(select_instances!("WHERE host = $1 ORDER BY uid")).bind(host).all(conn).await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Everything that can change after the claim, back into the row.
pub(crate) async fn write(conn: &mut AnyConnection, instance: &Instance, settled: Settled) -> Result<()> {
    let Instance { uid, meta, intent, placement, status, .. } = instance;
    sql("UPDATE instances
         SET generation = $2, labels = $3, annotations = $4, update_time = $5, delete_time = $6, intent = $7,
             host = $8, placement = $9, state = $10, state_time = $11, reason = $12, message = $13, observed = $14,
             observed_time = $15, settled = $16, node = $17
         WHERE uid = $1")
    .bind(*uid)
    .bind(meta.generation)
    .bind(to_json(&meta.labels)?)
    .bind(to_json(&meta.annotations)?)
    .bind(meta.update_time)
    .bind(meta.delete_time)
    .bind(to_json(intent)?)
    .bind(instance.host())
    .bind(placement.as_ref().map(to_json).transpose()?)
    .bind(status.state.as_str())
    .bind(status.state_time)
    .bind(&status.reason)
    .bind(&status.message)
    .bind(status.observed.as_ref().map(to_json).transpose()?)
    .bind(status.observed_time)
    .bind(settled == Settled::Yes)
    .bind(instance.node.as_ref().map(to_json).transpose()?)
    .run(conn)
    .await?;
    Ok(())
}

/// The devices that it asks for, and what may be done about its node; nothing else of a shape changes.
pub(crate) async fn write_spec(conn: &mut AnyConnection, instance: &Instance) -> Result<()> {
    sql("UPDATE instances SET spec = $2 WHERE uid = $1")
        .bind(instance.uid)
        .bind(to_json(&instance.spec)?)
        .run(conn)
        .await?;
    Ok(())
}

/// One row per label, so that a selector is an index's work.
pub(crate) async fn write_labels(conn: &mut AnyConnection, instance: &Instance) -> Result<()> {
    let labels: Vec<_> = instance.meta.labels.iter().collect();
    crate::sql::insert(
        conn,
        "INSERT INTO instance_labels (instance_uid, label_key, label_value)",
        "",
        &labels,
        |row, (key, value)| row.cell(instance.uid).cell(*key).cell(*value),
    )
    .await
}
