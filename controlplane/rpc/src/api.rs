//! What every handler has in its hands.

use std::sync::Arc;

use croft_core::Clock;
use croft_core::join::ports::Clusters;
use croft_core::join::seed::Recipes;
use croft_core::ports::{Admission, Wake};
use croft_store::Store;
use tokio_util::sync::CancellationToken;

use crate::agent::Signer;
use crate::auth::{Crowd, Refusals, TokenCache};
use crate::caller::Identify;
use crate::hub::Hub;
use crate::metrics::Observe;

/// What the binary brings.
#[derive(Clone)]
pub struct Deps {
    pub store: Store,
    pub clock: Arc<dyn Clock>,
    pub admission: Arc<dyn Admission>,
    pub wake: Arc<dyn Wake>,
    pub signer: Arc<dyn Signer>,
    pub hub: Arc<Hub>,
    /// Where clusters are tried before they are registered.
    pub clusters: Arc<dyn Clusters>,
    /// How guests join them.
    pub recipes: Arc<Recipes>,
    pub identify: Identify,
    pub observe: Observe,
    /// Ends watches, sessions and tunnels, which would otherwise keep a graceful stop waiting for ever.
    pub shutdown: CancellationToken,
}

impl std::fmt::Debug for Deps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deps").field("store", &self.store).finish_non_exhaustive()
    }
}

/// The dependencies, and what the services keep between calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api(Arc<Inner>);

#[derive(Debug)]
pub struct Inner {
    pub deps: Deps,
    pub tokens: TokenCache,
    pub crowd: Crowd,
    pub refusals: Refusals,
    pub enrolments: crate::agent::Refused,
}

impl Api {
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        Self(Arc::new(Inner {
            deps,
            tokens: TokenCache::default(),
            crowd: Crowd::default(),
            refusals: Refusals::default(),
            enrolments: crate::agent::Refused::default(),
        }))
    }
}

impl std::ops::Deref for Api {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.deps.store
    }
}
