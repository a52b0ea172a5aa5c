//! UpdateToken: description, labels, annotations. Whom a token lets in, where and until when is settled when it is made,
//! so that nobody finds more, or less, in his hands than he was given.

use croft_core::Result;
use croft_core::audit::Call;
use croft_core::token::Token;
use croft_core::validate::Violations;
use croft_proto::v1;

use super::{check_description, see};
use crate::api::Api;
use crate::convert::meta;
use crate::convert::token::out;
use crate::mask::Fields;

const ANEW: &str = "create another token";

const FIELDS: Fields = Fields {
    noun: "token",
    mutable: &["description", "metadata.labels", "metadata.annotations"],
    immutable: &[
        ("name", "it is what the token is known by"),
        ("tenant", ANEW),
        ("role", ANEW),
        ("expire_time", ANEW),
        ("disabled", "use DisableToken; to let in again, create another token"),
    ],
    output_only: &["last_used_time"],
};

pub async fn update(api: Api, call: Call, request: v1::UpdateTokenRequest) -> Result<v1::Token> {
    let wire = request.token.unwrap_or_default();
    let chosen = FIELDS.choose(request.update_mask)?;
    let mut violations = Violations::new();
    let sent = meta::into("token", wire.metadata.clone(), &mut violations);
    check_description(&wire.description, &mut violations);
    violations.finish()?;
    let id = see(&api, &call.principal, "token.name", &wire.name).await?;

    let etag = sent.etag.clone();
    let change = move |token: &mut Token| {
        if chosen.is_whole() {
            check_unchanged(&wire, &out(token))?;
        }
        if chosen.writes("description", !wire.description.is_empty()) {
            token.description = wire.description;
        }
        sent.write(&chosen, &mut token.meta);
        Ok(())
    };
    Ok(out(&api.store().token_update(&call, &id, &etag, change).await?.into_inner()))
}

/// What cannot change must be as it was, or be left out.
fn check_unchanged(sent: &v1::Token, now: &v1::Token) -> Result<()> {
    let same_or_out = [
        ("tenant", sent.tenant.is_empty() || sent.tenant == now.tenant),
        ("role", sent.role == 0 || sent.role == now.role),
        ("expire_time", sent.expire_time.is_none() || sent.expire_time == now.expire_time),
        ("disabled", !sent.disabled || now.disabled),
    ];
    match same_or_out.into_iter().find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((field, _)) => Err(FIELDS.unwritable(field)),
    }
}
