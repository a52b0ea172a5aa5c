//! Hardware that goes wrong: Xid, ECC, a GPU that falls off the bus.

use croft_gpu::pci::PciAddress;

use crate::state::{Event, EventKind, Nvidia};

/// "GPU has fallen off the bus".
const XID_OFF_THE_BUS: u64 = 79;

/// Old ones are forgotten: a listener that slept so long has missed them on a real host, too.
const KEPT: usize = 64;

/// Something has happened to `gpu`: whoever listens hears of it, and its counters show it.
pub fn raise(nvidia: &mut Nvidia, address: PciAddress, kind: EventKind) {
    let Some(gpu) = nvidia.gpu_mut(address) else { return };
    match kind {
        EventKind::Xid(XID_OFF_THE_BUS) => gpu.lost = true,
        EventKind::Xid(_) => {}
        EventKind::EccSingleBit => {
            gpu.ecc.volatile_corrected += 1;
            gpu.ecc.aggregate_corrected += 1;
        }
        EventKind::EccDoubleBit => {
            gpu.ecc.volatile_uncorrected += 1;
            gpu.ecc.aggregate_uncorrected += 1;
            gpu.ecc.remapped_rows_uncorrected += 1;
            gpu.ecc.remap_pending = true;
        }
    }
    let number = nvidia.events.last().map_or(1, |event| event.number + 1);
    nvidia.events.push(Event { number, gpu: address, kind });
    let old = nvidia.events.len().saturating_sub(KEPT);
    nvidia.events.drain(..old);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boards::H100_SXM_80GB;
    use crate::driver::reset;
    use crate::state::{Flavour, GpuState};

    #[test]
    fn a_gpu_that_goes_wrong_shows_it_and_its_neighbour_does_not() {
        let (ill, well) = ("0000:41:00.0".parse().unwrap(), "0000:42:00.0".parse().unwrap());
        let mut host = Nvidia::new(Flavour::Datacenter);
        host.gpus = [ill, well].map(|address| GpuState::new(&H100_SXM_80GB, address, 0)).to_vec();
        raise(&mut host, ill, EventKind::EccDoubleBit);
        raise(&mut host, ill, EventKind::Xid(79));
        let gpu = host.gpu(ill).unwrap();
        assert!(gpu.lost && gpu.ecc.remap_pending && gpu.ecc.volatile_uncorrected == 1);
        assert_eq!(host.gpu(well).unwrap(), &GpuState::new(&H100_SXM_80GB, well, 0));
        assert_eq!(host.events.iter().map(|event| event.number).collect::<Vec<_>>(), [1, 2]);

        let gpu = host.gpu_mut(ill).unwrap();
        reset(gpu);
        assert!(!gpu.lost && !gpu.ecc.remap_pending && gpu.ecc.aggregate_uncorrected == 1);
        (0..100).for_each(|_| raise(&mut host, well, EventKind::EccSingleBit));
        assert_eq!((host.events.len(), host.events.last().unwrap().number), (64, 102));
    }
}
