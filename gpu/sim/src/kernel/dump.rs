//! All that can change on a simulated host, as text: to compare what was with what is.

use std::fs;
use std::io;
use std::path::Path;

use super::tree::list;
use crate::state::{GpuState, Nvidia};

/// A line for each link and value below `sys`, `proc/driver` and `dev`, and a paragraph for each GPU.
///
/// Left out: the numbers that NVIDIA's driver makes up anew for an instance that comes back (its id, and what is named after it),
/// as does USB, what only counts (events, ECC), and configuration space.
pub fn dump(root: &Path) -> io::Result<String> {
    let mut text = String::new();
    for part in ["sys", "proc/driver", "dev"] {
        let mut paths = Vec::new();
        list(&root.join(part), part, &mut paths)?;
        for path in paths.iter().filter(|path| !is_made_up(path)) {
            let at = root.join(path);
            let what = fs::symlink_metadata(&at)?;
            if what.is_symlink() {
                text += &format!("{path} -> {}\n", fs::read_link(&at)?.display());
            } else if what.is_file() && !path.ends_with("/config") && !path.ends_with("/mig-minors") {
                let value = fs::read_to_string(&at)?;
                text += &format!("{path} = {}\n", value.trim_end().replace('\n', " | "));
            }
        }
    }
    let nvidia = Nvidia::read(root)?;
    for gpu in &nvidia.gpus {
        text += &of_gpu(gpu);
    }
    for partition in nvidia.fabric.iter().flat_map(|fabric| &fabric.partitions) {
        text += &format!("fabric partition {} active {}\n", partition.id, partition.active);
    }
    Ok(text)
}

fn is_made_up(path: &str) -> bool {
    let capability = path.starts_with("proc/driver/nvidia/capabilities/gpu") && path.contains("/gi");
    // Files of USB and VFIO devices are numbered in the order in which those come.
    let counted =
        path.contains("/vfio-dev/") || ["sys/dev/char/189:", "sys/dev/char/511:"].iter().any(|by| path.starts_with(by));
    capability || counted || path.starts_with("dev/nvidia-caps/") || path.ends_with("/nvidia/gpu_instance_id")
}

fn of_gpu(gpu: &GpuState) -> String {
    let GpuState { address, mig, heterogeneous, persistence, driver_loaded, lost, .. } = gpu;
    let mut text = format!(
        "gpu {address} {} driver {driver_loaded} lost {lost} persistence {persistence} mig {} pending {} heterogeneous {heterogeneous}\n",
        gpu.uuid, mig.current, mig.pending
    );
    let mut instances: Vec<_> = gpu.instances.iter().collect();
    instances.sort_by_key(|instance| instance.placement.start);
    for instance in instances {
        let compute: Vec<_> = instance
            .compute_instances
            .iter()
            .map(|compute| format!("{}@{}:{}", compute.profile, compute.placement.start, compute.placement.size))
            .collect();
        text += &format!(
            "gpu {address} instance profile {} at {}:{} heterogeneous {} compute {compute:?}\n",
            instance.profile, instance.placement.start, instance.placement.size, instance.heterogeneous
        );
    }
    for function in gpu.virtual_functions.iter().filter(|function| function.vgpu_type != 0) {
        let on = gpu.instances.iter().find(|instance| Some(instance.id) == function.owner_gi);
        let on =
            on.map_or_else(|| "the GPU".to_owned(), |instance| format!("the instance at {}", instance.placement.start));
        text += &format!("gpu {address} function {} type {} on {on}\n", function.address, function.vgpu_type);
    }
    text
}
