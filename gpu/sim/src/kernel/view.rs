//! What the kernel's files show of NVIDIA's driver, read from the driver's own state.

use std::collections::BTreeMap;

use super::drivers;
use super::machine::{GpuView, Machine, VgpuView};
use crate::driver;
use crate::state::{Flavour, GpuState, Nvidia};

/// Brings what the machine shows of its GPUs up to the driver's state.
pub(crate) fn look(machine: &mut Machine, nvidia: &Nvidia) {
    machine.flavour = nvidia.driver.flavour;
    machine.driver_version.clone_from(&nvidia.driver.version);
    machine.gpus = nvidia
        .gpus
        .iter()
        .filter(|gpu| machine.functions.get(&gpu.address).is_some_and(|function| function.is_on(drivers::NVIDIA)))
        .map(|gpu| (gpu.address, view(machine, gpu)))
        .collect();
}

fn view(machine: &Machine, gpu: &GpuState) -> GpuView {
    let on_nvidia = |address| machine.functions.get(address).is_some_and(|function| function.is_on(drivers::NVIDIA));
    let creatable = |function| {
        let types = driver::creatable_types(gpu, function).into_iter();
        types.map(|(vgpu, count)| (vgpu.id, count)).collect::<BTreeMap<_, _>>()
    };
    let functions = gpu.virtual_functions.iter().filter(|vf| on_nvidia(&vf.address));
    let mut functions: BTreeMap<_, _> = functions
        .map(|vf| {
            let creatable = creatable(vf.address);
            (vf.address, VgpuView { current: vf.vgpu_type, instance: vf.owner_gi, creatable })
        })
        .collect();
    // Without functions there are no vendor's files: vGPUs of such a board are mediated devices or none.
    functions.remove(&gpu.address);
    if machine.flavour == Flavour::VgpuMdev && driver::is_own_parent(gpu) {
        let creatable = creatable(gpu.address);
        functions.insert(gpu.address, VgpuView { current: 0, instance: None, creatable });
    }
    let types = match machine.flavour.makes_vgpus() && !functions.is_empty() {
        true => driver::supported_types(gpu).map(|vgpu| (vgpu.id, format!("NVIDIA {}", vgpu.name))).collect(),
        false => BTreeMap::new(),
    };
    let instances = gpu.instances.iter().map(|instance| {
        let compute = instance.compute_instances.iter().map(|compute| compute.id).collect();
        (instance.id, compute)
    });
    GpuView {
        minor: gpu.minor,
        uuid: gpu.uuid.clone(),
        unbind_locked: gpu.unbind_locked,
        product: gpu.shape().product.to_owned(),
        vbios: gpu.shape().vbios.to_owned(),
        instances: instances.collect(),
        types,
        functions,
    }
}
