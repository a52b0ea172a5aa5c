//! System packages: what each kind of work needs, which of it is missing, and apt to install just that.
//!
//! Refuses to guess on a system without dpkg: it names the packages and leaves the installing to the reader.

use std::path::Path;

use anyhow::{Result, bail};

use crate::run::{Run, have, is_root};

/// To compile: a C compiler for SQLite and ring, libvirt's headers for virt-sys.
pub(crate) const BUILD: &[&str] = &["gcc", "libc6-dev", "pkg-config", "libvirt-dev"];

/// To run virtual machines. `iptables` brings ebtables, by which libvirt filters a guest's traffic.
pub(crate) const HOST: &[&str] = &[
    "libvirt-daemon-system",
    "libvirt-clients",
    "qemu-system-x86",
    "qemu-utils",
    "ovmf",
    "dnsmasq-base",
    "iptables",
    "nftables",
    "iproute2",
    "openssh-client",
    "util-linux",
];

/// To run libvirtd where process 1 is not systemd: it then lives below tini (see quickstart/daemon.rs).
pub(crate) const NO_SYSTEMD: &[&str] = &["tini"];

/// Whether systemd is process 1.
pub(crate) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// To make a guest image (guest-image/build.sh).
pub(crate) const IMAGE: &[&str] = &[
    "mmdebstrap",
    "debian-archive-keyring",
    "fdisk",
    "dosfstools",
    "mtools",
    "e2fsprogs",
    "qemu-utils",
    "ca-certificates",
];

/// What `monitoring/` is tried with: Prometheus, and promtool in the same package.
pub(crate) const MONITORING: &[&str] = &["prometheus"];

/// To make the lab's host (tests/lab/build.sh) and to speak to it. Its QEMU comes with it: no older one will do.
pub(crate) const LAB: &[&str] = &[
    "mmdebstrap",
    "debian-archive-keyring",
    "e2fsprogs",
    "zstd",
    "xz-utils",
    "ca-certificates",
    "openssh-client",
    "iproute2",
    "util-linux",
];

/// To make the guest that becomes a node (tests/kubernetes/guest.sh).
pub(crate) const NODE: &[&str] =
    &["mmdebstrap", "debian-archive-keyring", "e2fsprogs", "qemu-utils", "zstd", "ca-certificates"];

/// To make packages of our own (debian/mod.rs): cargo-deb calls dpkg-shlibdeps.
pub(crate) const PACKAGE: &[&str] = &["binutils", "dpkg-dev", "git", "gzip"];

/// To install them in clean systems, and to hold them against Debian's rules (lanes/packages/).
pub(crate) const CLEAN_ROOTS: &[&str] =
    &["mmdebstrap", "debian-archive-keyring", "lintian", "sqlite3", "util-linux", "iproute2"];

/// To make hosts of bare machines (provision/): firmware for them, lists of packages, Ansible in an environment of its own.
pub(crate) const PROVISION: &[&str] = &["ovmf", "dpkg-dev", "python3", "python3-venv"];

/// To lint.
pub(crate) const LINT: &[&str] = &["git", "shellcheck"];

/// To judge our units: systemd-analyze.
pub(crate) const UNITS: &[&str] = &["systemd"];

/// What [`ensure`] did.
#[derive(Debug)]
pub(crate) enum Ensured {
    AllThere,
    Installed(Vec<String>),
}

/// `cargo xtask packages`.
pub(crate) fn command() -> Result<()> {
    match ensure(&[BUILD, HOST, IMAGE, LAB, NODE, PACKAGE, CLEAN_ROOTS, PROVISION, LINT, UNITS, MONITORING])? {
        Ensured::AllThere => println!("every package is there"),
        Ensured::Installed(names) => println!("installed: {}", names.join(" ")),
    }
    Ok(())
}

/// Installs what is missing of these groups. Safe to repeat; asks apt nothing when all is there.
pub(crate) fn ensure(groups: &[&[&str]]) -> Result<Ensured> {
    let missing = missing(groups)?;
    if missing.is_empty() {
        return Ok(Ensured::AllThere);
    }
    if !is_root() && !have("sudo") {
        bail!("these packages are missing, and there is neither root nor sudo to install them: {}", missing.join(" "));
    }
    apt(&["-qq", "update"])?;
    // Not the recommended ones: a desktop's worth of viewers comes with QEMU otherwise.
    let mut install = vec!["-qq", "-y", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends", "install"];
    install.extend(missing.iter().map(String::as_str));
    apt(&install)?;
    Ok(Ensured::Installed(missing))
}

/// The packages of these groups that are not installed.
pub(crate) fn missing(groups: &[&[&str]]) -> Result<Vec<String>> {
    let mut wanted: Vec<&str> = groups.concat();
    wanted.sort_unstable();
    wanted.dedup();
    if !have("dpkg-query") || !have("apt-get") {
        bail!("this is not Debian or Ubuntu: install what corresponds to {} by hand", wanted.join(" "));
    }
    // Exits 1 when it does not know one of them, and prints those that it knows all the same.
    let known = Run::new("dpkg-query").args(["-W", "-f", "${Package} ${db:Status-Status}\\n"]).args(&wanted).ended()?;
    Ok(not_installed(&wanted, &known.stdout))
}

fn not_installed(wanted: &[&str], dpkg: &str) -> Vec<String> {
    let installed: Vec<&str> = dpkg.lines().filter_map(|l| l.strip_suffix(" installed")).collect();
    wanted.iter().filter(|w| !installed.contains(w)).map(|w| (*w).to_owned()).collect()
}

fn apt(args: &[&str]) -> Result<()> {
    let run = Run::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive").with_root();
    let ended = run.ended()?;
    if !ended.success {
        bail!("{} failed:\n{}{}", run.shown(), ended.stdout, ended.stderr);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_packages_and_unknown_ones_are_missing() {
        let dpkg = "gcc installed\novmf config-files\nqemu-utils installed\n";
        assert_eq!(not_installed(&["gcc", "ovmf", "mtools", "qemu-utils"], dpkg), ["ovmf", "mtools"]);
    }
}
