//! Devices of the host that come to a running guest, and leave it.
//!
//! A guest that is asked to give a device up answers in its own time, or never. libvirt's call returns before; the device is
//! gone when the definition of the running guest has it no more.

use std::time::Duration;

use croft_gpu::pci::PciAddress;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt_sys as sys;

use super::Libvirt;
use super::connection::{QUICK, SLOW};
use super::error::failed;
use super::lookup::{ours, query};
use super::passthrough::alias as mark;
use super::spec::invalid;
use super::xml::Element;
use crate::hypervisor::{Attached, Error, HostDevice};
use crate::reasons::{DEVICE_NOT_RELEASED, DEVICE_REFUSED, HYPERVISOR_ERROR};

/// How long a guest may take to give a device up before it is told so.
const LETTING_GO: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Libvirt {
    pub(super) async fn plug_in(&self, uid: Uuid, device: &HostDevice) -> Result<(), Error> {
        let text = device.to_element(None).write().map_err(|error| invalid(error.to_string()))?;
        let alias = device.alias.clone();
        self.connection
            .call(SLOW, "attach a device", move |connect| {
                let domain = ours(connect, uid)?;
                for (flag, xml) in definitions(&domain)? {
                    if !attached(&xml)?.iter().any(|known| known.alias == alias) {
                        domain
                            .attach_device_flags(&text, flag)
                            .map_err(failed(DEVICE_REFUSED, "attaching the device"))?;
                    }
                }
                Ok(())
            })
            .await
    }

    pub(super) async fn unplug(&self, uid: Uuid, alias: &str) -> Result<(), Error> {
        let name = alias.to_owned();
        let ask = move |connect: &Connect| {
            let domain = ours(connect, uid)?;
            for (flag, xml) in definitions(&domain)? {
                // Asked before, and the guest thinks it over: libvirt refuses to ask twice, and that is no failure.
                if let Some(element) = element(&xml, &name)? {
                    let text = element.write().map_err(|error| invalid(error.to_string()))?;
                    match domain.detach_device_flags(&text, flag) {
                        Err(e) if e.message().contains("already in the process of unplug") => {}
                        done => done.map_err(failed(HYPERVISOR_ERROR, "detaching the device"))?,
                    }
                }
            }
            Ok(())
        };
        self.connection.call(SLOW, "detach a device", ask).await?;
        let until = tokio::time::Instant::now() + LETTING_GO;
        loop {
            let name = alias.to_owned();
            let has = move |connect: &Connect| {
                let all = definitions(&ours(connect, uid)?)?;
                all.iter().try_fold(false, |found, (_, xml)| Ok(found || element(xml, &name)?.is_some()))
            };
            if !self.connection.call(QUICK, "describe a domain", has).await? {
                return Ok(());
            }
            if tokio::time::Instant::now() >= until {
                let message = format!("the guest was asked to give up {alias}, and still has it");
                return Err(Error::Failed { reason: DEVICE_NOT_RELEASED, message });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Of the running guest, if it runs, and of its next start.
fn definitions(domain: &Domain) -> Result<Vec<(u32, String)>, Error> {
    let mut all = Vec::new();
    if domain.is_active().map_err(query)? {
        all.push((sys::VIR_DOMAIN_AFFECT_LIVE, domain.xml_desc(0).map_err(query)?));
    }
    all.push((sys::VIR_DOMAIN_AFFECT_CONFIG, domain.xml_desc(sys::VIR_DOMAIN_XML_INACTIVE).map_err(query)?));
    Ok(all)
}

/// The devices of the host in a definition that are ours.
pub(super) fn attached(xml: &str) -> Result<Vec<Attached>, Error> {
    let devices = read(xml)?;
    let all = devices.iter().filter_map(|element| {
        let number = |address: &Element, name: &str| address.get(name)?.parse::<u16>().ok();
        let address = element.first("source").and_then(|source| source.first("address"));
        let usb = address.filter(|_| element.get("type") == Some("usb"));
        let usb = usb.and_then(|at| Some((number(at, "bus")?, u8::try_from(number(at, "device")?).ok()?)));
        Some(Attached { alias: name(element)?.to_owned(), usb, guest: element.first("address").and_then(pci) })
    });
    Ok(all.collect())
}

/// `None`: another bus.
fn pci(address: &Element) -> Option<PciAddress> {
    let number = |name: &str| {
        let text = address.get(name)?;
        u16::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok()
    };
    let written = || {
        let (domain, bus, slot, function) = (number("domain")?, number("bus")?, number("slot")?, number("function")?);
        format!("{domain:04x}:{bus:02x}:{slot:02x}.{function:x}").parse().ok()
    };
    address.get("type").filter(|kind| *kind == "pci").and_then(|_| written())
}

fn element(xml: &str, alias: &str) -> Result<Option<Element>, Error> {
    Ok(read(xml)?.into_iter().find(|element| name(element) == Some(alias)))
}

fn read(xml: &str) -> Result<Vec<Element>, Error> {
    let unreadable = |error: super::xml::Error| Error::Failed { reason: HYPERVISOR_ERROR, message: error.to_string() };
    let domain = Element::parse(xml).map_err(unreadable)?;
    let Some(devices) = domain.first("devices") else { return Ok(Vec::new()) };
    let interfaces = devices.all("interface").filter(|interface| interface.get("type") == Some("hostdev"));
    Ok(devices.all("hostdev").chain(interfaces).cloned().collect())
}

/// Without libvirt's mark for names that are not its own.
fn name(element: &Element) -> Option<&str> {
    element.first("alias")?.get("name")?.strip_prefix(&mark(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_has_is_read_back() {
        let text = "<domain><devices>
            <hostdev mode='subsystem' type='usb' managed='no'>
              <source><address bus='1' device='7'/></source><alias name='ua-hsm'/>
            </hostdev>
            <hostdev mode='subsystem' type='pci' managed='no'>
              <source><address domain='0x0000' bus='0x41' slot='0x00' function='0x0'/></source><alias name='ua-gpu-0_1'/>
              <address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>
            </hostdev>
            <hostdev mode='subsystem' type='pci'><alias name='hostdev0'/></hostdev>
            <interface type='hostdev'><source><address type='pci' bus='0x1'/></source><alias name='ua-nic'/></interface>
            <interface type='network'><alias name='ua-other'/></interface>
          </devices></domain>";
        let found = attached(text).unwrap();
        let words: Vec<_> = found.iter().map(|device| (device.alias.as_str(), device.usb)).collect();
        assert_eq!(words, [("hsm", Some((1, 7))), ("gpu-0_1", None), ("nic", None)]);
        let places: Vec<_> = found.iter().map(|device| device.guest.map(|at| at.to_string())).collect();
        assert_eq!(places, [None, Some("0000:05:00.0".to_owned()), None]);
        assert!(element(text, "nic").unwrap().is_some() && element(text, "other").unwrap().is_none());
    }
}
