//! `HostInfo` and the JSON in which the plane keeps it: shown to people, never interpreted.

use std::sync::LazyLock;

use croft_core::{Error, Result};
use croft_proto::v1;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

static HOST_INFO: LazyLock<Option<MessageDescriptor>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(croft_proto::FILE_DESCRIPTOR_SET).ok()?;
    pool.get_message_by_name("croft.v1.HostInfo")
});

fn descriptor() -> Result<MessageDescriptor> {
    HOST_INFO.clone().ok_or_else(|| Error::internal("the descriptor set lacks croft.v1.HostInfo"))
}

/// Proto JSON.
pub fn into(info: &v1::HostInfo) -> Result<serde_json::Value> {
    let message = DynamicMessage::decode(descriptor()?, info.encode_to_vec().as_slice()).map_err(Error::internal)?;
    serde_json::to_value(&message).map_err(Error::internal)
}

/// Empty when it was never reported, or was written by a version that knew other fields.
#[must_use]
pub fn out(info: &serde_json::Value) -> v1::HostInfo {
    let read = |descriptor| DynamicMessage::deserialize(descriptor, info).ok()?.transcode_to().ok();
    descriptor().ok().and_then(read).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_info_comes_back_as_it_went() {
        let info = v1::HostInfo {
            agent_version: "0.1.0".into(),
            domain_type: "kvm".into(),
            pci_devices: vec![v1::PciDevice { address: "0000:41:00.0".into(), iommu_group: -1, ..Default::default() }],
            features: vec!["bridge".into()],
            ..Default::default()
        };
        let json = into(&info).unwrap();
        assert_eq!(json["agentVersion"], "0.1.0");
        assert_eq!(out(&json), info);
        assert_eq!(out(&serde_json::Value::Null), v1::HostInfo::default());
    }
}
