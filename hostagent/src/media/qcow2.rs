//! A qcow2 header, read by us before any tool opens the file.
//!
//! A qcow2 file can name other files of the host (a backing file, a data file) and a tool that opens it reads them: that
//! is how a tenant would get the host's disk. So everything that points outside, and everything that this reader does not
//! know, is refused, each with its own reason. Follows QEMU's `docs/interop/qcow2.txt`.
//!
//! Reads the header, its extensions and nothing else: tables that lie about data *inside* the file harm only the guest
//! that boots from it.

use std::io::{self, Read, Seek, SeekFrom};

use super::{Error, reasons};

const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Length of a version 2 header; a version 3 header is at least [`V3_LENGTH`].
const V2_LENGTH: u64 = 72;
const V3_LENGTH: u64 = 104;
/// QEMU's own bounds (block/qcow2.h).
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
const MAX_L1_BYTES: u64 = 32 << 20;
const MAX_REFCOUNT_TABLE_BYTES: u64 = 8 << 20;
/// A header and its extensions fit one cluster, and real ones a fraction of this.
const MAX_EXTENSIONS: usize = 64;

mod incompatible {
    pub const DIRTY: u64 = 1 << 0;
    pub const CORRUPT: u64 = 1 << 1;
    pub const DATA_FILE: u64 = 1 << 2;
    pub const COMPRESSION: u64 = 1 << 3;
    pub const EXTENDED_L2: u64 = 1 << 4;
    pub const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
}
mod extension {
    pub const END: u32 = 0;
    pub const DATA_FILE: u32 = 0x4441_5441;
    pub const ENCRYPTION: u32 = 0x0537_be77;
}

/// What a header that passed says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub version: u32,
    /// Size of the disk that the guest sees, in bytes.
    pub virtual_size: u64,
}

/// Why a file is not an image that a guest may boot from.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("it was declared as qcow2 and does not begin with the qcow2 magic; register it with its real format")]
    NotQcow2,
    #[error("its qcow2 version is {0}; versions 2 and 3 are taken: convert it with `qemu-img convert -O qcow2`")]
    Version(u32),
    #[error("it names a backing file; flatten it with `qemu-img convert -O qcow2`")]
    BackingFile,
    #[error("it keeps its data in another file; convert it with `qemu-img convert -O qcow2`")]
    DataFile,
    #[error("it is encrypted; register it without encryption")]
    Encrypted,
    #[error("it needs features that are not known here (bits {0:#x}, compression type {1})")]
    UnknownFeature(u64, u8),
    #[error("it is marked {0}; repair it with `qemu-img check -r all` and register it again")]
    Corrupt(&'static str),
    #[error("its header is not sound: {0}")]
    Header(String),
    #[error("it holds {0} internal snapshots; drop them with `qemu-img convert -O qcow2`")]
    Snapshots(u32),
    #[error("its disk of {size} bytes is larger than the {limit} bytes that this host allows (--max-virtual-gib)")]
    TooLarge { size: u64, limit: u64 },
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
}

impl Refusal {
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotQcow2 => reasons::IMAGE_NOT_QCOW2,
            Self::Version(_) => reasons::IMAGE_VERSION_UNSUPPORTED,
            Self::BackingFile => reasons::IMAGE_HAS_BACKING_FILE,
            Self::DataFile => reasons::IMAGE_HAS_DATA_FILE,
            Self::Encrypted => reasons::IMAGE_ENCRYPTED,
            Self::UnknownFeature(..) => reasons::IMAGE_FEATURE_UNKNOWN,
            Self::Corrupt(_) => reasons::IMAGE_CORRUPT,
            Self::Header(_) => reasons::IMAGE_HEADER_INVALID,
            Self::Snapshots(_) => reasons::IMAGE_HAS_SNAPSHOTS,
            Self::TooLarge { .. } => reasons::IMAGE_TOO_LARGE,
            Self::Io(_) => reasons::MEDIA_IO,
        }
    }

    /// As an error about the file called `name`.
    #[must_use]
    pub fn of(self, name: &str) -> Error {
        let message = format!("{name} is refused: {self}");
        match self {
            Self::Io(_) => Error::failed(self.reason(), message),
            _ => Error::refused(self.reason(), message),
        }
    }
}

/// Reads the header of `file` and refuses what must not be opened. `max_virtual`: largest disk, in bytes.
pub fn check(file: &mut (impl Read + Seek), max_virtual: u64) -> Result<Header, Refusal> {
    let file_len = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::with_capacity(V3_LENGTH as usize + 8);
    file.by_ref().take(V3_LENGTH + 8).read_to_end(&mut bytes)?;
    let field = Fields(&bytes);

    if bytes.get(..4) != Some(&MAGIC[..]) {
        return Err(Refusal::NotQcow2);
    }
    let version = field.u32(4)?;
    if !matches!(version, 2 | 3) {
        return Err(Refusal::Version(version));
    }
    // What points outside comes first: it is what the operator should hear about, whatever else is wrong.
    if field.u64(8)? != 0 || field.u32(16)? != 0 {
        return Err(Refusal::BackingFile);
    }
    if field.u32(32)? != 0 {
        return Err(Refusal::Encrypted);
    }
    let (features, header_len, compression, refcount_order) = if version == 2 {
        (0, V2_LENGTH, 0, 4)
    } else {
        let header_len = u64::from(field.u32(100)?);
        let compression = if header_len > V3_LENGTH { field.u8(104)? } else { 0 };
        (field.u64(72)?, header_len, compression, field.u32(96)?)
    };
    check_features(features, compression)?;
    let layout = Layout::read(&field, file_len, header_len, refcount_order, features)?;
    check_extensions(file, header_len, layout.cluster_size.min(file_len))?;
    let snapshots = field.u32(60)?;
    if snapshots != 0 {
        return Err(Refusal::Snapshots(snapshots));
    }
    if layout.virtual_size > max_virtual {
        return Err(Refusal::TooLarge { size: layout.virtual_size, limit: max_virtual });
    }
    Ok(Header { version, virtual_size: layout.virtual_size })
}

fn check_features(features: u64, compression: u8) -> Result<(), Refusal> {
    if features & incompatible::DATA_FILE != 0 {
        return Err(Refusal::DataFile);
    }
    if features & incompatible::CORRUPT != 0 {
        return Err(Refusal::Corrupt("corrupt"));
    }
    if features & incompatible::DIRTY != 0 {
        return Err(Refusal::Corrupt("dirty (it was not closed)"));
    }
    let unknown = features & !incompatible::KNOWN;
    // 0 is zlib, 1 is zstd; anything but zlib must be announced by its bit.
    let compression_ok = match compression {
        0 => features & incompatible::COMPRESSION == 0,
        1 => features & incompatible::COMPRESSION != 0,
        _ => false,
    };
    if unknown != 0 || !compression_ok {
        return Err(Refusal::UnknownFeature(unknown, compression));
    }
    Ok(())
}

struct Layout {
    cluster_size: u64,
    virtual_size: u64,
}

impl Layout {
    /// Checks that clusters, tables and sizes fit each other and the file.
    fn read(
        field: &Fields<'_>,
        file_len: u64,
        header_len: u64,
        refcount_order: u32,
        features: u64,
    ) -> Result<Self, Refusal> {
        let invalid = |what: String| Err(Refusal::Header(what));
        let cluster_bits = field.u32(20)?;
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return invalid(format!("cluster_bits is {cluster_bits}, not 9 to 21"));
        }
        let cluster_size = 1u64 << cluster_bits;
        if header_len < V2_LENGTH || (header_len > V2_LENGTH && header_len < V3_LENGTH) || !header_len.is_multiple_of(8)
        {
            return invalid(format!("header_length is {header_len}"));
        }
        if header_len > cluster_size.min(file_len) {
            return invalid(format!("header_length {header_len} is beyond the first cluster or the file"));
        }
        if refcount_order > 6 {
            return invalid(format!("refcount_order is {refcount_order}, at most 6"));
        }
        let virtual_size = field.u64(24)?;
        if virtual_size == 0 || virtual_size > i64::MAX as u64 {
            return invalid(format!("the disk's size is {virtual_size} bytes"));
        }
        let table = |name: &str, offset: u64, bytes: u64, most: u64| {
            let end = offset.checked_add(bytes);
            if bytes > most || !offset.is_multiple_of(cluster_size) || end.is_none_or(|end| end > file_len) {
                return Err(Refusal::Header(format!(
                    "the {name} ({bytes} bytes at {offset}) is not inside the file of {file_len} bytes"
                )));
            }
            Ok(())
        };
        let l1_entries = u64::from(field.u32(36)?);
        let entry = if features & incompatible::EXTENDED_L2 != 0 { 16 } else { 8 };
        let covered_by_l1_entry = u128::from(cluster_size) * u128::from(cluster_size / entry);
        if u128::from(l1_entries) * covered_by_l1_entry < u128::from(virtual_size) {
            return invalid(format!("{l1_entries} L1 entries do not cover a disk of {virtual_size} bytes"));
        }
        table("L1 table", field.u64(40)?, l1_entries * 8, MAX_L1_BYTES)?;
        let refcount_bytes = u64::from(field.u32(56)?) * cluster_size;
        if refcount_bytes == 0 {
            return invalid("it has no refcount table".into());
        }
        table("refcount table", field.u64(48)?, refcount_bytes, MAX_REFCOUNT_TABLE_BYTES)?;
        Ok(Self { cluster_size, virtual_size })
    }
}

/// Header extensions lie between the header and the end of the first cluster. Two of them name other files or keys, with
/// or without the feature bit that should go along.
fn check_extensions(file: &mut (impl Read + Seek), header_len: u64, end: u64) -> Result<(), Refusal> {
    let mut at = header_len;
    for _ in 0..MAX_EXTENSIONS {
        if at + 8 > end {
            return Ok(());
        }
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0u8; 8];
        file.read_exact(&mut head)?;
        let field = Fields(&head);
        match field.u32(0)? {
            extension::END => return Ok(()),
            extension::DATA_FILE => return Err(Refusal::DataFile),
            extension::ENCRYPTION => return Err(Refusal::Encrypted),
            _ => {}
        }
        let length = u64::from(field.u32(4)?);
        at += 8 + length.div_ceil(8) * 8;
        if at > end {
            return Err(Refusal::Header(format!("an extension of {length} bytes leaves the first cluster")));
        }
    }
    Err(Refusal::Header(format!("more than {MAX_EXTENSIONS} header extensions")))
}

/// Big-endian numbers at byte offsets; a header that ends before one is not sound.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Refusal> {
        let short = || Refusal::Header(format!("it ends within the header, before byte {}", at + N));
        self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or_else(short)
    }

    fn u8(&self, at: usize) -> Result<u8, Refusal> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    fn u32(&self, at: usize) -> Result<u32, Refusal> {
        self.array(at).map(u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, Refusal> {
        self.array(at).map(u64::from_be_bytes)
    }
}

#[cfg(test)]
#[path = "qcow2_tests.rs"]
mod tests;
