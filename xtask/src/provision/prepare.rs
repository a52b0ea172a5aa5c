//! What is made outside, once for each content of its recipe, and then found: nothing is fetched inside.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Provided;
use crate::debian::{self, Made, Profile};
use crate::guest_image::{Origin, ensure_with};
use crate::lanes::libvirt;
use crate::run::Run;
use crate::workspace::{Metadata, cache, cache_dir, root};
use crate::{lab_image, packages, recipe};

pub(crate) const PACKAGES: &[&[&str]] =
    &[packages::BUILD, packages::PACKAGE, packages::LAB, packages::IMAGE, packages::PROVISION];

/// Both machines, QEMU's own use, Ansible and the page cache of two disks.
const MEMORY_MIB: u64 = 9 * 1024;

/// A server as Debian's installer leaves it: its kernel, and Python with apt's module, which the standard task brings.
/// Croft's agent leaves ten gigabytes of the disk to the host.
const BARE: [(&str, &str); 5] = [
    ("KERNEL", "linux-image-amd64"),
    ("PACKAGES", "pciutils python3-apt"),
    ("SIZE", "40G"),
    // Debian's kernel turns the Intel IOMMU on by itself: a role's work shows only where somebody turned it off.
    ("CMDLINE", "intel_iommu=off"),
    (
        "ARCHIVE",
        "libvirt-daemon-system libvirt-clients qemu-system-x86 qemu-utils ovmf swtpm dnsmasq-base nftables iptables mdevctl",
    ),
];

/// Why this machine cannot do it, apart from packages.
pub(crate) fn obstacle() -> Option<String> {
    if let Some(obstacle) = libvirt::obstacle() {
        return Some(obstacle);
    }
    if !Path::new("/dev/net/tun").exists() {
        return Some("needs /dev/net/tun, by which its machines reach each other (modprobe tun)".to_owned());
    }
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free = available_mib(&meminfo)?;
    (free < MEMORY_MIB).then(|| format!("needs {MEMORY_MIB} MiB of free memory for two machines, and {free} are there"))
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// All of it. The packages must be there.
pub(crate) fn prepare(full: bool) -> Result<Provided> {
    let lab = lab_image::ensure()?;
    let (disk, archive) = bare_host()?;
    let ansible = ansible()?;
    // The workspace's own comes last, so that the programs that other lanes find are those.
    let own = debian::own_version(&Metadata::load()?)?;
    let later = debian::make(Some(&format!("{own}+next")), Profile::Dev, None)?;
    let first = debian::make(None, Profile::Dev, None)?;
    Ok(Provided {
        disk,
        archive,
        lab,
        ansible,
        packages: folder(&first)?,
        later: folder(&later)?,
        later_version: later.version,
        full,
    })
}

fn bare_host() -> Result<(PathBuf, PathBuf)> {
    let settings = BARE.map(|(name, value)| (name, value.to_owned()));
    let image = ensure_with(&settings, &cache_dir("images")?.join("bare.log"))?;
    if image.origin == Origin::Built {
        println!("--> made the disk of a bare host: {}", image.path.display());
    }
    let mut archive = image.path.clone().into_os_string();
    archive.push(".archive");
    Ok((image.path, archive.into()))
}

/// Of exactly the version that the collection is linted with.
fn ansible() -> Result<PathBuf> {
    let _one_at_a_time = recipe::lock(&cache_dir("ansible")?)?;
    let script = root().join("ansible/tests/environment.sh");
    let said = Run::new(script).env("CROFT_CACHE", cache()?).stdout().context("cannot make Ansible's environment")?;
    Ok(PathBuf::from(said.trim()))
}

fn folder(made: &Made) -> Result<PathBuf> {
    let file = made.files.first().context("no package was made")?;
    Ok(file.parent().context("a package lies nowhere")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_what_the_kernel_calls_available() {
        assert_eq!(available_mib("MemTotal: 99 kB\nMemAvailable:   2097152 kB\n"), Some(2048));
        assert_eq!(available_mib(""), None);
    }
}
