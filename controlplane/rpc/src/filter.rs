//! Label selectors: `key=value` pairs separated by commas; all of them must match.

use croft_core::Result;
use croft_core::meta::{Labels, check_labels};
use croft_core::validate::Violations;

pub fn label_selector(text: &str) -> Result<Labels> {
    const FIELD: &str = "label_selector";
    let mut labels = Labels::new();
    let mut violations = Violations::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((key, value)) => {
                // Two values for one key match nothing; saying so beats an empty list.
                let before = labels.insert(key.trim().to_owned(), value.trim().to_owned());
                violations.check(before.is_none(), FIELD, format!("`{}` is there twice", key.trim()));
            }
            None => violations.add(FIELD, format!("`{pair}` is not of the form key=value")),
        }
    }
    check_labels(FIELD, &labels, &mut violations);
    violations.finish()?;
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_anything_else_is_refused() {
        assert_eq!(label_selector(""), Ok(Labels::new()));
        let two = Labels::from([("a".into(), "1".into()), ("croft.dev/team".into(), String::new())]);
        assert_eq!(label_selector("a=1, croft.dev/team="), Ok(two));
        for wrong in ["a", "a=1,a=2", "a b=1", "=1", "a=b=c", "a!=1"] {
            assert!(label_selector(wrong).is_err(), "{wrong}");
        }
    }
}
