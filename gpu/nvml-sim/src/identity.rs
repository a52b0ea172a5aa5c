//! Which GPU it is, and where.

use std::ffi::{c_char, c_uint};

use croft_gpu_sim::driver::{Return, mig_shape};
use nvml_wrapper_sys::bindings::{
    nvmlBrandType_t, nvmlBusType_t, nvmlDevice_t, nvmlDeviceArchitecture_t, nvmlPciInfo_t, nvmlPciInfoExt_t,
};

use crate::c::{export, field};
use crate::call::View;
use crate::system::small;

/// NVML_BUS_TYPE_PCIE
const PCIE: nvmlBusType_t = 2;
/// NVML_BRAND_NVIDIA
const NVIDIA: nvmlBrandType_t = 14;

export! {
    fn nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint) |call| {
        let (gpu, mig) = call.device(device)?;
        let product = gpu.shape().product;
        let text = match mig {
            None => product.to_owned(),
            Some((gi, _)) => {
                let profile = mig_shape(&gpu)?.profile(gpu.instance(gi)?.profile).ok_or(Return::NotFound)?;
                format!("{product} MIG {}", profile.name)
            }
        };
        Ok(name.text(length, &text)?)
    }

    fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) |call| {
        let (gpu, mig) = call.device(device)?;
        match mig {
            None => Ok(uuid.text(length, &gpu.uuid)?),
            Some((gi, ci)) => Ok(uuid.text(length, &gpu.compute_instance(gi, ci)?.uuid)?),
        }
    }

    fn nvmlDeviceGetSerial(device: nvmlDevice_t, serial: *mut c_char, length: c_uint) |call| {
        Ok(serial.text(length, &call.gpu(device)?.serial)?)
    }

    fn nvmlDeviceGetBoardPartNumber(device: nvmlDevice_t, number: *mut c_char, length: c_uint) |call| {
        Ok(number.text(length, call.gpu(device)?.shape().part_number)?)
    }

    fn nvmlDeviceGetVbiosVersion(device: nvmlDevice_t, version: *mut c_char, length: c_uint) |call| {
        Ok(version.text(length, call.gpu(device)?.shape().vbios)?)
    }

    fn nvmlDeviceGetInforomImageVersion(device: nvmlDevice_t, version: *mut c_char, length: c_uint) |call| {
        Ok(version.text(length, call.gpu(device)?.shape().inforom)?)
    }

    fn nvmlDeviceGetMinorNumber(device: nvmlDevice_t, minor: *mut c_uint) |call| {
        Ok(minor.put(call.gpu(device)?.minor)?)
    }

    fn nvmlDeviceGetIndex(device: nvmlDevice_t, index: *mut c_uint) |call| {
        Ok(index.put(small(call.gpu(device)?.index()))?)
    }

    fn nvmlDeviceGetBrand(device: nvmlDevice_t, brand: *mut nvmlBrandType_t) |call| {
        call.gpu(device)?;
        Ok(brand.put(NVIDIA)?)
    }

    fn nvmlDeviceGetArchitecture(device: nvmlDevice_t, architecture: *mut nvmlDeviceArchitecture_t) |call| {
        Ok(architecture.put(call.gpu(device)?.shape().architecture as u32)?)
    }

    fn nvmlDeviceGetBusType(device: nvmlDevice_t, bus_type: *mut nvmlBusType_t) |call| {
        call.gpu(device)?;
        Ok(bus_type.put(PCIE)?)
    }

    fn nvmlDeviceGetMultiGpuBoard(device: nvmlDevice_t, several: *mut c_uint) |call| {
        call.gpu(device)?;
        Ok(several.put(0)?)
    }

    /// By its place: the board at 00:06.0 was 0x6.
    fn nvmlDeviceGetBoardId(device: nvmlDevice_t, id: *mut c_uint) |call| {
        let at = call.gpu(device)?.address;
        Ok(id.put(at.domain << 16 | u32::from(at.bus) << 8 | u32::from(at.device))?)
    }

    fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, info: *mut nvmlPciInfo_t) |call| {
        let gpu = call.gpu(device)?;
        let at = gpu.address;
        let (device_id, subsystem_id) = ids(&gpu);
        Ok(info.put(nvmlPciInfo_t {
            busIdLegacy: field(&format!("{:04X}:{:02X}:{:02X}.0", at.domain, at.bus, at.device)),
            domain: at.domain,
            bus: at.bus.into(),
            device: at.device.into(),
            pciDeviceId: device_id,
            pciSubSystemId: subsystem_id,
            busId: field(&format!("{:08X}:{:02X}:{:02X}.0", at.domain, at.bus, at.device)),
        })?)
    }

    fn nvmlDeviceGetPciInfoExt(device: nvmlDevice_t, info: *mut nvmlPciInfoExt_t) |call| {
        let gpu = call.gpu(device)?;
        let info = info.versioned::<nvmlPciInfoExt_t>(1)?;
        let (at, class) = (gpu.address, gpu.board().pci.class);
        let (device_id, subsystem_id) = ids(&gpu);
        Ok(info.put(nvmlPciInfoExt_t {
            version: info.get()?.version,
            domain: at.domain,
            bus: at.bus.into(),
            device: at.device.into(),
            pciDeviceId: device_id,
            pciSubSystemId: subsystem_id,
            baseClass: class >> 16,
            subClass: class >> 8 & 0xff,
            busId: field(&format!("{:08X}:{:02X}:{:02X}.0", at.domain, at.bus, at.device)),
        })?)
    }
}

/// Device above vendor, as mig-parted filters them: 0x233010de.
fn ids(gpu: &View) -> (u32, u32) {
    let pci = &gpu.board().pci;
    let packed = |vendor: u16, device: u16| u32::from(device) << 16 | u32::from(vendor);
    (packed(pci.vendor, pci.device), packed(pci.subsystem.0, pci.subsystem.1))
}
