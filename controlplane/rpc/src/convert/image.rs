//! Images: what they are made of, and how hosts stand with them.

use croft_core::Result;
use croft_core::image::{Boot, Copy, CopyState, DiskImage, File, Firmware, Format, Image};
use croft_core::validate::Violations;
use croft_proto::v1;

use super::meta;

#[must_use]
pub fn out(image: &Image, copies: &[Copy]) -> v1::Image {
    v1::Image {
        name: image.name(),
        metadata: Some(meta::out(&image.meta)),
        description: image.description.clone(),
        boot: Some(boot_out(&image.boot)),
        copies: copies.iter().map(copy_out).collect(),
        firmware: firmware_out(image.firmware).into(),
    }
}

#[must_use]
pub fn boot_out(boot: &Boot) -> v1::image::Boot {
    match boot {
        Boot::Disk(disk) => v1::image::Boot::Disk(disk_out(disk)),
        Boot::Kernel { kernel, initrd, root, cmdline } => v1::image::Boot::Kernel(v1::KernelImage {
            kernel: Some(file_out(kernel)),
            initrd: initrd.as_ref().map(file_out),
            root: root.as_ref().map(disk_out),
            cmdline: cmdline.clone(),
        }),
    }
}

#[must_use]
pub fn disk_out(disk: &DiskImage) -> v1::DiskImage {
    let format = match disk.format {
        Format::Qcow2 => v1::disk_image::Format::Qcow2,
        Format::Raw => v1::disk_image::Format::Raw,
    };
    v1::DiskImage {
        file: Some(file_out(&disk.file)),
        format: format.into(),
        min_disk_gib: i32::try_from(disk.min_disk_gib).unwrap_or(i32::MAX),
    }
}

fn file_out(file: &File) -> v1::ImageFile {
    v1::ImageFile { uri: file.uri.clone(), sha256: file.sha256.clone() }
}

#[must_use]
pub fn firmware_out(firmware: Firmware) -> v1::image::Firmware {
    match firmware {
        Firmware::Uefi => v1::image::Firmware::Uefi,
        Firmware::Bios => v1::image::Firmware::Bios,
    }
}

/// Shape only: whether the source is allowed is core's to say, which knows who registers.
pub fn boot_into(boot: Option<v1::image::Boot>) -> Result<Boot> {
    let mut violations = Violations::new();
    let boot = match boot {
        None => {
            violations.add("image.disk", "set disk or kernel: what the instance boots from");
            None
        }
        Some(v1::image::Boot::Disk(disk)) => disk_into("image.disk", disk, &mut violations).map(Boot::Disk),
        Some(v1::image::Boot::Kernel(v1::KernelImage { kernel, initrd, root, cmdline })) => {
            let kernel = file_into("image.kernel.kernel", kernel, &mut violations);
            let initrd = initrd.map(|v1::ImageFile { uri, sha256 }| File { uri, sha256 });
            let root = root.and_then(|disk| disk_into("image.kernel.root", disk, &mut violations));
            kernel.map(|kernel| Boot::Kernel { kernel, initrd, root, cmdline })
        }
    };
    violations.finish()?;
    boot.ok_or_else(|| croft_core::Error::invalid("image", "names no boot source"))
}

fn disk_into(field: &str, disk: v1::DiskImage, violations: &mut Violations) -> Option<DiskImage> {
    let format = match disk.format() {
        v1::disk_image::Format::Qcow2 => Some(Format::Qcow2),
        v1::disk_image::Format::Raw => Some(Format::Raw),
        v1::disk_image::Format::Unspecified => {
            violations.add(format!("{field}.format"), "QCOW2 or RAW: declared, never probed");
            None
        }
    };
    let min_disk_gib = i64::from(disk.min_disk_gib);
    let file = file_into(&format!("{field}.file"), disk.file, violations);
    Some(DiskImage { file: file?, format: format?, min_disk_gib })
}

fn file_into(field: &str, file: Option<v1::ImageFile>, violations: &mut Violations) -> Option<File> {
    if file.is_none() {
        violations.add(field, "is missing");
    }
    file.map(|v1::ImageFile { uri, sha256 }| File { uri, sha256 })
}

/// UEFI unless said otherwise.
pub fn firmware_into(firmware: i32, violations: &mut Violations) -> Firmware {
    match v1::image::Firmware::try_from(firmware) {
        Ok(v1::image::Firmware::Uefi | v1::image::Firmware::Unspecified) => Firmware::Uefi,
        Ok(v1::image::Firmware::Bios) => Firmware::Bios,
        Err(_) => {
            violations.add("image.firmware", format!("UEFI or BIOS, not {firmware}"));
            Firmware::Uefi
        }
    }
}

fn copy_out(copy: &Copy) -> v1::image::HostCopy {
    use v1::image::host_copy::State;
    let state = match copy.state {
        CopyState::Fetching => State::Fetching,
        CopyState::Ready => State::Ready,
        CopyState::Failed => State::Failed,
    };
    v1::image::HostCopy {
        host: format!("hosts/{}", copy.host),
        state: state.into(),
        bytes_done: copy.bytes_done,
        bytes_total: copy.bytes_total,
        reason: copy.reason.clone(),
        message: copy.message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> File {
        File { uri: format!("https://example.org/{name}"), sha256: "0".repeat(64) }
    }

    fn disk(format: Format) -> DiskImage {
        DiskImage { file: file("disk"), format, min_disk_gib: 3 }
    }

    #[test]
    fn boot_sources_come_back_as_they_went() {
        let kernel = |initrd, root| Boot::Kernel { kernel: file("k"), initrd, root, cmdline: "quiet".into() };
        for boot in [
            Boot::Disk(disk(Format::Qcow2)),
            Boot::Disk(disk(Format::Raw)),
            kernel(None, None),
            kernel(Some(file("i")), Some(disk(Format::Raw))),
        ] {
            assert_eq!(boot_into(Some(boot_out(&boot))), Ok(boot));
        }
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let bare = v1::image::Boot::Disk(v1::DiskImage::default());
        let error = boot_into(Some(bare)).unwrap_err().to_string();
        assert!(error.contains("image.disk.format") && error.contains("image.disk.file"), "{error}");
        let bare =
            v1::image::Boot::Kernel(v1::KernelImage { root: Some(v1::DiskImage::default()), ..Default::default() });
        let error = boot_into(Some(bare)).unwrap_err().to_string();
        for field in ["image.kernel.kernel", "image.kernel.root.format", "image.kernel.root.file"] {
            assert!(error.contains(field), "{field} in {error}");
        }
        assert!(boot_into(None).unwrap_err().to_string().starts_with("image.disk"));
    }

    #[test]
    fn firmware_is_uefi_unless_said_otherwise() {
        let mut violations = Violations::new();
        assert_eq!(firmware_into(0, &mut violations), Firmware::Uefi);
        for firmware in [Firmware::Uefi, Firmware::Bios] {
            assert_eq!(firmware_into(firmware_out(firmware).into(), &mut violations), firmware);
        }
        assert!(violations.finish().is_ok());
        let mut violations = Violations::new();
        firmware_into(9, &mut violations);
        assert!(violations.finish().is_err());
    }
}
