//! What changes of a token that exists, and its end.

use croft_core::access::Role;
use croft_core::audit::Call;
use croft_core::id::TokenId;
use croft_core::token::Token;
use croft_core::{Error, Reason, Result};

use super::require;
use crate::call::{About, Done};
use crate::column::{to_json, to_word};
use crate::open::Store;
use crate::sql::sql;
use crate::tx::Tx;

/// What may change of a token: not whom it lets in.
async fn rewrite(tx: &mut Tx, token: &mut Token) -> Result<()> {
    token.meta.generation += 1;
    token.meta.update_time = tx.now;
    sql("UPDATE tokens
         SET description = $2, disabled = $3, generation = $4, labels = $5, annotations = $6, update_time = $7
         WHERE id = $1")
    .bind(&token.id)
    .bind(&token.description)
    .bind(token.disabled)
    .bind(token.meta.generation)
    .bind(to_json(&token.meta.labels)?)
    .bind(to_json(&token.meta.annotations)?)
    .bind(token.meta.update_time)
    .run(&mut tx.conn)
    .await?;
    Ok(())
}

/// Somebody must be left who can let others in, and for good: a token that ends tomorrow is nobody by then.
async fn check_not_last_admin(tx: &mut Tx, token: &Token) -> Result<()> {
    if token.role != Role::PlatformAdmin || token.disabled {
        return Ok(());
    }
    let others = sql("SELECT COUNT(*)
                      FROM tokens
                      WHERE role = $1
                        AND disabled = 0
                        AND expire_time IS NULL
                        AND id <> $2")
    .bind(to_word(Role::PlatformAdmin)?)
    .bind(&token.id)
    .number(&mut tx.conn)
    .await?;
    if others > 0 {
        return Ok(());
    }
    let message = format!(
        "{} is the last platform-admin token that works and does not expire; create another one first",
        token.name()
    );
    Err(Error::precondition(Reason::LastAdminToken, token.name(), message))
}

impl Store {
    /// Of what `change` does, description, labels and annotations count.
    pub async fn token_update(
        &self,
        call: &Call,
        id: &TokenId,
        etag: &str,
        change: impl FnOnce(&mut Token) -> Result<()> + Send + 'static,
    ) -> Result<Done<Token>> {
        let (id, etag) = (id.clone(), etag.to_owned());
        let done = self
            .mutate(call, About::platform(format!("tokens/{id}")), move |tx| {
                Box::pin(async move {
                    let before = require(&mut tx.conn, &id).await?;
                    tx.about = Some(About { tenant: before.tenant.clone(), target: before.name() });
                    before.meta.check_etag(&etag, &before.name())?;
                    let mut token = before.clone();
                    change(&mut token)?;
                    // Only `token_disable` knows whether somebody is left who can let others in.
                    token.disabled = before.disabled;
                    rewrite(tx, &mut token).await?;
                    Ok(token)
                })
            })
            .await?;
        self.token_now(done).await
    }

    pub async fn token_disable(&self, call: &Call, id: &TokenId) -> Result<Done<Token>> {
        let id = id.clone();
        let done = self
            .mutate(call, About::platform(format!("tokens/{id}")), move |tx| {
                Box::pin(async move {
                    let mut token = require(&mut tx.conn, &id).await?;
                    tx.about = Some(About { tenant: token.tenant.clone(), target: token.name() });
                    check_not_last_admin(tx, &token).await?;
                    token.disabled = true;
                    rewrite(tx, &mut token).await?;
                    Ok(token)
                })
            })
            .await?;
        self.token_now(done).await
    }

    pub async fn token_delete(&self, call: &Call, id: &TokenId) -> Result<()> {
        let id = id.clone();
        self.mutate(call, About::platform(format!("tokens/{id}")), move |tx| {
            Box::pin(async move {
                let token = require(&mut tx.conn, &id).await?;
                tx.about = Some(About { tenant: token.tenant.clone(), target: token.name() });
                check_not_last_admin(tx, &token).await?;
                sql("DELETE FROM tokens WHERE id = $1").bind(&id).run(&mut tx.conn).await?;
                Ok(())
            })
        })
        .await?;
        Ok(())
    }
}
