//! What Croft puts on a Node: whose it is, for good; what it has, until it is initialised. From then on what the user, his
//! cluster's operators or a device plugin write there is theirs.

use croft_core::device::Kind;
use croft_core::instance::Instance;
use croft_core::join::cluster::{Change, Node, Ready};
use croft_core::join::machine::told::{self, Told};
use croft_core::join::node::{Effect, TENANT_LABEL, TENANT_TAINT, Taint, UNINITIALISED_TAINT, Wish};
use croft_core::meta::Labels;

/// Extended resources of GPUs, as their device plugins name them.
const GPU_RESOURCES: &str = "nvidia.com/";

/// `None`: nothing.
pub(super) fn lacking(instance: &Instance, node: &Node) -> Option<Change> {
    let mut change = Change::default();
    let put = |into: &mut Labels, has: &Labels, key: &str, value: String| {
        if has.get(key) != Some(&value) {
            into.insert(key.to_owned(), value);
        }
    };
    let tenant = instance.tenant.to_string();
    put(&mut change.labels, &node.labels, TENANT_LABEL, tenant.clone());
    change.taints.push(Taint { key: TENANT_TAINT.to_owned(), value: tenant, effect: Effect::NoSchedule });
    if node.has_taint(UNINITIALISED_TAINT) {
        let wish = instance.spec.node.as_ref();
        for (key, value) in wish.map(|wish| &wish.labels).into_iter().flatten() {
            put(&mut change.labels, &node.labels, key, value.clone());
        }
        change.taints.extend(wish.map(|wish| wish.taints.clone()).unwrap_or_default());
        for (key, value) in gpu_labels(instance) {
            // Whoever looked inside of the guest knows better.
            if !node.labels.contains_key(key) {
                change.labels.insert(key.to_owned(), value);
            }
        }
        for (key, value) in capacity(instance) {
            put(&mut change.annotations, &node.annotations, key, value);
        }
        if is_live(instance, node) {
            change.shed.insert(UNINITIALISED_TAINT.to_owned());
        }
    }
    change.taints.retain(|taint| !node.taints.contains(taint));
    (change != Change::default()).then_some(change)
}

/// Ready, and with the GPUs that were asked for.
fn is_live(instance: &Instance, node: &Node) -> bool {
    node.ready == Ready::Yes && !lacks_gpus(instance, node)
}

/// GPUs were asked for, and its kubelet shows none: no device plugin runs there.
fn lacks_gpus(instance: &Instance, node: &Node) -> bool {
    let mut shown = node.allocatable.iter().filter(|(name, amount)| name.starts_with(GPU_RESOURCES) && *amount != "0");
    gpus(instance).next().is_some() && shown.next().is_none()
}

/// Why nothing of its tenant is scheduled on it, Ready as it is.
pub(super) fn uninitialised(instance: &Instance, node: &Node) -> Option<Told> {
    (node.has_taint(UNINITIALISED_TAINT) && lacks_gpus(instance, node)).then(|| {
        Told::new(
            told::GPU_RESOURCE_MISSING,
            format!(
                "it is Ready, but shows no {GPU_RESOURCES}… resource: the taint {UNINITIALISED_TAINT} stays until a device plugin \
                 that tolerates it runs there"
            ),
        )
    })
}

fn gpus(instance: &Instance) -> impl Iterator<Item = &croft_core::device::Assignment> {
    let devices = instance.placement.iter().flat_map(|placement| &placement.devices);
    devices.filter(|device| device.kind == Kind::Gpu || !device.model.is_empty())
}

/// As NVIDIA's feature discovery names them. Those of a guest with several kinds of GPUs are of the first.
fn gpu_labels(instance: &Instance) -> Vec<(&'static str, String)> {
    let Some(first) = gpus(instance).next() else { return Vec::new() };
    let product = match (first.vgpu_type.as_str(), first.mig_profile.as_str()) {
        ("", "") => first.model.clone(),
        ("", profile) => format!("{}-{profile}", first.model),
        (vgpu, _) => vgpu.to_owned(),
    };
    // `1g.10gb+me` and `GRID A100-10C` have what a label's value may not have.
    let product = product.replace(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-'), "-");
    let strategy = if first.mig_profile.is_empty() { "none" } else { "single" };
    vec![
        ("nvidia.com/gpu.present", "true".to_owned()),
        ("nvidia.com/gpu.product", product.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()),
        ("nvidia.com/gpu.memory", first.charged_memory_mib.to_string()),
        ("nvidia.com/gpu.count", gpus(instance).count().to_string()),
        ("nvidia.com/mig.strategy", strategy.to_owned()),
    ]
}

fn capacity(instance: &Instance) -> [(&'static str, String); 4] {
    let spec = &instance.spec;
    [
        ("croft.dev/instance", instance.name()),
        ("croft.dev/vcpus", spec.vcpus.to_string()),
        ("croft.dev/memory-mib", spec.memory_mib.to_string()),
        ("croft.dev/disk-gib", spec.disk_gib().to_string()),
    ]
}

/// Those that a kubelet registers with: a Node is nobody else's from its first moment.
pub(super) fn first_taints(instance: &Instance, wish: &Wish) -> Vec<Taint> {
    let tenant = Taint { key: TENANT_TAINT.to_owned(), value: instance.tenant.to_string(), effect: Effect::NoSchedule };
    std::iter::once(tenant).chain(wish.taints.clone()).collect()
}

#[cfg(test)]
#[path = "dress_tests.rs"]
mod tests;
