//! What a host should run, as its agent reads it.

use croft_core::image::{Boot, Firmware, Image};
use croft_core::instance::Instance;
use croft_core::network::{self, Network};
use croft_core::tenant::Tenant;
use croft_core::{Error, Result};
use croft_proto::agent::v1 as agent;
use sha2::{Digest as _, Sha256};

use super::{desired_device, image, instance as wire};
use crate::agent::features;

/// `networks`: those of its interfaces, the tenant's own NAT excepted.
pub fn out(
    instance: &Instance,
    image: &Image,
    tenant: &Tenant,
    networks: &[Network],
) -> Result<agent::DesiredInstance> {
    let (spec, intent) = (&instance.spec, &instance.intent);
    Ok(agent::DesiredInstance {
        uid: instance.uid.to_string(),
        tenant: tenant.id.to_string(),
        tenant_uid: tenant.meta.uid.clone(),
        name: instance.id.clone(),
        generation: instance.meta.generation,
        required_features: required(instance, image),
        power: wire::power_out(intent.power).into(),
        restart: wire::restart_out(intent.restart).into(),
        stop_timeout_seconds: seconds(intent.effective_stop_timeout()),
        power_generation: intent.power_generation,
        reboot_generation: intent.reboot_generation,
        reset_generation: intent.reset_generation,
        vcpus: i32::try_from(spec.vcpus).unwrap_or(i32::MAX),
        memory_mib: spec.memory_mib,
        huge_page_kib: spec.huge_page_kib,
        cpu: Some(wire::cpu_out(spec.cpu)),
        numa: pins(instance),
        image: Some(image_out(image)),
        disks: disks(instance),
        interfaces: interfaces(instance, tenant, networks)?,
        seed_digest: intent.seed_digest.clone(),
        devices: desired_device::out(instance),
        disk_generation: intent.disk_generation,
    })
}

/// Rounded up: half a second of patience is not none.
#[must_use]
pub fn seconds(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

fn required(instance: &Instance, image: &Image) -> Vec<String> {
    let kernel = matches!(image.boot, Boot::Kernel { .. });
    let pinned = instance.placement.as_ref().is_some_and(|placement| !placement.pins.is_empty());
    let needs = [
        (features::KERNEL_BOOT, kernel),
        (
            features::BRIDGE,
            instance.spec.interfaces.iter().any(|interface| interface.network.as_str() != network::DEFAULT),
        ),
        (features::HUGE_PAGES, instance.spec.huge_page_kib != 0),
        (features::NUMA_PINNING, pinned),
        // A kernel that is booted directly needs no firmware.
        (features::BIOS, !kernel && image.firmware == Firmware::Bios),
        (features::SEED_FILES, instance.spec.node.is_some()),
        (features::REBUILD, instance.intent.disk_generation > 0),
        (features::DEVICES, instance.placement.as_ref().is_some_and(|placement| !placement.devices.is_empty())),
    ];
    needs.into_iter().filter(|(_, needed)| *needed).map(|(feature, _)| feature.to_owned()).collect()
}

fn pins(instance: &Instance) -> Vec<agent::NumaPin> {
    let pins = instance.placement.iter().flat_map(|placement| &placement.pins);
    pins.map(|pin| agent::NumaPin { cell: pin.cell, cpus: pin.cpus.clone(), memory_mib: pin.memory_mib }).collect()
}

fn image_out(image: &Image) -> agent::DesiredImage {
    use croft_proto::v1::image::Boot as Wire;
    let boot = match image::boot_out(&image.boot) {
        Wire::Disk(disk) => agent::desired_image::Boot::Disk(disk),
        Wire::Kernel(kernel) => agent::desired_image::Boot::Kernel(kernel),
    };
    agent::DesiredImage {
        uid: image.uid.to_string(),
        name: image.name(),
        firmware: image::firmware_out(image.firmware).into(),
        boot: Some(boot),
        platform: image.tenant.is_none(),
    }
}

/// The root disk lives and dies with its instance, so it has its instance's uid; a second one would have its own.
fn disks(instance: &Instance) -> Vec<agent::DesiredDisk> {
    let disk = |disk: &croft_core::instance::Disk| agent::DesiredDisk {
        uid: instance.uid.to_string(),
        size_gib: disk.size_gib,
    };
    instance.spec.disks.iter().map(disk).collect()
}

fn interfaces(instance: &Instance, tenant: &Tenant, networks: &[Network]) -> Result<Vec<agent::DesiredInterface>> {
    use agent::desired_interface::{Bridge, Network as Wire, TenantNat};
    let one = |(at, interface): (usize, &croft_core::instance::Interface)| {
        let network = if interface.network.as_str() == network::DEFAULT {
            Wire::TenantNat(TenantNat { tenant_uid: tenant.meta.uid.clone() })
        } else {
            let found = networks.iter().find(|network| network.id == interface.network);
            let found = found.ok_or_else(|| {
                Error::internal(format!(
                    "{} is attached to networks/{}, which is gone",
                    instance.name(),
                    interface.network
                ))
            })?;
            Wire::Bridge(Bridge { bridge: found.bridge.clone(), vlan: found.vlan })
        };
        Ok(agent::DesiredInterface { mac: mac(&instance.uid.to_string(), at), network: Some(network) })
    };
    instance.spec.interfaces.iter().enumerate().map(one).collect()
}

/// Locally administered, and the same for ever: a guest names its interfaces after it.
#[must_use]
pub fn mac(instance_uid: &str, index: usize) -> String {
    local_mac(&format!("{instance_uid}/{index}"))
}

pub(super) fn local_mac(of: &str) -> String {
    let digest = Sha256::digest(of);
    let tail: Vec<_> = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    format!("02:{}", tail.join(":"))
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
