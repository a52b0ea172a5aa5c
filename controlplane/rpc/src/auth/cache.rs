//! Tokens that were found good a moment ago, so that a burst of calls costs one look into the store.
//!
//! A token that is disabled or deleted through this process is refused from the next call on: whoever does it calls
//! [`TokenCache::forget`]. Through another process it takes at most [`FRESH`].

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use croft_core::Result;
use croft_core::id::TokenId;
use croft_core::token::Token;
use croft_store::Store;
use tokio::sync::watch;
use tokio::time::Instant;

const FRESH: Duration = Duration::from_secs(5);
/// Only good tokens get in, so this is far above what anybody has; it bounds memory all the same.
const MOST: usize = 10_000;

/// What was presented, to what it turned out to be and when.
type Known = HashMap<(TokenId, [u8; 32]), (Token, Instant)>;

#[derive(Debug)]
pub struct TokenCache {
    known: Mutex<Known>,
    /// Raised whenever a credential was taken back.
    revocations: watch::Sender<u64>,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self { known: Mutex::default(), revocations: watch::Sender::new(0) }
    }
}

impl TokenCache {
    /// `None`: unknown, wrong, disabled or expired.
    pub async fn authenticate(&self, store: &Store, id: &TokenId, secret_sha256: [u8; 32]) -> Result<Option<Token>> {
        let key = (id.clone(), secret_sha256);
        if let Some(token) = self.fresh(&key).filter(|token| token.expire_time.is_none_or(|end| end > store.now())) {
            return Ok(Some(token));
        }
        let before = *self.revocations.borrow();
        let found = store.token_authenticate(id, secret_sha256).await?;
        if let Some(token) = &found {
            let mut known = self.lock();
            // Taken back while we looked: what we found may be older than that.
            if *self.revocations.borrow() == before {
                if known.len() >= MOST {
                    known.clear();
                }
                known.insert(key, (token.clone(), Instant::now()));
            }
        }
        Ok(found)
    }

    /// Some credential was taken back: nothing that is known counts any more, and long calls look again.
    pub fn forget(&self) {
        let mut known = self.lock();
        self.revocations.send_modify(|count| *count += 1);
        known.clear();
    }

    /// Changes with each [`TokenCache::forget`].
    #[must_use]
    pub fn revocations(&self) -> watch::Receiver<u64> {
        self.revocations.subscribe()
    }

    fn fresh(&self, key: &(TokenId, [u8; 32])) -> Option<Token> {
        let known = self.lock();
        let (token, since) = known.get(key)?;
        (since.elapsed() < FRESH).then(|| token.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        // A panic elsewhere leaves a map that is still a map.
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
