//! Does hardware virtualisation work?

use super::super::{Check, Found};
use crate::facts::{Facts, User};
use crate::finding::{Finding, Level};
use crate::kvm;

pub(in crate::check) const CHECK: Check = Check {
    id: "kvm",
    looks_at: "the CPU's vmx or svm, KVM in /proc/misc, and a vCPU that ran four instructions",
    why: "without KVM guests are emulated: ten times slower and more",
    worst: Level::Fail,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    let cpuinfo = facts.fs.read("/proc/cpuinfo")?;
    let no_kvm = || Err("the kernel has no KVM at present".to_owned());
    let ran = || facts.asked.kvm.clone().unwrap_or_else(no_kvm);
    Ok(vec![match kvm::weigh(&cpuinfo, ran) {
        Ok(flag) => Finding::ok("host", format!("works: the CPU has {flag}, and a vCPU ran")),
        // Of /dev/kvm, whose group others are not in.
        Err(why) if facts.asked.user == User::Other && why.contains("Permission denied") => {
            Finding::warn("host", format!("not seen: {why}"), "run it as root: sudo croft host preflight")
        }
        Err(why) => Finding::fail("host", why, fix(&cpuinfo)),
    }])
}

fn fix(cpuinfo: &str) -> &'static str {
    let amd = cpuinfo.contains("AuthenticAMD");
    match (cpuinfo.contains(" vmx") || cpuinfo.contains(" svm"), amd) {
        (true, false) => "load kvm_intel; if it refuses, turn VT-x on in the firmware's setup",
        (true, true) => "load kvm_amd; if it refuses, turn SVM on in the firmware's setup",
        (false, _) => {
            "turn VT-x or SVM on in the firmware's setup; in a virtual machine let its hypervisor nest. To try Croft out \
             without it: croft-hostagent run --domain-type qemu"
        }
    }
}
