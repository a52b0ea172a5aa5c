//! Whether what was placed out of a pool is still in it. A placement rests on the pools as they were when it was made; until
//! its claim commits, an operator may change one or delete it. The claim's own transaction reads them again.

use std::collections::{BTreeMap, BTreeSet};

use croft_core::Result;
use croft_core::device::{Assignment, PoolMatch};
use croft_core::id::{HostId, PoolId};
use croft_core::meta::Labels;
use sqlx::AnyConnection;

use crate::column::from_json;
use crate::sql::sql;

/// The pools that some placements name, and the labels of the hosts that they chose.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    matches: BTreeMap<PoolId, PoolMatch>,
    labels: BTreeMap<HostId, Labels>,
}

impl Pools {
    /// Asks nothing when nothing comes out of a pool.
    pub async fn read(conn: &mut AnyConnection, placed: &[(&HostId, &[Assignment])]) -> Result<Self> {
        let (mut pools, mut hosts) = (BTreeSet::new(), BTreeSet::new());
        for (host, pieces) in placed {
            for pool in pieces.iter().filter_map(|piece| piece.pool.as_ref()) {
                pools.insert(pool);
                hosts.insert(*host);
            }
        }
        if pools.is_empty() {
            return Ok(Self::default());
        }
        let (pools, hosts): (Vec<_>, Vec<_>) = (pools.into_iter().collect(), hosts.into_iter().collect());
        let matches: Vec<(String, String)> =
            sql("SELECT id, matches FROM pools WHERE id IN ").list(&pools).all(conn).await?;
        let labels: Vec<(String, String)> =
            sql("SELECT id, labels FROM hosts WHERE id IN ").list(&hosts).all(conn).await?;
        Ok(Self {
            matches: matches
                .into_iter()
                .map(|(id, text)| Ok((PoolId(id), from_json(&text, "pools.matches")?)))
                .collect::<Result<_>>()?,
            labels: labels
                .into_iter()
                .map(|(id, text)| Ok((HostId(id), from_json(&text, "hosts.labels")?)))
                .collect::<Result<_>>()?,
        })
    }

    /// `false`: a pool, or what belongs to it, is another one now; place again.
    pub fn hold(&self, host: &HostId, pieces: &[Assignment]) -> bool {
        pieces.iter().all(|piece| {
            piece.pool.as_ref().is_none_or(|pool| match (self.matches.get(pool), self.labels.get(host)) {
                (Some(matches), Some(labels)) => matches.holds_piece(host, labels, piece),
                _ => false,
            })
        })
    }
}
