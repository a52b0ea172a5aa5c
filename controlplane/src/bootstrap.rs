//! The admin's token: made at the first start, made again for whoever has the data directory in his hands.

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use croft_core::access::Principal;
use croft_core::audit::Call;
use croft_core::id::TokenId;
use croft_core::meta::Labels;
use croft_core::token;
use croft_store::{ADMIN_TOKEN, Page, Store};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

use crate::datadir::{DataDir, told};
use crate::files;

/// A database without a single token has never been served from: its first token is made. Later, whatever becomes of the
/// file or of that token, nothing is made by itself: an admin who was deleted stays deleted.
///
/// The file is written before the row. A start that dies between finds the file and takes its secret, so that what an
/// operator may have read already is what counts.
pub async fn first_token(store: &Store, directory: &DataDir) -> Result<()> {
    let one = Page { size: 1, token: None };
    let (tokens, _) =
        store.token_list(None, &Labels::new(), &one).await.map_err(|error| anyhow::anyhow!(told(&error)))?;
    if !tokens.is_empty() {
        return Ok(());
    }
    let secret = match kept(directory)? {
        Some(secret) => secret,
        None => {
            let secret = secret()?;
            write(directory, &secret)?;
            secret
        }
    };
    commit(store, "croft-controlplane serve", &secret).await?;
    tracing::info!(file = %directory.admin_token().display(), "first start: the platform admin's token is in this file");
    Ok(())
}

/// A new secret for the token `admin`, which is made again or enabled again if need be. Returns the token's text; the
/// old secret is refused from now on (by a running plane within seconds).
pub async fn reset_token(store: &Store, directory: &DataDir) -> Result<String> {
    let secret = secret()?;
    commit(store, "croft-controlplane admin reset-token", &secret).await?;
    write(directory, &secret)
}

async fn commit(store: &Store, method: &'static str, secret: &str) -> Result<()> {
    let call = Call {
        principal: Principal::Local,
        method,
        request_id: String::new(),
        body_digest: [0; 32],
        peer: "local".to_owned(),
        validate_only: false,
    };
    let digest: [u8; 32] = Sha256::digest(secret).into();
    store.token_reset_admin(&call, digest).await.map_err(|error| anyhow::anyhow!(told(&error)))?;
    Ok(())
}

/// The secret in admin.token, if there is one of that token.
fn kept(directory: &DataDir) -> Result<Option<String>> {
    let Some(contents) = files::read(&directory.admin_token())? else { return Ok(None) };
    let text = String::from_utf8_lossy(&contents).trim().to_owned();
    Ok(token::split(&text).filter(|(id, _)| id.as_str() == ADMIN_TOKEN).map(|(_, secret)| secret.to_owned()))
}

fn write(directory: &DataDir, secret: &str) -> Result<String> {
    let text = token::join(&TokenId::from(ADMIN_TOKEN), secret);
    files::write(&directory.admin_token(), format!("{text}\n").as_bytes(), files::SECRET)?;
    Ok(text)
}

fn secret() -> Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok().context("the machine gives no random numbers")?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}
