//! Of an object, what Croft reads, in bounds: whoever writes an object fills its lists and its texts.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use croft_core::Timestamp;
use croft_core::meta::Labels;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Of a name or an id: no server of good faith gives a longer one.
const NAME_MAX: usize = 253;
/// Of all of an object's labels, or annotations; features of hardware alone may be a hundred of them.
const LABELS_MAX: usize = 16 * 1024;

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Meta {
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    pub(crate) deletion_timestamp: Option<IgnoredAny>,
    #[serde(deserialize_with = "labels")]
    pub(crate) labels: Labels,
    #[serde(deserialize_with = "labels")]
    pub(crate) annotations: Labels,
    #[serde(deserialize_with = "few::<_, _, 16>")]
    pub(crate) owner_references: Vec<Owner>,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Owner {
    pub(crate) kind: String,
    pub(crate) controller: Option<bool>,
}

impl Meta {
    pub(crate) fn created(&self) -> Option<Timestamp> {
        self.creation_timestamp.as_ref().map(|time| Timestamp(time.0.as_microsecond()))
    }
}

/// `None`: it is no name.
pub(crate) fn name(text: Option<String>) -> Option<String> {
    text.filter(|text| text.len() <= NAME_MAX && !text.chars().any(char::is_control))
}

/// The first `MOST` of a list.
pub(crate) fn few<'de, D, T, const MOST: usize>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Few<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Few<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_unit<E>(self) -> Result<Vec<T>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut first = Vec::new();
            while first.len() < MOST {
                match items.next_element()? {
                    Some(item) => first.push(item),
                    None => return Ok(first),
                }
            }
            while items.next_element::<IgnoredAny>()?.is_some() {}
            Ok(first)
        }
    }

    from.deserialize_any(Few::<T, MOST>(PhantomData))
}

/// As many as there is room for.
pub(crate) fn labels<'de, D: Deserializer<'de>>(from: D) -> Result<Labels, D::Error> {
    struct Shelf;

    impl<'de> Visitor<'de> for Shelf {
        type Value = Labels;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("texts by name")
        }

        fn visit_unit<E>(self) -> Result<Labels, E> {
            Ok(Labels::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
            let mut room = LABELS_MAX;
            let mut kept = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<String, String>()? {
                if let Some(left) = room.checked_sub(key.len() + value.len() + 1) {
                    room = left;
                    kept.insert(key, value);
                }
            }
            Ok(kept)
        }
    }

    from.deserialize_any(Shelf)
}
