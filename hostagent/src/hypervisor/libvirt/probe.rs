//! KVM or emulation? Neither `/dev/kvm` nor a vCPU that ran proves enough alone.
//!
//! Under some hypervisors `/dev/kvm` is there and a vCPU even executes a few instructions, and yet no operating system
//! comes up in it. What tells such a machine apart is that its CPU does not have the virtualisation flag. On the other
//! hand a machine with the flag may have KVM disabled in its firmware. So automatic choice asks for the flag *and* for a
//! vCPU that ran; the operator can always decide otherwise.

use std::sync::mpsc;
use std::time::Duration;

use super::config::DomainTypeChoice;
use super::domain::DomainType;
use super::reasons::DOMAIN_TYPE_UNAVAILABLE;
use crate::hypervisor::Error;

/// Two instructions take microseconds.
const DEADLINE: Duration = Duration::from_secs(2);

/// What was decided, and why, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub domain_type: DomainType,
    pub reason: String,
}

/// Decides once, at start. Blocks for up to two seconds.
pub fn decide(choice: DomainTypeChoice) -> Result<Decision, Error> {
    let decided = |domain_type, reason: &str| Ok(Decision { domain_type, reason: reason.to_owned() });
    match choice {
        DomainTypeChoice::Qemu => decided(DomainType::Qemu, "asked for by --domain-type qemu"),
        DomainTypeChoice::Kvm if !std::path::Path::new("/dev/kvm").exists() => Err(Error::Refused {
            reason: DOMAIN_TYPE_UNAVAILABLE,
            message:
                "--domain-type kvm: there is no /dev/kvm; load kvm_intel or kvm_amd, or enable virtualisation in the \
                      firmware"
                    .into(),
        }),
        DomainTypeChoice::Kvm => decided(DomainType::Kvm, "asked for by --domain-type kvm"),
        DomainTypeChoice::Auto => {
            let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            Ok(weigh(&flags, run_vcpu))
        }
    }
}

/// `ran` is asked only when the flag is there.
fn weigh(cpuinfo: &str, ran: impl FnOnce() -> Result<(), String>) -> Decision {
    let qemu = |reason: String| Decision { domain_type: DomainType::Qemu, reason };
    let Some(flag) = hardware_flag(cpuinfo) else {
        return qemu("emulation: the CPU has neither vmx nor svm, so KVM would not bring up a guest".into());
    };
    match ran() {
        Ok(()) => Decision { domain_type: DomainType::Kvm, reason: format!("KVM: the CPU has {flag} and a vCPU ran") },
        Err(why) => qemu(format!("emulation: the CPU has {flag}, but no vCPU ran: {why}")),
    }
}

fn hardware_flag(cpuinfo: &str) -> Option<&'static str> {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags"))?;
    ["vmx", "svm"].into_iter().find(|flag| flags.split_whitespace().any(|word| word == *flag))
}

/// On a thread of its own: a vCPU that never returns must not take the agent along.
fn run_vcpu() -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    let body = move || {
        let _ = sender.send(vcpu::run());
    };
    std::thread::Builder::new().name("kvm-probe".into()).spawn(body).map_err(|e| e.to_string())?;
    receiver.recv_timeout(DEADLINE).map_err(|_| format!("it did not return in {} s", DEADLINE.as_secs()))?
}

#[cfg(target_arch = "x86_64")]
mod vcpu {
    use std::alloc::{Layout, alloc_zeroed, dealloc};

    use kvm_bindings::kvm_userspace_memory_region;
    use kvm_ioctls::{Kvm, VcpuExit, VmFd};

    const PAGE: usize = 4096;
    const PORT: u16 = 0x3f8;
    const BYTE: u8 = 0x42;
    /// mov dx, 0x3f8; mov al, 0x42; out dx, al; hlt
    const CODE: [u8; 7] = [0xba, 0xf8, 0x03, 0xb0, BYTE, 0xee, 0xf4];

    /// Runs a real-mode guest of four instructions and looks what it wrote to its port.
    pub fn run() -> Result<(), String> {
        let kvm = Kvm::new().map_err(|e| format!("/dev/kvm: {e}"))?;
        let vm = kvm.create_vm().map_err(|e| format!("creating a VM: {e}"))?;
        let page = Page::new().ok_or("no memory")?;
        page.load(&CODE);
        page.map(&vm)?;
        let ran = execute(&vm);
        // The VM lets go of the page before it is freed.
        drop(vm);
        drop(page);
        ran
    }

    fn execute(vm: &VmFd) -> Result<(), String> {
        let failed = |what: &'static str| move |e: kvm_ioctls::Error| format!("{what}: {e}");
        let mut vcpu = vm.create_vcpu(0).map_err(failed("creating a vCPU"))?;
        let mut special = vcpu.get_sregs().map_err(failed("reading its registers"))?;
        special.cs.base = 0;
        special.cs.selector = 0;
        vcpu.set_sregs(&special).map_err(failed("setting its registers"))?;
        let mut registers = vcpu.get_regs().map_err(failed("reading its registers"))?;
        registers.rip = 0;
        registers.rflags = 2;
        vcpu.set_regs(&registers).map_err(failed("setting its registers"))?;
        match vcpu.run().map_err(failed("running it"))? {
            VcpuExit::IoOut(PORT, &[BYTE]) => {}
            other => return Err(format!("it stopped with {other:?} instead of its first output")),
        }
        match vcpu.run().map_err(failed("running it"))? {
            VcpuExit::Hlt => Ok(()),
            other => Err(format!("it stopped with {other:?} instead of halting")),
        }
    }

    /// One page of guest memory.
    struct Page(*mut u8);

    impl Page {
        fn layout() -> Option<Layout> {
            Layout::from_size_align(PAGE, PAGE).ok()
        }

        #[expect(unsafe_code, reason = "guest memory must be page-aligned")]
        fn new() -> Option<Self> {
            // SAFETY: the layout is not empty.
            let page = unsafe { alloc_zeroed(Self::layout()?) };
            (!page.is_null()).then_some(Self(page))
        }

        #[expect(unsafe_code, reason = "guest memory is written through its address")]
        fn load(&self, code: &[u8]) {
            // SAFETY: the page is ours alone until it is mapped, and longer than the code.
            unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), self.0, code.len().min(PAGE)) };
        }

        #[expect(unsafe_code, reason = "KVM takes guest memory by address")]
        fn map(&self, vm: &VmFd) -> Result<(), String> {
            let region = kvm_userspace_memory_region {
                slot: 0,
                flags: 0,
                guest_phys_addr: 0,
                memory_size: PAGE as u64,
                userspace_addr: self.0 as u64,
            };
            // SAFETY: the page stays until the VM is dropped (see `run`).
            unsafe { vm.set_user_memory_region(region) }.map_err(|e| format!("giving it memory: {e}"))
        }
    }

    impl Drop for Page {
        #[expect(unsafe_code, reason = "pairs with the allocation")]
        fn drop(&mut self) {
            if let Some(layout) = Self::layout() {
                // SAFETY: allocated with this layout.
                unsafe { dealloc(self.0, layout) };
            }
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod vcpu {
    pub fn run() -> Result<(), String> {
        Err("Croft defines x86-64 machines, and this is none".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTEL: &str = "processor\t: 0\nvmx flags\t: vnmi\nflags\t\t: fpu vmx ssse3\n";

    #[test]
    fn either_alone_is_not_enough() {
        let kvm = weigh(INTEL, || Ok(()));
        assert_eq!(kvm.domain_type, DomainType::Kvm);
        assert!(kvm.reason.contains("vmx"), "{}", kvm.reason);

        let disabled = weigh(INTEL, || Err("EPERM".into()));
        assert_eq!(disabled.domain_type, DomainType::Qemu);
        assert!(disabled.reason.contains("EPERM"), "{}", disabled.reason);

        let pretending = weigh("flags\t\t: fpu svm_lock avmx\n", || panic!("not asked"));
        assert_eq!(pretending.domain_type, DomainType::Qemu);
        assert_eq!(weigh("", || panic!("not asked")).domain_type, DomainType::Qemu);
    }

    #[test]
    fn the_operator_may_decide() {
        assert_eq!(decide(DomainTypeChoice::Qemu).unwrap().domain_type, DomainType::Qemu);
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
