//! Lists, page by page, however long the objects on them are.
//!
//! A page that is longer than an answer may be is asked for again with half as many items: on a cluster of several tenants each
//! can make his own objects long, and none must keep Croft from seeing the others'.

use std::fmt;
use std::marker::PhantomData;

use croft_core::join::cluster::Fault;
use kube::api::ListParams;
use kube::core::request::Request;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, SeqAccess, Visitor};

use crate::connection::Connection;
use crate::rights::Need;

const PAGE: u32 = 100;
/// More nodes than Kubernetes takes.
const ITEMS_MAX: usize = 6000;
/// Shorter pages are more of them; the deadline of the verb comes before that many long ones.
const PAGES_MAX: usize = 300;

/// Of all that is kept, in bytes: 5000 nodes with 10 KiB of labels each, and more.
const KEPT_MAX: usize = 64 * 1024 * 1024;

/// What becomes of a list that is longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Longer {
    /// A part would be taken for the whole.
    Fails,
    /// So many are enough: the rest is read when these are dealt with.
    IsCutAt(usize),
}

/// What is kept of an object, which may be much less than what is read.
pub(crate) trait Item: Sized {
    type Wire: DeserializeOwned;

    /// `None`: it is of no use.
    fn read(wire: Self::Wire) -> Option<Self>;

    /// About how many bytes of memory it has, where that is for whoever wrote it to say.
    fn weight(&self) -> usize {
        0
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Item"))]
struct Page<T: Item> {
    #[serde(default)]
    metadata: Position,
    items: Items<T>,
}

#[derive(Deserialize, Default)]
struct Position {
    #[serde(default, rename = "continue")]
    next: String,
}

struct Items<T>(Vec<T>);

impl<'de, T: Item> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each<T>(PhantomData<T>);

        impl<'de, T: Item> Visitor<'de> for Each<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of objects")
            }

            fn visit_unit<E>(self) -> Result<Vec<T>, E> {
                Ok(Vec::new())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let mut kept = Vec::new();
                for _ in 0..PAGE {
                    match items.next_element()? {
                        Some(wire) => kept.extend(T::read(wire)),
                        None => return Ok(kept),
                    }
                }
                match items.next_element::<serde::de::IgnoredAny>()? {
                    None => Ok(kept),
                    Some(_) => Err(A::Error::custom(format!("more than {PAGE} items on a page"))),
                }
            }
        }

        from.deserialize_any(Each(PhantomData)).map(Items)
    }
}

/// All of them. `params`: which.
pub(crate) async fn list<T: Item>(
    connection: &Connection,
    request: &Request,
    need: Need,
    mut params: ListParams,
    longer: Longer,
) -> Result<Vec<T>, Fault> {
    let right = need.right();
    let most = match longer {
        Longer::Fails => ITEMS_MAX,
        Longer::IsCutAt(most) => most,
    };
    let (mut all, mut limit, mut kept) = (Vec::new(), PAGE, 0);
    for _ in 0..PAGES_MAX {
        params.limit = Some(limit);
        let answer = connection.say(&right, request.list(&params)).await?;
        if !answer.is_whole() && limit > 1 {
            limit /= 2;
            continue;
        }
        // Of one that is too long alone, what came until then.
        let page: Page<T> = connection.read(&right, &answer)?;
        kept += page.items.0.iter().map(Item::weight).sum::<usize>();
        all.extend(page.items.0);
        limit = (limit * 2).min(PAGE);
        if kept > KEPT_MAX {
            break;
        }
        if page.metadata.next.is_empty() {
            return Ok(all);
        }
        if all.len() >= most {
            break;
        }
        params.continue_token = Some(page.metadata.next);
    }
    match longer {
        Longer::IsCutAt(_) => Ok(all),
        Longer::Fails => {
            let why = format!(
                "the list does not end within {PAGES_MAX} pages, {ITEMS_MAX} items and {} MiB of labels and the like",
                KEPT_MAX >> 20
            );
            Err(Fault::Refused { server: connection.server(), doing: right.to_string(), why })
        }
    }
}
