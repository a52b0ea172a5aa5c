//! UpdateNetwork: grants, description, labels. What guests are plugged into never changes under them.

use croft_core::audit::Call;
use croft_core::network::Network;
use croft_core::validate::Violations;
use croft_core::{Result, name};
use croft_proto::v1;

use super::{check_description, grants};
use crate::api::Api;
use crate::convert::meta;
use crate::convert::network::out;
use crate::mask::Fields;

const FIELDS: Fields = Fields {
    noun: "network",
    mutable: &["description", "granted_tenants", "metadata.labels", "metadata.annotations"],
    immutable: &[
        ("name", "it is what the network is known by"),
        ("bridge", "guests are plugged into it; create another network"),
        ("vlan", "guests are plugged into it; create another network"),
    ],
    output_only: &[],
};

pub async fn update(api: Api, call: Call, request: v1::UpdateNetworkRequest) -> Result<v1::Network> {
    let wire = request.network.unwrap_or_default();
    let chosen = FIELDS.choose(request.update_mask)?;
    let id = name::network("network.name", &wire.name)?;
    let mut violations = Violations::new();
    let sent = meta::into("network", wire.metadata, &mut violations);
    check_description(&wire.description, &mut violations);
    let granted = grants(&wire.granted_tenants, &mut violations);
    violations.finish()?;

    let etag = sent.etag.clone();
    let change = move |network: &mut Network| {
        if chosen.is_whole() && !wire.bridge.is_empty() && wire.bridge != network.bridge {
            return Err(FIELDS.unwritable("bridge"));
        }
        if chosen.is_whole() && wire.vlan != 0 && wire.vlan != network.vlan {
            return Err(FIELDS.unwritable("vlan"));
        }
        if chosen.writes("description", !wire.description.is_empty()) {
            network.description = wire.description;
        }
        if chosen.writes("granted_tenants", !granted.is_empty()) {
            network.granted_tenants = granted;
        }
        sent.write(&chosen, &mut network.meta);
        Ok(())
    };
    Ok(out(&api.store().network_update(&call, &id, &etag, change).await?.into_inner()))
}
