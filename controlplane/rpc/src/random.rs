//! The one source of randomness: secrets, session names and incident numbers.

use croft_core::{Error, Result};
use ring::rand::{SecureRandom as _, SystemRandom};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// 32 random bytes as 43 characters of `[A-Za-z0-9_-]`.
pub fn secret() -> Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::internal("the kernel gave no random bytes"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
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
        assert_eq!(one.len(), 43);
        assert!(one.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
    }
}
