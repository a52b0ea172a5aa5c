//! The files that a desired image consists of, and what must be true of its description before anything is fetched.

use croft_proto::agent::v1::{DesiredImage, desired_image::Boot};
use croft_proto::v1::disk_image::Format as Declared;
use croft_proto::v1::{DiskImage, ImageFile};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::overlay::Format;
use super::source::shown_text;
use super::{Error, space};
use crate::reasons::IMAGE_FORMAT_REFUSED;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Disk,
    Kernel,
    Initrd,
}

impl Role {
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
        }
    }

    /// A qcow2 file may be a little longer than the disk in it.
    pub fn max_bytes(self, max_virtual: u64) -> u64 {
        match self {
            Self::Disk => max_virtual.saturating_add(max_virtual / 64).saturating_add(space::GIB),
            Self::Kernel => 512 << 20,
            Self::Initrd => 4 * space::GIB,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub role: Role,
    pub uri: String,
    pub sha256: String,
    /// Of a disk.
    pub format: Option<Format>,
    pub min_disk_gib: Option<u32>,
}

impl Wanted {
    /// How it is called in messages: its address without the query, which may hold a signature.
    pub fn name(&self) -> String {
        shown_text(&self.uri)
    }
}

/// The image's uid and its files.
pub fn files(image: &DesiredImage) -> Result<(Uuid, Vec<Wanted>), Error> {
    let refuse = |why: &str| Error::refused(IMAGE_FORMAT_REFUSED, format!("image {} is refused: {why}", image.name));
    // The uid becomes a directory: nothing but a UUID, in its one spelling.
    let uid = Uuid::parse_str(&image.uid).map_err(|_| refuse("its uid is not a UUID"))?;
    let file = |role: Role, file: Option<&ImageFile>| {
        let file = file.ok_or_else(|| refuse(&format!("it has no {}", role.file_name())))?;
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if file.sha256.len() != 64 || !file.sha256.chars().all(hex) {
            return Err(refuse(&format!("the sha256 of its {} is not 64 lower-case hex digits", role.file_name())));
        }
        Ok(Wanted { role, uri: file.uri.clone(), sha256: file.sha256.clone(), format: None, min_disk_gib: None })
    };
    let disk = |disk: &DiskImage| {
        let format = match disk.format() {
            Declared::Qcow2 => Format::Qcow2,
            Declared::Raw => Format::Raw,
            Declared::Unspecified => return Err(refuse("the format of its disk is not declared")),
        };
        let min_disk_gib = u32::try_from(disk.min_disk_gib).ok().filter(|gib| *gib > 0);
        Ok(Wanted { format: Some(format), min_disk_gib, ..file(Role::Disk, disk.file.as_ref())? })
    };
    let wanted = match &image.boot {
        Some(Boot::Disk(image)) => vec![disk(image)?],
        Some(Boot::Kernel(kernel)) => {
            let mut wanted = vec![file(Role::Kernel, kernel.kernel.as_ref())?];
            if kernel.initrd.as_ref().is_some_and(|initrd| !initrd.uri.is_empty()) {
                wanted.push(file(Role::Initrd, kernel.initrd.as_ref())?);
            }
            if let Some(root) = &kernel.root {
                wanted.push(disk(root)?);
            }
            wanted
        }
        None => return Err(refuse("it has neither a disk nor a kernel")),
    };
    Ok((uid, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(uid: &str, sha256: &str, format: Declared) -> DesiredImage {
        let file = ImageFile { uri: "https://images.example/x".into(), sha256: sha256.into() };
        let disk = DiskImage { file: Some(file), format: format.into(), min_disk_gib: 3 };
        DesiredImage { uid: uid.into(), name: "images/x".into(), boot: Some(Boot::Disk(disk)), ..Default::default() }
    }

    #[test]
    fn a_description_must_be_complete_before_anything_is_fetched() {
        let uid = "0190a3c5-6d3e-7000-8000-000000000001";
        let sha = "a".repeat(64);
        let (_, wanted) = files(&image(uid, &sha, Declared::Raw)).unwrap();
        assert_eq!((wanted[0].format, wanted[0].min_disk_gib), (Some(Format::Raw), Some(3)));
        for wrong in [
            image("../../etc", &sha, Declared::Raw),
            image(uid, "abc", Declared::Raw),
            image(uid, &"A".repeat(64), Declared::Raw),
            image(uid, &sha, Declared::Unspecified),
            DesiredImage { uid: uid.into(), ..Default::default() },
        ] {
            assert_eq!(files(&wrong).unwrap_err().reason, "ImageFormatRefused");
        }
    }
}
