//! The words that this module adds to [`crate::reasons`], one per way of being refused.

/// The file does not begin as a qcow2 file does, though it was declared as one.
pub const IMAGE_NOT_QCOW2: &str = "ImageNotQcow2";
/// A qcow2 version other than 2 and 3.
pub const IMAGE_VERSION_UNSUPPORTED: &str = "ImageVersionUnsupported";
/// It names a backing file: it would read some other file of this host.
pub const IMAGE_HAS_BACKING_FILE: &str = "ImageHasBackingFile";
/// It keeps its data in another file of this host.
pub const IMAGE_HAS_DATA_FILE: &str = "ImageHasDataFile";
pub const IMAGE_ENCRYPTED: &str = "ImageEncrypted";
/// Its header asks for a feature that a reader must understand and this one does not.
pub const IMAGE_FEATURE_UNKNOWN: &str = "ImageFeatureUnknown";
/// It says of itself that it is damaged or was not closed.
pub const IMAGE_CORRUPT: &str = "ImageCorrupt";
/// Numbers in its header contradict each other or the file.
pub const IMAGE_HEADER_INVALID: &str = "ImageHeaderInvalid";
pub const IMAGE_HAS_SNAPSHOTS: &str = "ImageHasSnapshots";
/// Its disk is larger than this host allows any image to be.
pub const IMAGE_TOO_LARGE: &str = "ImageTooLarge";
/// A raw file that is not a whole number of sectors.
pub const IMAGE_NOT_A_DISK: &str = "ImageNotADisk";
/// A local path that is not a regular file below the image directory.
pub const IMAGE_PATH_REFUSED: &str = "ImagePathRefused";
/// Not enough room on the file system of images and disks.
pub const DISK_FULL: &str = "DiskFull";
/// A file of this host could not be read or written.
pub const MEDIA_IO: &str = "MediaIo";
/// A tool (qemu-img) is missing or failed.
pub const DISK_TOOL_FAILED: &str = "DiskToolFailed";

pub const ALL: &[&str] = &[
    IMAGE_NOT_QCOW2,
    IMAGE_VERSION_UNSUPPORTED,
    IMAGE_HAS_BACKING_FILE,
    IMAGE_HAS_DATA_FILE,
    IMAGE_ENCRYPTED,
    IMAGE_FEATURE_UNKNOWN,
    IMAGE_CORRUPT,
    IMAGE_HEADER_INVALID,
    IMAGE_HAS_SNAPSHOTS,
    IMAGE_TOO_LARGE,
    IMAGE_NOT_A_DISK,
    IMAGE_PATH_REFUSED,
    DISK_FULL,
    MEDIA_IO,
    DISK_TOOL_FAILED,
];
