//! A PCI function as its configuration space shows it.

/// What a function is, wherever it is plugged in.
#[derive(Debug)]
pub struct PciShape {
    pub vendor: u16,
    pub device: u16,
    pub subsystem: (u16, u16),
    /// Base class, subclass and interface: 0x030200.
    pub class: u32,
    pub revision: u8,
    pub bars: &'static [BarSize],
    /// The driver that takes it by its id.
    pub driver: Option<&'static str>,
    /// In the kernel's order: `flr`, `bus`.
    pub reset_methods: &'static [&'static str],
    /// `32.0 GT/s PCIe`
    pub link_speed: &'static str,
    pub link_width: u8,
    pub sriov: Option<SriovShape>,
}

#[derive(Clone, Copy, Debug)]
pub struct BarSize {
    /// 0 to 5.
    pub index: u8,
    pub bytes: u64,
    pub space: Space,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Io,
    Memory32,
    /// Prefetchable, as every large BAR is.
    Memory64,
}

/// How the virtual functions of a function are numbered and named.
#[derive(Clone, Copy, Debug)]
pub struct SriovShape {
    pub total: u16,
    /// Routing ids from the physical function to its first virtual one, and from one to the next.
    pub offset: u16,
    pub stride: u16,
    pub device: u16,
    /// The driver that takes a virtual function by its id.
    pub driver: Option<&'static str>,
    pub reset_methods: &'static [&'static str],
    pub made_by: MadeBy,
}

/// Who makes the virtual functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeBy {
    /// A write to `sriov_numvfs`.
    Numvfs,
    /// NVIDIA's `sriov-manage`; the driver has no `sriov_configure`, and the write is refused.
    SriovManage,
}
