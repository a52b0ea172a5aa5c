//! The end of instances: row, claims, charges and seed leave in one commit. A reader never sees a free host that is
//! still charged, nor a charge without its instance.
//!
//! What was fenced on another host stays a tombstone there: it is not this commit's to forget.

use croft_core::Result;
use croft_core::id::InstanceUid;
use croft_core::instance::Instance;
use sqlx::AnyConnection;

use super::charged;
use crate::host::claimed;
use crate::sql::sql;

pub(super) async fn remove(conn: &mut AnyConnection, instances: &[&Instance]) -> Result<()> {
    if instances.is_empty() {
        return Ok(());
    }
    let uids: Vec<InstanceUid> = instances.iter().map(|instance| instance.uid).collect();
    claimed::give_back(conn, &uids).await?;
    charged::give_back_all(conn, &uids).await?;
    sql("DELETE FROM instances WHERE uid IN ").list(&uids).run(conn).await?;
    let seeds: Vec<&str> = instances.iter().map(|instance| instance.intent.seed_digest.as_str()).collect();
    sql("DELETE FROM secrets
         WHERE NOT EXISTS (SELECT 1 FROM instances WHERE seed_digest = digest)
           AND NOT EXISTS (SELECT 1 FROM clusters WHERE credential_digest = digest)
           AND digest IN ")
    .list(&seeds)
    .run(conn)
    .await?;
    Ok(())
}
