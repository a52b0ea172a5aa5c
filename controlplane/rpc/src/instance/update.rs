//! UpdateInstance: labels, annotations, restart policy, stop timeout and the repair of a node. The shape of a VM never changes,
//! and whether it runs is asked for by Start and Stop, which have an operation to wait for.

use croft_core::audit::Call;
use croft_core::instance::Instance;
use croft_core::join::keep::Repair;
use croft_core::validate::Violations;
use croft_core::{Error, Result, name};
use croft_proto::v1;

use crate::api::Api;
use crate::convert::instance::{DEVICES, out, restart_into, stop_timeout_into};
use crate::convert::{meta, node, request};
use crate::mask::Fields;

const REPAIR: &str = "spec.node.repair";
const ANEW: &str = "the shape of a VM is fixed when it is created; create another one";

const FIELDS: Fields = Fields {
    noun: "instance",
    mutable: &["metadata.labels", "metadata.annotations", "spec.restart", "spec.stop_timeout", REPAIR],
    immutable: &[
        ("name", "it is what the instance is known by"),
        ("spec.power", "use StartInstance or StopInstance"),
        ("spec.vcpus", ANEW),
        ("spec.memory_mib", ANEW),
        ("spec.image", ANEW),
        ("spec.disks", ANEW),
        ("spec.interfaces", ANEW),
        ("spec.cpu", ANEW),
        ("spec.huge_page_kib", ANEW),
        ("spec.cloud_init", ANEW),
        ("spec.host_selector", ANEW),
        ("spec.placement_policy", ANEW),
        ("spec.runtime", ANEW),
        ("spec.node.cluster", ANEW),
        ("spec.node.recipe", ANEW),
        ("spec.node.labels", ANEW),
        ("spec.node.taints", ANEW),
        ("spec.devices", "use AttachDevice or DetachDevice"),
    ],
    output_only: &["status"],
};

pub async fn update(api: Api, call: Call, request: v1::UpdateInstanceRequest) -> Result<v1::Instance> {
    let wire = request.instance.unwrap_or_default();
    let chosen = FIELDS.choose(request.update_mask)?;
    let (tenant, id) = name::instance("instance.name", &wire.name)?;
    let spec = wire.spec.unwrap_or_default();
    let mut violations = Violations::new();
    let sent = meta::into("instance", wire.metadata, &mut violations);
    let restart = restart_into(spec.restart, &mut violations);
    let stop_timeout = stop_timeout_into(spec.stop_timeout, &mut violations);
    let repair = node::repair_into(spec.node.as_ref().map(|wish| wish.repair), &mut violations);
    violations.finish()?;
    api.see(&call.principal, &tenant, &wire.name).await?;

    let etag = sent.etag.clone();
    let change = move |instance: &mut Instance| {
        if chosen.is_whole() {
            check_unchanged(&spec, out(instance).spec.unwrap_or_default())?;
        }
        // A field that is written and was not said gets what a new instance would get.
        if chosen.writes("spec.restart", restart.is_some()) {
            instance.intent.restart = restart.unwrap_or(croft_core::instance::Restart::OnFailure);
        }
        if chosen.writes("spec.stop_timeout", stop_timeout.is_some()) {
            instance.intent.stop_timeout = stop_timeout.unwrap_or(croft_core::instance::DEFAULT_STOP_TIMEOUT);
        }
        if chosen.writes(REPAIR, repair.is_some()) {
            repair_to(instance, repair)?;
        }
        sent.write(&chosen, &mut instance.meta);
        Ok(())
    };
    let instance = api.store().instance_update(&call, &tenant, &id, &etag, change).await?.into_inner();
    if let Some(host) = instance.host() {
        api.deps.wake.host(host);
    }
    Ok(out(&instance))
}

/// Also of what is no node, as long as it is not said what it should be.
fn repair_to(instance: &mut Instance, repair: Option<Repair>) -> Result<()> {
    match (&mut instance.spec.node, repair) {
        (Some(wish), repair) => wish.repair = repair.unwrap_or_default(),
        (None, None) => {}
        (None, Some(_)) => {
            return Err(Error::invalid("instance.spec.node.repair", "it joins no cluster, and that never changes"));
        }
    }
    Ok(())
}

/// A whole object is sent by somebody who read it, changed something and writes it back: what cannot change must be as
/// it was, or be left out.
fn check_unchanged(sent: &v1::InstanceSpec, now: v1::InstanceSpec) -> Result<()> {
    let same_or_out = [
        ("spec.power", sent.power == 0 || sent.power == now.power),
        ("spec.vcpus", sent.vcpus == 0 || sent.vcpus == now.vcpus),
        ("spec.memory_mib", sent.memory_mib == 0 || sent.memory_mib == now.memory_mib),
        ("spec.image", sent.boot_source.is_none() || sent.boot_source == now.boot_source),
        ("spec.disks", sent.disks.is_empty() || sent.disks == now.disks),
        ("spec.interfaces", sent.interfaces.is_empty() || sent.interfaces == now.interfaces),
        ("spec.cpu", sent.cpu.is_none() || sent.cpu == now.cpu),
        ("spec.huge_page_kib", sent.huge_page_kib == 0 || sent.huge_page_kib == now.huge_page_kib),
        ("spec.cloud_init", same_cloud_init(sent.cloud_init.as_ref(), now.cloud_init.as_ref())),
        ("spec.host_selector", sent.host_selector.is_empty() || sent.host_selector == now.host_selector),
        ("spec.placement_policy", sent.placement_policy == 0 || sent.placement_policy == now.placement_policy),
        ("spec.runtime", sent.runtime == 0 || sent.runtime == now.runtime),
        ("spec.devices", sent.devices.is_empty() || spread(&sent.devices) == now.devices),
    ];
    let node = same_node(sent.node.as_ref(), now.node.as_ref());
    match same_or_out.into_iter().chain(node).find(|(_, holds)| !holds) {
        None => Ok(()),
        Some((field, _)) => Err(FIELDS.unwritable(field)),
    }
}

/// As it is kept: a request with a count is as many single ones.
fn spread(sent: &[v1::DeviceRequest]) -> Vec<v1::DeviceRequest> {
    // What is wrong in itself differs from what is kept, which was right.
    let (requests, _) = request::list_into(DEVICES, sent.to_vec(), &mut Violations::new());
    requests.iter().map(request::out).collect()
}

/// The same for the node: a recipe that was not named has a name. Its repair may change.
fn same_node(sent: Option<&v1::NodeWish>, now: Option<&v1::NodeWish>) -> Vec<(&'static str, bool)> {
    let Some(sent) = sent.map(|wish| node::out(&node::into(wish.clone(), &mut Violations::new()))) else {
        return Vec::new();
    };
    let none = v1::NodeWish { recipe: sent.recipe.clone(), ..v1::NodeWish::default() };
    let now = now.unwrap_or(&none);
    vec![
        ("spec.node.cluster", sent.cluster == now.cluster),
        ("spec.node.recipe", sent.recipe == now.recipe),
        ("spec.node.labels", sent.labels == now.labels),
        ("spec.node.taints", sent.taints == now.taints),
    ]
}

/// User data is never given out, so it may be missing, or be the same as its digest says.
fn same_cloud_init(sent: Option<&v1::CloudInit>, now: Option<&v1::CloudInit>) -> bool {
    let (Some(sent), Some(now)) = (sent, now) else {
        return sent.is_none();
    };
    let user_data = sent.user_data.is_empty()
        || croft_core::instance::seed::digest(sent.user_data.as_bytes()) == now.user_data_digest;
    user_data
        && (sent.user_data_digest.is_empty() || sent.user_data_digest == now.user_data_digest)
        && sent.network_config == now.network_config
        && sent.ssh_authorized_keys == now.ssh_authorized_keys
        && sent.hostname == now.hostname
}

#[cfg(test)]
mod tests {
    use croft_core::instance::seed;

    use super::*;

    fn gpus(count: i32) -> v1::DeviceRequest {
        let wanted = v1::device_request::Wanted::Gpu(v1::device_request::WholeGpu::default());
        v1::DeviceRequest { id: String::new(), count, wanted: Some(wanted) }
    }

    fn now() -> v1::InstanceSpec {
        v1::InstanceSpec {
            devices: spread(&[gpus(2)]),
            power: 1,
            vcpus: 2,
            memory_mib: 512,
            cloud_init: Some(v1::CloudInit { user_data_digest: seed::digest(b"#!x"), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn an_object_that_was_read_can_be_written_back() {
        assert_eq!(check_unchanged(&now(), now()), Ok(()));
        assert_eq!(check_unchanged(&v1::InstanceSpec::default(), now()), Ok(()));
        assert_eq!(check_unchanged(&v1::InstanceSpec { devices: vec![gpus(2)], ..now() }, now()), Ok(()));
        let again = v1::CloudInit { user_data: "#!x".into(), ..Default::default() };
        assert_eq!(check_unchanged(&v1::InstanceSpec { cloud_init: Some(again), ..now() }, now()), Ok(()));
    }

    #[test]
    fn of_a_node_only_its_repair_may_change() {
        let wish = v1::NodeWish { cluster: "clusters/prod".into(), ..Default::default() };
        let node = |wish: &v1::NodeWish| v1::InstanceSpec { node: Some(wish.clone()), ..now() };
        let there = node(&node::out(&node::into(wish.clone(), &mut Violations::new())));
        let other = v1::NodeWish { repair: v1::node_wish::Repair::Restart.into(), ..wish.clone() };
        assert_eq!(check_unchanged(&node(&other), there.clone()), Ok(()));
        let refused = |wish| check_unchanged(&node(&wish), there.clone()).unwrap_err().to_string();
        let error = refused(v1::NodeWish { recipe: "k3s".into(), ..wish.clone() });
        assert!(error.starts_with("instance.spec.node.recipe: never changes; "), "{error}");
        let error = check_unchanged(&node(&wish), now()).unwrap_err().to_string();
        assert!(
            error.starts_with("instance.spec.node.cluster: never changes; "),
            "what is no node becomes none: {error}"
        );
        assert!(FIELDS.choose(Some(prost_types::FieldMask { paths: vec![REPAIR.to_owned()] })).is_ok());
    }

    #[test]
    fn what_cannot_change_is_refused_by_name_with_what_to_do() {
        let refused = |sent| check_unchanged(&sent, now()).unwrap_err().to_string();
        let error = refused(v1::InstanceSpec { vcpus: 4, ..now() });
        assert!(error.starts_with("instance.spec.vcpus: never changes; "), "{error}");
        let error = refused(v1::InstanceSpec { power: 2, ..now() });
        assert!(error.contains("StopInstance"), "{error}");
        let error = refused(v1::InstanceSpec { devices: vec![gpus(3)], ..now() });
        assert!(error.contains("AttachDevice"), "{error}");
        let other = v1::CloudInit { user_data: "#!y".into(), ..Default::default() };
        let error = refused(v1::InstanceSpec { cloud_init: Some(other), ..now() });
        assert!(error.starts_with("instance.spec.cloud_init"), "{error}");
    }
}
