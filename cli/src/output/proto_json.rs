//! Proto JSON both ways, from the descriptors: what `-o json` prints, and what `apply` reads.
//!
//! Fields without presence are always printed, so that the shape never depends on the values.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::ser::{Serialize, Serializer};
use serde_json::Value;

use crate::failure::{Failure, Result};

/// Croft's messages, and `google.rpc`'s, which stand in the details of failed operations.
static POOL: LazyLock<Result<DescriptorPool, String>> = LazyLock::new(|| {
    let mut pool = DescriptorPool::decode(croft_proto::FILE_DESCRIPTOR_SET).map_err(|error| error.to_string())?;
    let rpc = prost_types::FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .map_err(|error| error.to_string())?;
    // The two sets share google/protobuf/any.proto and the like, as different compilers wrote them.
    let new: Vec<_> = rpc.file.into_iter().filter(|file| pool.get_file_by_name(file.name()).is_none()).collect();
    pool.add_file_descriptor_protos(new).map_err(|error| error.to_string())?;
    Ok(pool)
});

const OPTIONS: SerializeOptions = SerializeOptions::new().skip_default_fields(false);

pub fn descriptor(message: &str) -> Result<MessageDescriptor> {
    let pool =
        POOL.as_ref().map_err(|error| Failure::local(format!("the built-in descriptors are broken: {error}")))?;
    pool.get_message_by_name(message).ok_or_else(|| Failure::local(format!("no message {message} in this build")))
}

/// A message as it serializes, fields in the order of the proto.
#[derive(Debug)]
pub struct ProtoJson(DynamicMessage);

impl ProtoJson {
    pub fn new<M: Message>(name: &str, message: &M) -> Result<Self> {
        DynamicMessage::decode(descriptor(name)?, message.encode_to_vec().as_slice())
            .map(Self)
            .map_err(|error| Failure::local(format!("{name}: {error}")))
    }
}

impl Serialize for ProtoJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_with_options(serializer, &OPTIONS)
    }
}

pub fn to_value<M: Message>(name: &str, message: &M) -> Result<Value> {
    serde_json::to_value(ProtoJson::new(name, message)?).map_err(|error| Failure::local(format!("{name}: {error}")))
}

/// Why a field was refused, and where it stands: `spec.disks[0].sizeGib`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongField {
    pub path: String,
    pub message: String,
}

pub fn from_value<M: Message + Default>(name: &str, value: &Value) -> Result<Result<M, WrongField>> {
    let descriptor = descriptor(name)?;
    match parse(&descriptor, value) {
        Ok(message) => message.transcode_to().map(Ok).map_err(|error| Failure::local(format!("{name}: {error}"))),
        Err(message) => Ok(Err(culprit(&descriptor, value, message))),
    }
}

fn parse(descriptor: &MessageDescriptor, value: &Value) -> Result<DynamicMessage, String> {
    DynamicMessage::deserialize(descriptor.clone(), value).map_err(|error| error.to_string())
}

/// The deepest part that does not parse by itself. The parser stays the only judge; this only narrows its verdict down.
fn culprit(descriptor: &MessageDescriptor, value: &Value, message: String) -> WrongField {
    let Some(fields) = value.as_object() else {
        return WrongField { path: String::new(), message };
    };
    for (key, value) in fields {
        let Err(message) = parse(descriptor, &serde_json::json!({ key: value })) else { continue };
        let Some(field) = field(descriptor, key) else {
            return WrongField { path: key.clone(), message: unknown(descriptor, key) };
        };
        let kind = field.kind();
        let below = match (kind.as_message(), value) {
            (Some(inner), Value::Array(items)) if field.is_list() => items.iter().enumerate().find_map(|(at, item)| {
                let message = parse(inner, item).err()?;
                let deeper = culprit(inner, item, message);
                Some(WrongField { path: join(&format!("{key}[{at}]"), &deeper.path), ..deeper })
            }),
            (Some(inner), Value::Object(_)) if !field.is_map() => parse(inner, value).err().map(|message| {
                let deeper = culprit(inner, value, message);
                WrongField { path: join(key, &deeper.path), ..deeper }
            }),
            _ => None,
        };
        // The parser says what is wrong, not always with which value.
        let message = if value.is_object() || value.is_array() { message } else { format!("{value}: {message}") };
        return below.unwrap_or(WrongField { path: key.clone(), message });
    }
    // Each field is fine alone: two of one oneof, or one field under both its names.
    WrongField { path: String::new(), message }
}

/// By either of the names that proto JSON takes.
#[must_use]
pub fn field(descriptor: &MessageDescriptor, key: &str) -> Option<prost_reflect::FieldDescriptor> {
    descriptor.get_field_by_json_name(key).or_else(|| descriptor.get_field_by_name(key))
}

fn unknown(descriptor: &MessageDescriptor, key: &str) -> String {
    let known: Vec<_> = descriptor.fields().map(|field| field.json_name().to_owned()).collect();
    let near = known.iter().map(|name| (distance(key, name), name)).min().filter(|(distance, _)| *distance <= 3);
    match near {
        Some((_, name)) => format!("no such field; did you mean `{name}`?"),
        None => format!("no such field; there are: {}", known.join(", ")),
    }
}

#[must_use]
pub fn join(path: &str, rest: &str) -> String {
    if path.is_empty() {
        rest.to_owned()
    } else if rest.is_empty() {
        path.to_owned()
    } else {
        format!("{path}.{rest}")
    }
}

/// Levenshtein's, for "did you mean".
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use croft_proto::v1;
    use serde_json::json;

    use super::*;

    fn wrong(value: Value) -> (String, String) {
        let wrong = from_value::<v1::Instance>("croft.v1.Instance", &value).unwrap().unwrap_err();
        (wrong.path, wrong.message)
    }

    #[test]
    fn a_wrong_field_is_found_wherever_it_is() {
        let (path, message) = wrong(json!({ "spec": { "vcpus": 2, "memoryMb": 2048 } }));
        assert_eq!((path.as_str(), message.as_str()), ("spec.memoryMb", "no such field; did you mean `memoryMib`?"));
        let (path, message) = wrong(json!({ "spec": { "disks": [{ "sizeGib": 6 }, { "sizeGib": "big" }] } }));
        assert_eq!(path, "spec.disks[1].sizeGib");
        assert!(message.contains("big"), "{message}");
        let (path, _) = wrong(json!({ "spec": { "power": "WARP" } }));
        assert_eq!(path, "spec.power");
        let (path, _) = wrong(json!({ "metadata": { "labels": { "a": 1 } } }));
        assert_eq!(path, "metadata.labels");
        let (path, _) = wrong(json!({ "spec": { "stopTimeout": "soon" } }));
        assert_eq!(path, "spec.stopTimeout");
        let (path, message) = wrong(json!({ "zzzzzzzz": 1 }));
        assert_eq!(path, "zzzzzzzz");
        assert!(message.contains("there are: name, metadata, spec, status"), "{message}");
    }

    #[test]
    fn both_directions_agree() {
        let value = json!({
            "name": "tenants/a/instances/b",
            "spec": { "vcpus": 2, "memoryMib": "2048", "image": "images/x", "stopTimeout": "90s", "restart": "ALWAYS" }
        });
        let instance = from_value::<v1::Instance>("croft.v1.Instance", &value).unwrap().unwrap();
        let spec = instance.spec.as_ref().unwrap();
        assert_eq!((spec.vcpus, spec.memory_mib), (2, 2048));
        let back = to_value("croft.v1.Instance", &instance).unwrap();
        for key in ["vcpus", "memoryMib", "image", "stopTimeout", "restart"] {
            assert_eq!(back["spec"][key], value["spec"][key], "{key}");
        }
        assert_eq!(back["spec"]["power"], "POWER_UNSPECIFIED", "fields without presence are always there");
        assert_eq!(back.get("status"), None, "messages that are absent are not");
    }

    #[test]
    fn a_failed_operation_can_be_printed() {
        let info = tonic_types::pb::ErrorInfo { reason: "X".into(), ..Default::default() };
        let any = prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".into(),
            value: info.encode_to_vec(),
        };
        let error = v1::Error { code: 8, message: "no".into(), details: vec![any] };
        let operation = v1::Operation { error: Some(error), ..Default::default() };
        let value = to_value("croft.v1.Operation", &operation).unwrap();
        assert_eq!(value["error"]["details"][0]["reason"], "X");
    }

    #[test]
    fn near_misses() {
        assert_eq!(distance("memoryMb", "memoryMib"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
