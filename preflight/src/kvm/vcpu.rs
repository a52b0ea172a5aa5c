//! A real-mode guest of four instructions: the least that shows a vCPU running.

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
