//! Options that many verbs share.

use clap::Args;
use uuid::Uuid;

use crate::failure::{Failure, Result};

/// For a call that changes something and cannot be tried dry.
#[derive(Debug, Clone, Args)]
pub struct RequestId {
    /// Makes the call safe to repeat: the same id gives the first answer again (default: a random one)
    #[arg(long = "request-id", value_name = "ID")]
    id: Option<String>,
}

impl RequestId {
    /// Always one, so that a call that is repeated because the plane was away happens once.
    #[must_use]
    pub fn get(&self) -> String {
        self.id.clone().unwrap_or_else(|| Uuid::now_v7().to_string())
    }
}

/// For a call that changes something.
#[derive(Debug, Clone, Args)]
pub struct Change {
    /// Run the plane's checks and change nothing
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    request: RequestId,
}

impl Change {
    #[must_use]
    pub fn request_id(&self) -> String {
        self.request.get()
    }

    /// `created`, or what would be.
    #[must_use]
    pub fn say(&self, did: &str) -> String {
        if self.dry_run { format!("{did} (dry run: nothing was changed)") } else { did.to_owned() }
    }
}

/// For deletes.
#[derive(Debug, Clone, Args)]
pub struct Guard {
    /// Only if it has not changed since this etag was read
    #[arg(long, default_value = "", hide_default_value = true)]
    pub etag: String,
    #[command(flatten)]
    pub change: Change,
}

/// `key=value`
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

/// All pages of a list. The plane decides how long a page is.
pub async fn all_pages<T>(mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String)>) -> Result<Vec<T>> {
    first_pages(0, async |token, _| page(token).await).await
}

/// The first `limit` of a list (0: all); the page's own size is passed on so that no more is read than is shown.
pub async fn first_pages<T>(
    limit: usize,
    mut page: impl AsyncFnMut(String, i32) -> Result<(Vec<T>, String)>,
) -> Result<Vec<T>> {
    let mut items = Vec::new();
    let mut token = String::new();
    loop {
        let left = if limit == 0 { 0 } else { i32::try_from(limit - items.len()).unwrap_or(i32::MAX) };
        let (more, next) = page(token.clone(), left).await?;
        items.extend(more);
        if limit != 0 && items.len() >= limit {
            items.truncate(limit);
            return Ok(items);
        }
        if next.is_empty() {
            return Ok(items);
        }
        if next == token {
            return Err(Failure::local("the plane gave the same page twice; the list would never end"));
        }
        token = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert_eq!(pair("a=").unwrap(), ("a".into(), String::new()));
        assert!(pair("a").is_err());
        assert!(pair("=b").is_err());
    }

    #[tokio::test]
    async fn every_page_is_read_once() {
        let items = all_pages(async |token| {
            Ok(match token.as_str() {
                "" => (vec![1, 2], "x".to_owned()),
                "x" => (vec![3], String::new()),
                other => panic!("{other}"),
            })
        });
        assert_eq!(items.await.unwrap(), [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_limit_reads_no_more_than_it_shows() {
        let mut asked = Vec::new();
        let items = first_pages(3, async |_, size| {
            asked.push(size);
            Ok((vec![0, 0], "next".repeat(asked.len())))
        });
        assert_eq!(items.await.unwrap().len(), 3);
        assert_eq!(asked, [3, 1]);
    }

    #[tokio::test]
    async fn a_list_that_turns_in_a_circle_ends() {
        assert!(all_pages(async |_| Ok((vec![()], "same".to_owned()))).await.is_err());
    }
}
