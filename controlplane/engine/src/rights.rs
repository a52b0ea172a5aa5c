//! What quota leaves tenants of devices: the rows as they were read, and on top of them what this round has placed since.
//!
//! Early: it keeps models that nobody may have out of placement, and one tenant's two requests from the same last grant. The
//! claim's transaction has the last word.

use std::collections::BTreeMap;
use std::sync::Arc;

use croft_core::device::{Assignment, Paths, PoolMatch, Request, Wanted};
use croft_core::id::{PoolId, TenantId};
use croft_core::placement::device::{Catalogue, Wishes};
use croft_core::ports::NewInstance;
use croft_core::quota::{Quota, admit, device};
use croft_core::validate::Violations;
use croft_core::{Error, Result};
use croft_store::Store;

/// Of everybody in this round who asks for devices.
#[derive(Debug, Default)]
pub struct Rights {
    lineages: BTreeMap<TenantId, Vec<TenantId>>,
    rows: BTreeMap<(TenantId, String), Quota>,
    pools: Arc<BTreeMap<PoolId, PoolMatch>>,
}

impl Rights {
    /// Reads nothing for those who ask for no device.
    pub async fn read(store: &Store, asking: impl Iterator<Item = (&TenantId, &[Request])>) -> Result<Self> {
        let mut rights = Self::default();
        let mut pools = false;
        for (tenant, requests) in asking.filter(|(_, requests)| !requests.is_empty()) {
            pools |= requests.iter().any(|request| matches!(request.wanted, Wanted::Pool { .. }));
            if !rights.lineages.contains_key(tenant) {
                let (lineage, rows) = store.quota_lineage(tenant).await?;
                rights.rows.extend(rows.into_iter().map(|row| ((row.tenant.clone(), row.resource.clone()), row)));
                rights.lineages.insert(tenant.clone(), lineage);
            }
        }
        if pools {
            let all = store.pool_all().await?;
            rights.pools = Arc::new(all.into_iter().map(|pool| (pool.id, pool.matches)).collect());
        }
        Ok(rights)
    }

    fn rows(&self, tenant: &TenantId) -> Vec<Quota> {
        let lineage = self.lineages.get(tenant).map_or(&[][..], Vec::as_slice);
        self.rows.values().filter(|row| lineage.contains(&row.tenant)).cloned().collect()
    }

    /// So that the next request of the round sees it.
    pub fn spend(&mut self, tenant: &TenantId, pieces: &[Assignment]) {
        self.charge(tenant, pieces, |used, amount| used + amount);
    }

    /// As if these were nobody's any more.
    pub fn give_back(&mut self, tenant: &TenantId, pieces: &[Assignment]) {
        self.charge(tenant, pieces, |used, amount| used - amount);
    }

    fn charge(&mut self, tenant: &TenantId, pieces: &[Assignment], to: impl Fn(i64, i64) -> i64) {
        let charges = device::total(pieces);
        for above in self.lineages.get(tenant).into_iter().flatten() {
            for (resource, amount) in &charges {
                if let Some(row) = self.rows.get_mut(&(above.clone(), resource.clone())) {
                    row.used = to(row.used, *amount);
                }
            }
        }
    }

    /// The requests with what they refer to; models are left open.
    pub fn wishes(&self, requests: &[Request]) -> Wishes {
        Wishes { requests: requests.to_vec(), pools: self.pools.clone(), allowed_models: BTreeMap::new() }
    }

    /// For an explanation: with the models that quota leaves, or all of them when it leaves none, so that hosts still say what
    /// stands in the way on their side.
    pub fn explained(&self, new: &NewInstance, catalogue: &Catalogue) -> Wishes {
        let mut wishes = self.wishes(&new.spec.devices);
        let rows = self.rows(&new.tenant);
        // Whoever was granted nothing of a pool does not hear what is in it.
        let granted = |pool: &PoolId| {
            let resource = format!("devices/{pool}");
            rows.iter().any(|row| row.tenant == new.tenant && row.resource == resource && row.limit.is_some())
        };
        let pools = self.pools.iter().filter(|(pool, _)| granted(pool));
        wishes.pools = Arc::new(pools.map(|(pool, matches)| (pool.clone(), matches.clone())).collect());
        let candidates = |wanted: &Wanted| catalogue.candidates(wanted);
        wishes.allowed_models = device::allowed(&rows, &new.tenant, &wishes.requests, candidates).unwrap_or_default();
        wishes
    }

    /// `find` looks for pieces. It is asked again while quota refuses the models that it found and there are others.
    pub fn place<T>(
        &self,
        tenant: &TenantId,
        catalogue: &Catalogue,
        (requests, paths): (&[Request], &Paths),
        find: impl Fn(&Wishes) -> Result<T>,
        pieces: impl Fn(&T) -> &[Assignment],
    ) -> Result<T> {
        let mut wishes = self.wishes(requests);
        if requests.is_empty() {
            return find(&wishes);
        }
        catalogue.check(paths, requests)?;
        let rows = self.rows(tenant);
        wishes.allowed_models = device::allowed(&rows, tenant, requests, |wanted| catalogue.candidates(wanted))?;
        self.check_pools(requests, paths)?;
        let mut refusal = None;
        loop {
            // Without the models that quota refused there may be no room; the quota is the better reason.
            let found = find(&wishes).map_err(|error| refusal.take().unwrap_or(error))?;
            let given = pieces(&found);
            device::granted(&rows, tenant, given)?;
            match admit(&rows, &device::total(given)) {
                Ok(()) => return Ok(found),
                Err(Error::QuotaExceeded(violations)) => {
                    let narrowed = device::narrow(&mut wishes.allowed_models, given, &violations);
                    let first = refusal.take().unwrap_or(Error::QuotaExceeded(violations));
                    if !narrowed {
                        return Err(first);
                    }
                    refusal = Some(first);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// After the grant: whoever was granted nothing does not hear which pools there are.
    fn check_pools(&self, requests: &[Request], paths: &Paths) -> Result<()> {
        let mut violations = Violations::new();
        for (at, request) in requests.iter().enumerate() {
            if let Wanted::Pool { pool } = &request.wanted {
                let field = format!("{}.pool.pool", paths.of(at));
                violations.check(self.pools.contains_key(pool), &field, format!("pools/{pool} does not exist"));
            }
        }
        violations.finish()
    }
}
