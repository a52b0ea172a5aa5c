//! Secrets in what was printed: the admin's token, which is known, and enrolment tokens, which are known at sight.

/// As the plane makes them: this, and 43 characters.
const ENROLMENT: &str = "enrol_";
const LENGTH: usize = 43;

/// What must not be in there; in words, and without it.
pub(super) fn found(said: &str, admin: &str) -> Option<&'static str> {
    if said.contains(admin) {
        return Some("the admin's token");
    }
    said.match_indices(ENROLMENT)
        .map(|(at, _)| &said[at + ENROLMENT.len()..])
        .any(is_secret)
        .then_some("an enrolment token")
}

fn is_secret(rest: &str) -> bool {
    rest.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).count() == LENGTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_known_at_sight_and_names_of_variables_are_not_tokens() {
        let token = format!("stdin: enrol_{}\\n", "Ab3-_".repeat(9).get(..43).unwrap());
        assert_eq!(found(&token, "unknown"), Some("an enrolment token"));
        assert_eq!(found("TASK [croft.fleet.hostagent : enrol_it]", "unknown"), None);
        assert_eq!(found("Bearer s3cret", "s3cret"), Some("the admin's token"));
    }
}
