//! Pages: keyset pagination with opaque tokens. A token carries the key of the last row and a check, so that one of
//! another list, of other filters, or made up, is refused instead of misread.

use croft_core::{Error, Reason, Result};
use sha2::{Digest as _, Sha256};

const CHECK_LEN: usize = 8;
pub const SIZE_MAX: i64 = 1000;

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// 1 to 1000.
    pub size: i64,
    /// As an earlier page gave it; `None`: the first page.
    pub token: Option<String>,
}

impl Page {
    #[must_use]
    pub fn first(size: i64) -> Self {
        Self { size, token: None }
    }

    fn size(&self) -> i64 {
        self.size.clamp(1, SIZE_MAX)
    }

    /// To fetch: one more tells whether there is a next page.
    pub(crate) fn fetch(&self) -> i64 {
        self.size() + 1
    }

    /// The key that the page begins after. `list` names the list and its filters.
    pub(crate) fn after<const N: usize>(&self, list: &str) -> Result<Option<[String; N]>> {
        let Some(token) = &self.token else { return Ok(None) };
        read(list, token).map(Some).ok_or_else(|| Error::OutOfRange {
            reason: Reason::PageTokenInvalid,
            message: "the page token is not one of this list; list again from the first page".to_owned(),
        })
    }

    /// Cuts what was fetched to the page; the token of the next one when there is one.
    pub(crate) fn cut<T, const N: usize>(
        &self,
        list: &str,
        rows: &mut Vec<T>,
        key: impl Fn(&T) -> [String; N],
    ) -> Option<String> {
        let size = usize::try_from(self.size()).unwrap_or(usize::MAX);
        if rows.len() <= size {
            return None;
        }
        rows.truncate(size);
        rows.last().map(|last| write(list, &key(last)))
    }
}

fn check(list: &str, key: &[u8]) -> [u8; CHECK_LEN] {
    let digest = Sha256::new().chain_update(list).chain_update([0]).chain_update(key).finalize();
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&digest[..CHECK_LEN]);
    check
}

/// Parts never hold a NUL: they are ids, names and numbers.
fn write<const N: usize>(list: &str, key: &[String; N]) -> String {
    let key = key.join("\0").into_bytes();
    hex::encode([&check(list, &key), key.as_slice()].concat())
}

fn read<const N: usize>(list: &str, token: &str) -> Option<[String; N]> {
    let bytes = hex::decode(token).ok()?;
    let (found, key) = bytes.split_at_checked(CHECK_LEN)?;
    if found != check(list, key) {
        return None;
    }
    let parts: Vec<String> = std::str::from_utf8(key).ok()?.split('\0').map(str::to_owned).collect();
    parts.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_list_and_no_other() {
        let page = Page::first(2);
        let mut rows = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let token = page.cut("tenants", &mut rows, |row| [row.clone()]).unwrap();
        assert_eq!(rows, ["a", "b"]);

        let next = Page { size: 2, token: Some(token.clone()) };
        assert_eq!(next.after::<1>("tenants").unwrap(), Some(["b".to_owned()]));
        for wrong in
            [token.chars().rev().collect(), token[..token.len() - 2].to_owned(), String::new(), "zz".to_owned()]
        {
            let page = Page { size: 2, token: Some(wrong) };
            assert_eq!(page.after::<1>("tenants").unwrap_err().reason(), Reason::PageTokenInvalid);
        }
        assert!(next.after::<1>("hosts").is_err(), "another list");
        assert_eq!(page.cut("tenants", &mut rows, |row| [row.clone()]), None, "the last page");
    }
}
