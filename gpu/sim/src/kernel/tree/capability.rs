//! `nvidia-caps`: which GPU and compute instances there are, as files that a container is given.

use croft_gpu::Node;

use super::{CAPABILITY_MAJOR, Entries};
use crate::kernel::machine::GpuView;

/// GI minor = 3 + 135·gpu + 9·gi, CI minor = GI minor + 1 + ci (read from a real `mig-minors`).
fn minor(gpu: u32, instance: u32, compute: Option<u32>) -> u32 {
    3 + 135 * gpu + 9 * instance + compute.map_or(0, |compute| 1 + compute)
}

pub(super) fn entries(entries: &mut Entries, gpu: &GpuView) {
    let GpuView { minor: number, instances, .. } = gpu;
    let mig = format!("proc/driver/nvidia/capabilities/gpu{number}/mig");
    entries.directory(&mig);
    for (instance, compute) in instances {
        access(entries, &format!("{mig}/gi{instance}"), minor(*number, *instance, None));
        for compute in compute {
            access(entries, &format!("{mig}/gi{instance}/ci{compute}"), minor(*number, *instance, Some(*compute)));
        }
    }
}

fn access(entries: &mut Entries, directory: &str, minor: u32) {
    file(entries, &format!("{directory}/access"), minor, 0o400);
}

/// `/proc/driver/nvidia/capabilities/…` and the node that it stands for.
pub(super) fn file(entries: &mut Entries, path: &str, minor: u32, mode: u32) {
    entries.text(path, format!("DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n"));
    entries.node(format!("dev/nvidia-caps/nvidia-cap{minor}"), Node::char(CAPABILITY_MAJOR, minor));
}

/// `/proc/driver/nvidia-caps/mig-minors`: every name that there could be, 4322 lines.
pub(super) fn mig_minors() -> String {
    let mut text = "config 1\nmonitor 2\n".to_owned();
    for gpu in 0..32 {
        for instance in 0..15 {
            text += &format!("gpu{gpu}/gi{instance}/access {}\n", minor(gpu, instance, None));
            for compute in 0..8 {
                let minor = minor(gpu, instance, Some(compute));
                text += &format!("gpu{gpu}/gi{instance}/ci{compute}/access {minor}\n");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn minors_are_those_of_a_real_driver() {
        let text = super::mig_minors();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4322);
        assert_eq!((lines[2], lines[11]), ("gpu0/gi0/access 3", "gpu0/gi1/access 12"));
        assert_eq!(lines[4321], "gpu31/gi14/ci7/access 4322");
    }
}
