//! Does KVM work here? Neither `/dev/kvm` nor a vCPU that ran proves enough alone.
//!
//! Under some hypervisors `/dev/kvm` is there and a vCPU even executes a few instructions, and yet no operating system
//! comes up in it. What tells such a machine apart is that its CPU does not have the virtualisation flag. On the other
//! hand a machine with the flag may have KVM disabled in its firmware. So [`weigh`] asks for the flag *and* for a vCPU that ran.

#[cfg(target_arch = "x86_64")]
mod vcpu;

use std::sync::mpsc;
use std::time::Duration;

/// Two instructions take microseconds.
const DEADLINE: Duration = Duration::from_secs(2);

/// The flag, of a CPU on which KVM works; else why it does not. `ran` is asked only when the flag is there.
pub fn weigh(cpuinfo: &str, ran: impl FnOnce() -> Result<(), String>) -> Result<&'static str, String> {
    let Some(flag) = hardware_flag(cpuinfo) else {
        return Err("the CPU has neither vmx nor svm, so KVM would not bring up a guest".to_owned());
    };
    ran().map(|()| flag).map_err(|why| format!("the CPU has {flag}, but no vCPU ran: {why}"))
}

fn hardware_flag(cpuinfo: &str) -> Option<&'static str> {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags"))?;
    ["vmx", "svm"].into_iter().find(|flag| flags.split_whitespace().any(|word| word == *flag))
}

/// Opens `/dev/kvm`, which loads a module where it is only a name: look into `/proc/misc` first if that matters. On a thread of
/// its own: a vCPU that never returns must not take the caller along. Blocks for up to two seconds.
pub fn run_vcpu() -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    let body = move || {
        let _ = sender.send(run());
    };
    std::thread::Builder::new().name("kvm-probe".into()).spawn(body).map_err(|e| e.to_string())?;
    receiver.recv_timeout(DEADLINE).map_err(|_| format!("it did not return in {} s", DEADLINE.as_secs()))?
}

#[cfg(target_arch = "x86_64")]
use vcpu::run;

#[cfg(not(target_arch = "x86_64"))]
fn run() -> Result<(), String> {
    Err("Croft defines x86-64 machines, and this is none".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: &str = "processor\t: 0\nvmx flags\t: vnmi\nflags\t\t: fpu vmx ssse3\n";

    #[test]
    fn either_alone_is_not_enough() {
        assert_eq!(weigh(INTEL, || Ok(())), Ok("vmx"));
        let disabled = weigh(INTEL, || Err("EPERM".into())).unwrap_err();
        assert!(disabled.contains("vmx") && disabled.contains("EPERM"), "{disabled}");
        assert!(weigh("flags\t\t: fpu svm_lock avmx\n", || panic!("not asked")).is_err());
        assert!(weigh("", || panic!("not asked")).is_err());
    }

    #[test]
    fn a_vcpu_runs_where_kvm_lets_it() {
        if std::fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
            eprintln!("skipped: /dev/kvm cannot be opened here");
            return;
        }
        assert_eq!(run_vcpu(), Ok(()));
    }
}
