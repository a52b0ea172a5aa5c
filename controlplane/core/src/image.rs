//! Images: what instances boot from. Their bytes never change. Sources are hostile until a host has verified them.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::id::{HostId, ImageUid, TenantId};
use crate::meta::Meta;
use crate::validate::{Violations, is_sha256};

pub const ID_MAX: usize = 63;
/// In GiB; what a disk image may claim to be.
pub const MIN_DISK_MAX_GIB: i64 = 64 * 1024;
pub const CMDLINE_MAX: usize = 2048;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub uid: ImageUid,
    pub meta: Meta,
    /// `None`: the platform's, for every tenant.
    pub tenant: Option<TenantId>,
    pub id: String,
    pub description: String,
    pub boot: Boot,
    pub firmware: Firmware,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boot {
    Disk(DiskImage),
    Kernel { kernel: File, initrd: Option<File>, root: Option<DiskImage>, cmdline: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskImage {
    pub file: File,
    pub format: Format,
    pub min_disk_gib: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub uri: String,
    pub sha256: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    Qcow2,
    Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Firmware {
    Uefi,
    Bios,
}

/// How one host stands with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    pub host: HostId,
    pub state: CopyState,
    pub bytes_done: i64,
    pub bytes_total: i64,
    pub reason: String,
    pub message: String,
}

#[derive(Debug, Clone, std::marker::Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyState {
    Fetching,
    Ready,
    Failed,
}

impl Image {
    #[must_use]
    pub fn name(&self) -> String {
        match &self.tenant {
            None => format!("images/{}", self.id),
            Some(tenant) => format!("tenants/{tenant}/images/{}", self.id),
        }
    }

    /// The least root disk, in GiB; 0 when the image brings none.
    #[must_use]
    pub fn min_disk_gib(&self) -> i64 {
        match &self.boot {
            Boot::Disk(disk) => disk.min_disk_gib,
            Boot::Kernel { root, .. } => root.as_ref().map_or(0, |disk| disk.min_disk_gib),
        }
    }
}

/// Who registers decides which sources are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registrar {
    /// `https://` and `file://`
    PlatformAdmin,
    /// `https://` alone
    Tenant,
}

pub fn check(boot: &Boot, registrar: Registrar) -> Result<()> {
    let mut violations = Violations::new();
    match boot {
        Boot::Disk(disk) => check_disk("image.disk", disk, registrar, &mut violations),
        Boot::Kernel { kernel, initrd, root, cmdline } => {
            check_file("image.kernel.kernel", kernel, registrar, &mut violations);
            if let Some(initrd) = initrd {
                check_file("image.kernel.initrd", initrd, registrar, &mut violations);
            }
            if let Some(disk) = root {
                check_disk("image.kernel.root", disk, registrar, &mut violations);
            }
            violations.check(
                cmdline.len() <= CMDLINE_MAX && !cmdline.chars().any(char::is_control),
                "image.kernel.cmdline",
                format!("at most {CMDLINE_MAX} bytes on one line"),
            );
        }
    }
    violations.finish()
}

fn check_disk(field: &str, disk: &DiskImage, registrar: Registrar, violations: &mut Violations) {
    check_file(&format!("{field}.file"), &disk.file, registrar, violations);
    violations.check(
        (1..=MIN_DISK_MAX_GIB).contains(&disk.min_disk_gib),
        &format!("{field}.min_disk_gib"),
        format!("1 to {MIN_DISK_MAX_GIB} GiB: the image's virtual size, rounded up"),
    );
}

fn check_file(field: &str, file: &File, registrar: Registrar, violations: &mut Violations) {
    violations.check(is_sha256(&file.sha256), &format!("{field}.sha256"), "64 lower-case hex digits");
    let uri = format!("{field}.uri");
    if file.uri.len() > 2048 || !file.uri.chars().all(|c| c.is_ascii_graphic()) {
        violations.add(uri, "at most 2048 printable ASCII characters, no blanks");
    } else if let Some(path) = file.uri.strip_prefix("file://") {
        if registrar == Registrar::Tenant {
            violations.add(uri, "file:// is for platform images, registered by platform admins; use https://");
        } else if !path.starts_with('/') || path.split('/').any(|part| part == ".." || part == ".") {
            violations.add(uri, "an absolute path below the hosts' --image-dir, without . and ..");
        }
    } else if let Some(rest) = file.uri.strip_prefix("https://") {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        violations.check(!host.is_empty(), &uri, "names no host");
        violations.check(!host.contains('@'), &uri, "credentials in the URI are not supported");
    } else {
        violations.add(uri, "https:// (or file:// for platform admins)");
    }
}
