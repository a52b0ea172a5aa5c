//! The files that a driver shows vGPUs by: `mdev_supported_types` and the mediated devices, or, on NVIDIA's newer functions,
//! `nvidia/current_vgpu_type`. Which of the two it is, is seen on each function, never concluded from a version.

use std::collections::BTreeMap;

use crate::error::{FsError, IfPresent as _, ProbeError};
use crate::gpu::SupportedVgpu;
use crate::host::{Mdev, MdevType, VgpuFunction, VgpuType};
use crate::hostfs::HostFs;
use crate::pci::PciAddress;

/// Read of `gpu_instance_id` before there is a vGPU.
const ENXIO: i32 = 6;

/// `NVIDIA H100XM-2-20C` and `GRID A100D-4C` without the brand, by which drivers differ and products do not.
pub(crate) fn bare_name(name: &str) -> &str {
    let name = name.trim();
    ["NVIDIA ", "GRID "].iter().find_map(|brand| name.strip_prefix(brand)).unwrap_or(name).trim()
}

/// The vGPU files of one function; `None`: it has none.
///
/// `types`: all that the board supports, as its driver names them: the only place where the name of a type that stands
/// already is found for certain.
pub(crate) fn function(
    fs: &HostFs,
    address: PciAddress,
    types: &[SupportedVgpu],
) -> Result<Option<VgpuFunction>, ProbeError> {
    let entry = format!("/sys/bus/pci/devices/{address}");
    let failed = |what: &'static str| {
        move |source: FsError| ProbeError { device: format!("pci {address}"), what: what.into(), source: source.into() }
    };
    if fs.has(&format!("{entry}/nvidia/current_vgpu_type")).map_err(failed("vGPU files"))? {
        return vendor(fs, &format!("{entry}/nvidia"), types).map(Some).map_err(failed("vGPU type"));
    }
    match fs.entries(&format!("{entry}/mdev_supported_types")).if_present().map_err(failed("vGPU types"))? {
        Some(ids) => {
            let read = |id: &String| mdev_type(fs, &format!("{entry}/mdev_supported_types/{id}"), id);
            let types = ids.iter().map(read).collect::<Result<_, _>>().map_err(failed("vGPU types"))?;
            Ok(Some(VgpuFunction::Mdev { types }))
        }
        None => Ok(None),
    }
}

fn vendor(fs: &HostFs, files: &str, types: &[SupportedVgpu]) -> Result<VgpuFunction, FsError> {
    let current_file = format!("{files}/current_vgpu_type");
    let current = fs.parse(&current_file, "the id of a vGPU type", |text| text.parse::<u32>().ok())?;
    let creatable_file = format!("{files}/creatable_vgpu_types");
    let creatable = fs.parse(&creatable_file, "a list of vGPU types", parse_creatable)?;
    let current = match current {
        0 => None,
        id => {
            let supported = types.iter().find(|known| known.id == id).map(|known| known.name.clone());
            let listed = || creatable.iter().find(|known| known.id == id).map(|known| known.name.clone());
            let name = supported.or_else(listed);
            let unnamed = || fs.garbage(&current_file, &id.to_string(), "a type that the driver has a name for");
            Some(VgpuType { id, name: name.ok_or_else(unnamed)? })
        }
    };
    Ok(VgpuFunction::Vendor { current, creatable, gpu_instance: gpu_instance(fs, files)? })
}

/// Which GPU instance a function's vGPU stands on, by the driver's files of the function; `None`: on none, or it does not say.
pub(crate) fn gpu_instance(fs: &HostFs, files: &str) -> Result<Option<u32>, FsError> {
    match fs.attribute(&format!("{files}/gpu_instance_id")) {
        Err(error) if error.is_absent() || error.errno() == Some(ENXIO) => Ok(None),
        // A time-sliced one has none, in whichever way the driver writes that.
        Ok(text) => Ok(text.parse::<u32>().ok().filter(|id| *id != u32::MAX)),
        Err(error) => Err(error),
    }
}

/// Below a header line `1428  : NVIDIA H200X-141C`; drivers have also written `NVIDIA A40-2Q 558`. Nothing but the header:
/// nothing can be made here now.
pub(crate) fn parse_creatable(text: &str) -> Option<Vec<VgpuType>> {
    let mut types = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let (id, name) = match line.split_once(':') {
            Some((id, _)) if id.trim() == "ID" => continue,
            Some((id, name)) => (number(id)?, name),
            None => {
                let (name, id) = line.rsplit_once(char::is_whitespace)?;
                (number(id)?, name)
            }
        };
        types.push(VgpuType { id, name: bare_name(name).to_owned() });
    }
    Some(types)
}

fn mdev_type(fs: &HostFs, entry: &str, id: &str) -> Result<MdevType, FsError> {
    let count = |text: &str| text.parse().ok();
    Ok(MdevType {
        id: id.to_owned(),
        name: fs.attribute(&format!("{entry}/name")).if_present()?,
        available: fs.parse(&format!("{entry}/available_instances"), "a number of devices", count)?,
        device_api: fs.attribute(&format!("{entry}/device_api"))?,
    })
}

/// Every mediated device, whatever its parent is.
pub(crate) fn mdevs(fs: &HostFs, errors: &mut Vec<ProbeError>) -> Vec<Mdev> {
    const DEVICES: &str = "/sys/bus/mdev/devices";
    let names = match fs.entries(DEVICES).if_present() {
        Ok(names) => names.unwrap_or_default(),
        Err(error) => {
            errors.push(ProbeError { device: "mdev".to_owned(), what: "devices".into(), source: error.into() });
            return Vec::new();
        }
    };
    let mut mdevs = Vec::new();
    for uuid in names {
        match mdev(fs, &format!("{DEVICES}/{uuid}"), &uuid) {
            Ok(mdev) => mdevs.push(mdev),
            // Removed between the listing and here.
            Err(error) if error.is_absent() && matches!(fs.has(&format!("{DEVICES}/{uuid}")), Ok(false)) => {}
            Err(error) => {
                errors.push(ProbeError {
                    device: format!("mdev {uuid}"),
                    what: "type and parent".into(),
                    source: error.into(),
                });
            }
        }
    }
    mdevs
}

fn mdev(fs: &HostFs, entry: &str, uuid: &str) -> Result<Mdev, FsError> {
    let target = fs.link(entry)?;
    let above = target.parent().and_then(|parent| parent.file_name()).and_then(|name| name.to_str());
    let nowhere = || fs.garbage(entry, &target.to_string_lossy(), "a device below its parent");
    let parent = above.ok_or_else(nowhere)?.to_owned();
    let group = fs.link_name(&format!("{entry}/iommu_group")).if_present()?;
    let garbage = |group: &String| fs.garbage(entry, group, "the number of an IOMMU group");
    Ok(Mdev {
        uuid: uuid.to_owned(),
        parent,
        type_id: fs.link_name(&format!("{entry}/mdev_type"))?,
        iommu_group: group.map(|group| group.parse().map_err(|_| garbage(&group))).transpose()?,
    })
}

/// Makers of mediated devices that are no PCI functions: the kernel's samples (`mtty`, `mbochs`), with the types they make.
pub(crate) fn other_parents(fs: &HostFs, errors: &mut Vec<ProbeError>) -> BTreeMap<String, Vec<MdevType>> {
    const PARENTS: &str = "/sys/class/mdev_bus";
    let mut failed = |source: FsError| {
        errors.push(ProbeError { device: "mdev".to_owned(), what: "parents".into(), source: source.into() });
    };
    let names = match fs.entries(PARENTS).if_present() {
        Ok(names) => names.unwrap_or_default(),
        Err(error) => {
            failed(error);
            return BTreeMap::new();
        }
    };
    let mut parents = BTreeMap::new();
    for name in names.into_iter().filter(|name| name.parse::<PciAddress>().is_err()) {
        let entry = format!("{PARENTS}/{name}/mdev_supported_types");
        let types = fs.entries(&entry).and_then(|ids| {
            ids.iter().map(|id| mdev_type(fs, &format!("{entry}/{id}"), id)).collect::<Result<Vec<_>, _>>()
        });
        match types {
            Ok(types) => {
                parents.insert(name, types);
            }
            // Its driver left between the listing and here.
            Err(error) if error.is_absent() && matches!(fs.has(&format!("{PARENTS}/{name}")), Ok(false)) => {}
            Err(error) => failed(error),
        }
    }
    parents
}

/// The vGPU files of all functions that have some.
pub(crate) fn functions(
    fs: &HostFs,
    candidates: impl Iterator<Item = (PciAddress, Vec<SupportedVgpu>)>,
    errors: &mut Vec<ProbeError>,
) -> BTreeMap<PciAddress, VgpuFunction> {
    let mut found = BTreeMap::new();
    for (address, types) in candidates {
        match function(fs, address, &types) {
            Ok(Some(function)) => {
                found.insert(address, function);
            }
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vgpu(id: u32, name: &str) -> VgpuType {
        VgpuType { id, name: name.to_owned() }
    }

    #[test]
    fn both_ways_to_list_creatable_types_are_read() {
        let listed = "ID    : vGPU Name\n1414  : NVIDIA H200X-1-18C\n1428  : NVIDIA H200X-141C\n";
        assert_eq!(parse_creatable(listed).unwrap(), [vgpu(1414, "H200X-1-18C"), vgpu(1428, "H200X-141C")]);
        assert_eq!(
            parse_creatable("NVIDIA A40-2Q 558\nGRID A40-4Q  559").unwrap(),
            [vgpu(558, "A40-2Q"), vgpu(559, "A40-4Q")]
        );
        assert_eq!(parse_creatable("ID    : vGPU Name\n").unwrap(), []);
        assert_eq!(parse_creatable("").unwrap(), []);
        for garbage in ["banana", "x : NVIDIA A40-2Q", "ID    : vGPU Name\n-1 : NVIDIA A40-2Q"] {
            assert_eq!(parse_creatable(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn a_name_has_no_brand() {
        assert_eq!(bare_name("NVIDIA RTX6000-Ada-1Q"), "RTX6000-Ada-1Q");
        assert_eq!(bare_name("GRID A100D-4C"), "A100D-4C");
        assert_eq!(bare_name("H100XM-2-20C\n"), "H100XM-2-20C");
    }
}
