//! Other managers of the same machine or the same GPUs.

use super::super::{Check, Found};
use crate::facts::Facts;
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "other-software",
    looks_at: "processes and files of GPU Operator, NVIDIA's device plugin, DCGM, OpenStack, Proxmox, CloudStack, OpenNebula, Incus, Xen",
    why: "two managers that both move drivers and start guests undo each other's work",
    worst: Level::Warn,
    role: None,
    look,
};

enum Sign {
    /// As far as the kernel keeps names of processes: 15 bytes.
    Process(&'static str),
    File(&'static str),
}

/// Whose sign it is, the sign, what to do.
const SIGNS: [(&str, Sign, &str); 13] = [
    ("NVIDIA GPU Operator", Sign::File("/run/nvidia/validations"), OPERATOR),
    ("NVIDIA GPU Operator's driver container", Sign::File("/run/nvidia/driver/usr"), OPERATOR),
    ("NVIDIA's Kubernetes device plugin", Sign::File("/var/lib/kubelet/device-plugins/nvidia-gpu.sock"), OPERATOR),
    ("NVIDIA's Kubernetes device plugin", Sign::Process("nvidia-device-p"), OPERATOR),
    ("KubeVirt's handler", Sign::Process("virt-handler"), TAKE_OUT),
    ("DCGM", Sign::Process("nv-hostengine"), "stop nvidia-dcgm: MIG mode does not change while it has a GPU open"),
    ("OpenStack Nova", Sign::Process("nova-compute"), TAKE_OUT),
    ("Proxmox VE", Sign::Process("pvedaemon"), TAKE_OUT),
    ("CloudStack's agent", Sign::File("/etc/cloudstack/agent/agent.properties"), TAKE_OUT),
    ("OpenNebula's node", Sign::File("/etc/libvirt/hooks/opennebula"), TAKE_OUT),
    ("Incus", Sign::Process("incusd"), TAKE_OUT),
    ("LXD", Sign::Process("lxd"), TAKE_OUT),
    ("Xen", Sign::File("/proc/xen/capabilities"), "boot the kernel without Xen: KVM does not work under it"),
];

const OPERATOR: &str =
    "keep it off this host: label the node nvidia.com/gpu.deploy.operands=false, or take the host out of the cluster";
const TAKE_OUT: &str =
    "take the host out of it first, or give it GPUs that are foreign in the host's layout (docs/devices.md)";

fn look(facts: &Facts) -> Found {
    let processes = facts.processes()?;
    let mut findings: Vec<Finding> = Vec::new();
    for (who, sign, fix) in SIGNS {
        let found = match sign {
            Sign::Process(name) => processes.get(name).map(|pid| format!("{who} runs (pid {pid})")),
            Sign::File(path) => facts.fs.has(path).unwrap_or(false).then(|| format!("{who} ({path})")),
        };
        findings.extend(found.map(|found| Finding::warn("host", found, fix)));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("host", "none known"));
    }
    Ok(findings)
}
