//! How a function is cleaned between two guests: the resets that touch nothing else, the surest first.

use crate::host::Host;
use crate::pci::{PciAddress, PciFunction};

/// The function's reset methods, in the order in which to try them. Empty: it has none that leaves its neighbours alone, and
/// whether it is clean can only be doubted.
///
/// A bus reset hits every function of the bus: it is listed only where all of those are of the same IOMMU group and on no
/// driver but VFIO's, with nobody holding one open. `pm` (a round through D3hot) comes last: what it clears is the device's
/// own choice.
#[must_use]
pub fn ladder(host: &Host, address: PciAddress) -> Vec<String> {
    let functions = &host.pci.devices;
    let Some(function) = functions.iter().find(|function| function.address == address) else { return Vec::new() };
    let same_bus = |other: &&PciFunction| other.address.domain == address.domain && other.address.bus == address.bus;
    let bus = format!("{:04x}:{:02x}:", address.domain, address.bus);
    let mut errors = host.pci.errors.iter().chain(&host.errors).filter(|error| !error.only_describes());
    let unread = errors.any(|error| error.device.contains(&bus) || error.device == "holders");
    let alone = !unread
        && functions.iter().filter(same_bus).all(|other| {
            other.iommu_group.is_some()
                && other.iommu_group == function.iommu_group
                && (other.driver.is_none() || super::look::on_vfio(other))
                && host.holders.get(&other.address.to_string()).is_none_or(Vec::is_empty)
        });
    let hits_the_bus = |method: &str| matches!(method, "bus" | "cxl_bus");
    let usable = function.reset_methods.iter().filter(|method| alone || !hits_the_bus(method));
    let (last, first): (Vec<_>, Vec<_>) = usable.cloned().partition(|method| method == "pm");
    first.into_iter().chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{HostBuilder, at, function};

    #[test]
    fn a_bus_is_reset_only_where_all_of_it_is_the_guests() {
        let card = || function("0000:41:00.0").group(7).driver("vfio-pci").resets(&["flr", "pm", "bus"]);
        let with = |audio| ladder(&HostBuilder::new().function(card()).function(audio).build(), at("0000:41:00.0"));
        let audio = || function("0000:41:00.1").group(7);
        assert_eq!(with(audio()), ["flr", "bus", "pm"]);
        assert_eq!(with(audio().driver("vfio-pci")), ["flr", "bus", "pm"]);
        assert_eq!(with(audio().driver("snd_hda_intel")), ["flr", "pm"]);
        assert_eq!(with(audio().group(8)), ["flr", "pm"]);
        let held = HostBuilder::new().function(card()).function(audio()).holder("0000:41:00.1", "qemu").build();
        assert_eq!(ladder(&held, at("0000:41:00.0")), ["flr", "pm"]);
        let unread = HostBuilder::new().function(card()).pci_error("0000:41:00.1").build();
        assert_eq!(ladder(&unread, at("0000:41:00.0")), ["flr", "pm"]);
        assert!(ladder(&unread, at("0000:41:00.1")).is_empty());
        let nameless = HostBuilder::new().function(card()).description_error("0000:41:00.1", "link width").build();
        assert_eq!(ladder(&nameless, at("0000:41:00.0")), ["flr", "bus", "pm"]);
    }
}
