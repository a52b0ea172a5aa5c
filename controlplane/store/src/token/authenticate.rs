//! Letting in: secrets are compared here and nowhere else.

use std::time::Duration;

use croft_core::id::TokenId;
use croft_core::token::Token;
use croft_core::{Result, Timestamp};

use super::row;
use crate::open::Store;
use crate::sql::sql;

/// How exact "last used" is.
const USED_EVERY: Duration = Duration::from_secs(60);

/// Takes as long for a wrong secret as for the right one.
fn matches(stored: &str, given: [u8; 32]) -> bool {
    let given = hex::encode(given);
    stored.len() == given.len() && stored.bytes().zip(given.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

impl Store {
    /// `None`: no such token, a wrong secret, disabled or expired; which of them is nobody's business.
    pub async fn token_authenticate(&self, id: &TokenId, secret_sha256: [u8; 32]) -> Result<Option<Token>> {
        let found = row(&mut *self.reader().await?, id).await?;
        let Some(row) = found.filter(|row| matches(&row.secret_sha256, secret_sha256)) else {
            return Ok(None);
        };
        let token = Token::try_from(row)?;
        let now = self.now();
        if token.disabled || token.expire_time.is_some_and(|end| end <= now) {
            return Ok(None);
        }
        self.token_used(&token, now);
        Ok(Some(token))
    }

    /// Writes it down at most once a minute, and lets nobody wait for it.
    fn token_used(&self, token: &Token, now: Timestamp) {
        let mut used = self.inner.used();
        let last = used.get(&token.id).copied().max(token.last_used_time);
        if last.is_some_and(|last| now.since(last) < USED_EVERY) {
            return;
        }
        used.insert(token.id.clone(), now);
        let (store, id) = (self.clone(), token.id.clone());
        tokio::spawn(async move {
            if let Err(error) = store.token_note_use(id, now).await {
                tracing::debug!(%error, "the use of a token was not written down");
            }
        });
    }

    async fn token_note_use(&self, id: TokenId, now: Timestamp) -> Result<()> {
        self.transaction(move |tx| {
            Box::pin(async move {
                sql("UPDATE tokens
                     SET last_used_time = $2
                     WHERE id = $1")
                .bind(&id)
                .bind(now)
                .run(&mut tx.conn)
                .await?;
                Ok(())
            })
        })
        .await
    }
}
