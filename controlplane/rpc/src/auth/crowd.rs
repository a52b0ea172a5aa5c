//! How many long calls (watches, consoles, forwarded ports) a tenant's tokens hold open. Each costs reads at every
//! change, so one tenant without a bound could slow down everybody. The platform's own tokens are not counted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use croft_core::id::TenantId;
use croft_core::{Error, Reason, Result};

use crate::caller::Caller;

/// Of one tenant, at a time; tenants below it have their own.
pub const MOST: usize = 256;

#[derive(Debug, Clone, Default)]
pub struct Crowd(Arc<Mutex<HashMap<TenantId, usize>>>);

/// Given back when it is dropped.
#[derive(Debug)]
pub struct Place(Option<(Crowd, TenantId)>);

impl Crowd {
    pub fn enter(&self, caller: &Caller) -> Result<Place> {
        caller.tenant().map_or(Ok(Place(None)), |tenant| self.enter_as(tenant))
    }

    fn enter_as(&self, tenant: &TenantId) -> Result<Place> {
        let mut open = self.lock();
        let count = open.entry(tenant.clone()).or_default();
        if *count >= MOST {
            let message =
                format!("tenants/{tenant} has {MOST} watches, consoles and forwarded ports open; close some of them");
            return Err(Error::Unavailable { reason: Reason::TooManyStreams, message });
        }
        *count += 1;
        Ok(Place(Some((self.clone(), tenant.clone()))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TenantId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((crowd, tenant)) = self.0.take() else { return };
        let mut open = crowd.lock();
        if let Some(count) = open.get_mut(&tenant) {
            *count -= 1;
            if *count == 0 {
                open.remove(&tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_tenant_waits_for_itself_and_nobody_else() {
        let crowd = Crowd::default();
        let (acme, other) = (TenantId::from("acme"), TenantId::from("other"));
        let mut places: Vec<_> = (0..MOST).map(|_| crowd.enter_as(&acme).unwrap()).collect();
        let error = crowd.enter_as(&acme).unwrap_err();
        assert_eq!(error.reason(), Reason::TooManyStreams);
        assert!(error.to_string().contains("tenants/acme"), "{error}");
        drop(crowd.enter_as(&other).unwrap());
        places.pop();
        places.push(crowd.enter_as(&acme).unwrap());
        drop(places);
        assert!(crowd.lock().is_empty(), "nothing is kept of who has left");
    }
}
