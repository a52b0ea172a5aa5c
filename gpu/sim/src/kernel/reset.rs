//! Resets: `reset`, `reset_method`; and functions that leave and come back: `remove`, `rescan`.

use croft_gpu::pci::PciAddress;

use super::hardware::Hardware;
use super::session::{Outcome, Session};
use super::sriov::number;
use super::{bind, boot};
use crate::driver::{self, Errno};

/// `reset`: by the first method that is enabled and works. EINVAL: anything but 1 was written. ENOTTY: there is no way.
pub(crate) fn reset(session: &mut Session, address: PciAddress, value: &str) -> Outcome {
    if number(value) != Some(1) {
        return Err(Errno::INVAL.into());
    }
    let function = session.machine.functions.get(&address).ok_or(Errno::NODEV)?;
    if !function.reset_methods.iter().any(|method| works(session, address, method)) {
        return Err(Errno::NOTTY.into());
    }
    if let Some(gpu) = session.gpu(address) {
        driver::reset(gpu);
    }
    Ok(())
}

/// `reset_method`: names in the order of trial; an empty line is none, `default` all. EINVAL: one that the function lacks.
pub(crate) fn set_methods(session: &mut Session, address: PciAddress, value: &str) -> Outcome {
    let facts = session.machine.facts(address).ok_or(Errno::NODEV)?;
    let text = value.strip_suffix('\n').unwrap_or(value);
    let methods: Vec<String> = match text {
        "default" => facts.reset_methods.iter().map(|&method| method.to_owned()).collect(),
        names => names.split_whitespace().map(str::to_owned).collect(),
    };
    if methods.iter().any(|method| !facts.reset_methods.contains(&method.as_str())) {
        return Err(Errno::INVAL.into());
    }
    if let Some(function) = session.machine.functions.get_mut(&address) {
        function.reset_methods = methods;
    }
    Ok(())
}

/// A bus reset hits every function of the bus: the kernel does it for one that is alone there.
fn works(session: &Session, address: PciAddress, method: &str) -> bool {
    let alone = session.machine.functions.keys().filter(|other| other.bus == address.bus).count() == 1;
    method != "bus" || alone
}

/// `remove`: off its driver and out of the tree, with its virtual functions.
pub(crate) fn remove(session: &mut Session, address: PciAddress, value: &str) -> Outcome {
    match number(value) {
        None => Err(Errno::INVAL.into()),
        Some(0) => Ok(()),
        Some(_) => leave(session, address),
    }
}

pub(crate) fn leave(session: &mut Session, address: PciAddress) -> Outcome {
    super::sriov::remove_all(session, address)?;
    bind::detach(session, address)?;
    let of = session.machine.functions.remove(&address).and_then(|function| function.physical);
    if let Some(sriov) = of.and_then(|of| session.machine.functions.get_mut(&of)?.sriov.as_mut()) {
        sriov.functions.retain(|function| *function != address);
    }
    Ok(())
}

/// `/sys/bus/pci/rescan`: what is plugged in and not in the tree comes back, as after a boot.
pub(crate) fn rescan(session: &mut Session, value: &str) -> Outcome {
    match number(value) {
        None => return Err(Errno::INVAL.into()),
        Some(0) => return Ok(()),
        Some(_) => {}
    }
    let hardware = Hardware::read(session.root()).map_err(|_| Errno::IO)?;
    let whole = boot::boot(&hardware, &session.machine.driver_version).map_err(|_| Errno::IO)?;
    for (address, function) in whole.functions {
        if session.machine.functions.contains_key(&address) {
            continue;
        }
        // Driver and group are for this kernel to say.
        let function = super::machine::Function { driver: None, vfio: None, group: None, ..function };
        session.machine.functions.insert(address, function);
        boot::group(&mut session.machine, &hardware);
        bind::probe(session, address);
    }
    Ok(())
}
