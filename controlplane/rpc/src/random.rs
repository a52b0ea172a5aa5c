//! The one source of randomness: secrets, session names and incident numbers.

use croft_core::{Error, Result};
use ring::rand::{SecureRandom as _, SystemRandom};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

const ENROLMENT: &str = "enrol_";
const SECRET_LEN: usize = 43;

/// 32 random bytes as 43 characters of `[A-Za-z0-9_-]`.
pub fn secret() -> Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::internal("the kernel gave no random bytes"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// A secret for a host that wants to enrol: recognised at sight, and never taken for an option, which a bare secret that
/// begins with `-` would be.
pub fn enrolment_token() -> Result<String> {
    Ok(format!("{ENROLMENT}{}", secret()?))
}

/// Whether it has the shape of one; says nothing about its being good.
#[must_use]
pub fn is_enrolment_token(text: &str) -> bool {
    text.strip_prefix(ENROLMENT).is_some_and(|secret| {
        secret.len() == SECRET_LEN && secret.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    })
}

/// Enough to find one line in a log; no secret.
#[must_use]
pub fn short_id() -> String {
    let mut bytes = [0; 4];
    // Without randomness the number is 0, and the log line still tells the cause.
    let _ = SystemRandom::new().fill(&mut bytes);
    hex::encode(bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn secrets_differ_and_have_no_character_that_needs_quoting() {
        let (one, other) = (super::secret().unwrap(), super::secret().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), super::SECRET_LEN);
        assert!(super::is_enrolment_token(&super::enrolment_token().unwrap()));
        assert!(one.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
    }
}
