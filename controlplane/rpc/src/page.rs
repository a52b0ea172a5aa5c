//! Pages (AIP-158) and the two spellings of "all that I may see".

use croft_core::{Error, Result};
use croft_store::Page;

const DEFAULT: i64 = 100;
const MOST: i64 = 1000;

/// 0 is the default, more than the most is the most, less than 0 is a mistake.
pub fn page(size: i32, token: String) -> Result<Page> {
    let size = match i64::from(size) {
        ..0 => return Err(Error::invalid("page_size", "0 (the default) to 1000")),
        0 => DEFAULT,
        size => size.min(MOST),
    };
    Ok(Page { size, token: Some(token).filter(|token| !token.is_empty()) })
}

/// `-`, `tenants/-` and nothing at all.
#[must_use]
pub fn is_all(parent: &str) -> bool {
    matches!(parent, "" | "-" | "tenants/-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_clamped_and_negative_ones_refused() {
        let size = |size| page(size, String::new()).map(|page| page.size);
        assert_eq!((size(0), size(1), size(1000), size(i32::MAX)), (Ok(100), Ok(1), Ok(1000), Ok(1000)));
        assert!(size(-1).unwrap_err().to_string().starts_with("page_size"));
        assert_eq!(page(1, "next".into()).unwrap().token.as_deref(), Some("next"));
        assert_eq!(page(1, String::new()).unwrap().token, None);
    }
}
