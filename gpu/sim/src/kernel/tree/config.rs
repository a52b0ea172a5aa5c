//! Configuration space, as far as anybody looks: ids, the device serial number, the SR-IOV capability.

use crate::kernel::machine::Function;
use crate::kernel::shape::Facts;

/// Of PCI Express.
const LENGTH: usize = 0x1000;
/// Where extended capabilities begin.
const EXTENDED: usize = 0x100;
/// <linux/pci_regs.h>
const SERIAL_NUMBER: u32 = 0x0003;
const SRIOV: u32 = 0x0010;

pub(super) fn config_space(function: &Function, facts: &Facts) -> Vec<u8> {
    let mut space = vec![0; LENGTH];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    // A virtual function has no ids of its own: what sysfs says of it comes from the physical one.
    let (vendor, device) = if function.is_virtual() { (0xffff, 0xffff) } else { (facts.vendor, facts.device) };
    put(0x00, &vendor.to_le_bytes());
    put(0x02, &device.to_le_bytes());
    put(0x08, &(facts.class << 8 | u32::from(facts.revision)).to_le_bytes());
    put(0x2c, &facts.subsystem.0.to_le_bytes());
    put(0x2e, &facts.subsystem.1.to_le_bytes());

    let mut capabilities = Vec::new();
    if let Some(number) = serial_number(function, facts) {
        capabilities.push((SERIAL_NUMBER, 0x04, number.to_le_bytes().to_vec()));
    }
    if let (Some(state), Some(shape)) = (&function.sriov, function.shape.sriov()) {
        let count = state.functions.len() as u16;
        let numbers = [shape.total, shape.total, count, 0, shape.offset, shape.stride, 0, shape.device];
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        capabilities.push((SRIOV, 0x0c, bytes));
    }
    let last = capabilities.len();
    for (number, (id, offset, bytes)) in capabilities.into_iter().enumerate() {
        let at = EXTENDED + number * 0x60;
        let next = if number + 1 == last { 0 } else { at + 0x60 };
        // Version 1 of either.
        put(at, &(id | 1 << 16 | (next as u32) << 20).to_le_bytes());
        put(at + offset, &bytes);
    }
    space
}

/// Network cards and NVMe drives have one; NVIDIA's boards say who they are through their driver.
fn serial_number(function: &Function, facts: &Facts) -> Option<u64> {
    let class = facts.class >> 8;
    let has = !function.is_virtual() && (class >> 8 == 0x02 || class == 0x0108);
    // An EUI-64 of a maker that is none: the second bit of its first byte says "locally administered".
    has.then(|| 0x02c0_f7ff_fe00_0000 | u64::from(function.serial & 0x00ff_ffff))
}
