//! Label values that come from our own protocol and from nowhere else.

use std::collections::BTreeSet;

use prost::Message;

/// What is not ours goes under one name, whatever somebody asks for.
const OTHER: &str = "other";

/// The gRPC path, if it is one of ours.
#[must_use]
pub fn method(path: &str) -> &'static str {
    let rows = croft_proto::PERMISSIONS;
    rows.binary_search_by_key(&path, |row| row.0).map_or(OTHER, |at| rows[at].0)
}

/// How long a stream was open says nothing about how fast anything is.
#[must_use]
pub fn streaming_methods() -> BTreeSet<String> {
    // Ours, and checked by a test: it decodes.
    let files = prost_types::FileDescriptorSet::decode(croft_proto::FILE_DESCRIPTOR_SET).unwrap_or_default().file;
    let services = files.iter().flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    services
        .flat_map(|(package, service)| {
            let streaming = service.method.iter().filter(|m| m.client_streaming() || m.server_streaming());
            streaming.map(move |m| format!("/{package}.{}/{}", service.name(), m.name()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_known_and_nobody_makes_up_a_label() {
        let streaming = streaming_methods();
        assert!(streaming.contains("/croft.agent.v1.Agent/Session"), "{streaming:?}");
        assert!(!streaming.contains("/croft.v1.Instances/GetInstance"));
        assert!(streaming.iter().all(|path| method(path) == path), "{streaming:?}");
        assert_eq!(method("/croft.v1.Instances/GetInstance"), "/croft.v1.Instances/GetInstance");
        assert_eq!(method("/x/y"), OTHER);
    }
}
