//! The seed of an instance: fetched by its digest, journaled, and replaced when the plane names another.
//!
//! One that was journaled for a start is on the volume before the guest is ([`super::decide`] prepares again until it is). Under a
//! guest that runs it is the other way round: first the volume, then the journal, so that the journal never says of a secret that
//! it is gone while the guest can read it.

use std::time::Duration;

use croft_proto::agent::v1::DesiredInstance;

use super::Driver;
use super::decide::{Intent, Why};
use super::execute::{Failure, failure};
use crate::crash;
use crate::hypervisor::Seed;
use crate::journal::{KeptSeed, Record};
use crate::plane::{FetchError, empty_seed};

/// How long a seed that the plane does not have may be one that it has just replaced.
const LOOKS: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Driver {
    /// Seed and image, in this order: the seed is small, and once it is journaled the plane is not needed any more.
    pub(super) async fn fetch(&self, desired: &DesiredInstance, record: &Record) -> Result<Seed, Failure> {
        let seed = match &record.seed {
            Some(kept) if kept.digest == desired.seed_digest => kept.seed.clone(),
            _ if desired.seed_digest.is_empty() => empty_seed(self.entry.uid),
            _ => {
                let kept = self.fetch_seed(&desired.seed_digest).await?;
                let seed = kept.seed.clone();
                self.note(|record| record.seed = Some(kept)).await?;
                seed
            }
        };
        if let Some(image) = &desired.image {
            crash::point("agent.ensure_image.before");
            self.shared.images.ensure(image).await.map_err(|error| failure(&error))?;
            crash::point("agent.ensure_image.after");
        }
        Ok(seed)
    }

    /// Under a guest that may run. Journaled last: a crash before that does it again, and finds the same bytes there.
    pub(super) async fn replace_seed(&self, record: &Record) -> Result<(), Failure> {
        let Some(desired) = &record.desired else { return Ok(()) };
        let kept = self.fetch_seed(&desired.seed_digest).await?;
        crash::point("agent.seed_replace.before");
        let replaced = self.shared.hypervisor.replace_seed(self.entry.uid, &kept.seed).await;
        self.checked("replace_seed", replaced)?;
        crash::point("agent.seed_replace.after");
        self.note(|record| record.seed = Some(kept)).await
    }

    async fn fetch_seed(&self, digest: &str) -> Result<KeptSeed, Failure> {
        crash::point("agent.fetch_seed.before");
        let fetched = self.shared.plane.fetch_seed(digest).await;
        if fetched.as_ref().is_err_and(FetchError::is_not_found) && self.names_another(digest).await {
            return Err(Failure::Overtaken);
        }
        let seed = fetched.map_err(|error| {
            let mut message = error.to_string();
            if let FetchError::Status { status, .. } = &error {
                message = format!("{message}: {}", status.message());
            }
            let why = Why::new(error.reason(), message);
            if matches!(error, FetchError::Invalid { .. }) { Failure::Refused(why) } else { Failure::Failed(why) }
        })?;
        crash::point("agent.fetch_seed.after");
        Ok(KeptSeed { digest: digest.to_owned(), seed })
    }

    /// The plane forgets a seed in the same moment in which it names another, and that may be on its way still.
    async fn names_another(&self, digest: &str) -> bool {
        let intent = Intent::of(&self.entry.read().await);
        let is_named = |record: &Record| record.desired.as_ref().is_some_and(|desired| desired.seed_digest == digest);
        for _ in 0..LOOKS {
            let record = self.entry.read().await;
            if !is_named(&record) || Intent::of(&record) != intent {
                return true;
            }
            drop(record);
            // Not woken: what woke it would be lost for the driver.
            tokio::time::sleep(LOOK_EVERY).await;
        }
        false
    }
}
