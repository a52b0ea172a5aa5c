//! How a board is cut by MIG.

/// The two rulers of a board, and what divides them.
#[derive(Debug)]
pub struct MigShape {
    pub memory_slices: u8,
    pub compute_slices: u8,
    /// Decoders, JPEG engines and optical flow engines that GPU instances share out.
    pub engines: Engines,
    /// In the order of NVML's enumeration of profiles.
    pub profiles: &'static [MigProfile],
}

/// Media engines: those of the board, or of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Engines {
    pub decoders: u32,
    pub jpeg: u32,
    pub ofa: u32,
}

/// NVML's enumeration of GPU instance profiles: the argument of `nvmlDeviceGetGpuInstanceProfileInfo`, not the profile's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProfileKind {
    Slice1 = 0x0,
    Slice2 = 0x1,
    Slice3 = 0x2,
    Slice4 = 0x3,
    Slice7 = 0x4,
    /// `+me`
    Slice1Rev1 = 0x7,
    /// `+me`
    Slice2Rev1 = 0x8,
    /// Twice the memory.
    Slice1Rev2 = 0x9,
    /// `+gfx`
    Slice1Gfx = 0xa,
    Slice2Gfx = 0xb,
    Slice4Gfx = 0xc,
    /// `-me`
    Slice1NoMe = 0xd,
    Slice2NoMe = 0xe,
    /// `+me.all`
    Slice1AllMe = 0xf,
    Slice2AllMe = 0x10,
}

impl ProfileKind {
    /// Can graphics run in it, and with that a vGPU on boards that tell the two apart?
    #[must_use]
    pub fn graphics(self) -> bool {
        matches!(self, ProfileKind::Slice1Gfx | ProfileKind::Slice2Gfx | ProfileKind::Slice4Gfx)
    }
}

/// One kind of GPU instance.
#[derive(Debug)]
pub struct MigProfile {
    pub kind: ProfileKind,
    /// `1g.10gb+me`
    pub name: &'static str,
    /// What `nvmlDeviceCreateGpuInstance` takes.
    pub id: u32,
    pub memory_mib: u64,
    pub multiprocessors: u32,
    pub compute_slices: u8,
    /// Length of a placement.
    pub memory_slices: u8,
    pub starts: &'static [u8],
    /// The most of them at once.
    pub max: u32,
    pub copy_engines: u32,
    pub encoders: u32,
    pub engines: Engines,
}

impl MigShape {
    #[must_use]
    pub fn profile(&self, id: u32) -> Option<&'static MigProfile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }

    #[must_use]
    pub fn profile_named(&self, name: &str) -> Option<&'static MigProfile> {
        self.profiles.iter().find(|profile| profile.name == name)
    }
}
