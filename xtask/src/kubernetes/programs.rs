//! One directory with the six programs of a control plane and a node: links to those that were found, and the others, built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, bail};

use super::found::{self, PROGRAMS, Plan};
use super::{cache, forget, recipe};
use crate::packages;
use crate::recipe::{key, lock};
use crate::run::{Run, have};

/// Where Go's own installer puts it, which is on no PATH by itself.
const GO: &str = "/usr/local/go/bin/go";
/// The first that fetches a newer Go where a module needs one.
const OLDEST_GO: u32 = 21;
const NEEDED: &str = "Kubernetes' programs need 1.21 or newer to be built: install one from https://go.dev/dl, or name a \
                      directory that has the programs by KUBEBUILDER_ASSETS";

/// Why they can be neither found nor built here.
pub(super) fn obstacle() -> Result<Option<String>> {
    let plan = found::look();
    let at_hand = plan.to_build().is_empty() || is_whole(&place(&plan, &cache()?)?);
    Ok(if at_hand { None } else { check_go().err().map(|error| format!("{error:#}")) })
}

/// The directory. Making it needs Go, unless nothing is missing, and the network.
pub(super) fn ensure() -> Result<PathBuf> {
    let plan = found::look();
    let cache = cache()?;
    let dir = place(&plan, &cache)?;
    if is_whole(&dir) {
        return Ok(dir);
    }
    let _lock = lock(&cache)?;
    if is_whole(&dir) {
        return Ok(dir);
    }
    // What a killed builder left. The compiler that it started may be at work still, and ends when its directory is gone.
    forget(&cache, "making-", false)?;
    let making = cache.join(format!("making-{}", process::id()));
    fs::create_dir(&making).with_context(|| format!("cannot make {}", making.display()))?;
    make(&plan, &making, &cache.join("programs.log"))?;
    // What is there under this name is not whole. Of what other recipes made, half a gigabyte each, none is wanted any more,
    // unless it is what was found.
    let all_built = plan.found.keys().all(|name| *name == "etcd");
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    forget(&cache, &if all_built { format!("{}-", plan.version) } else { name }, false)?;
    fs::rename(&making, &dir).with_context(|| format!("cannot name {}", dir.display()))?;
    Ok(dir)
}

fn place(plan: &Plan, cache: &Path) -> Result<PathBuf> {
    let mut options = vec![("version", plan.version.clone())];
    options.extend(plan.found.iter().map(|(name, file)| (*name, file.display().to_string())));
    Ok(cache.join(format!("{}-{}", plan.version, key(&recipe(), &["programs.sh"], &options)?)))
}

/// What it links to may have gone.
fn is_whole(dir: &Path) -> bool {
    PROGRAMS.iter().all(|name| dir.join(name).is_file()) && dir.join("facts").is_file()
}

fn make(plan: &Plan, into: &Path, log: &Path) -> Result<()> {
    let build = plan.to_build();
    if build.is_empty() {
        fs::write(into.join("facts"), "").with_context(|| format!("cannot write into {}", into.display()))?;
    } else {
        check_go()?;
        println!("--> building {} {} with Go: minutes, and only this once", build.join(", "), plan.version);
        Run::new(recipe().join("programs.sh"))
            .arg(&plan.version)
            .arg(into)
            .args(&build)
            .logged(log)
            .context("cannot build Kubernetes' programs; KUBEBUILDER_ASSETS may name a directory that has them")?;
    }
    let facts = into.join("facts");
    let mut text = fs::read_to_string(&facts).with_context(|| format!("cannot read {}", facts.display()))?;
    if !plan.found.contains_key("etcd") {
        text.push_str(&format!("etcd is of Debian's {}\n", unpack_etcd(into)?));
    }
    for (name, file) in &plan.found {
        symlink(file, into.join(name)).with_context(|| format!("cannot link to {}", file.display()))?;
        text.push_str(&format!("{name} is {}\n", file.display()));
    }
    fs::write(&facts, text).with_context(|| format!("cannot write {}", facts.display()))
}

/// Whether programs.sh will find a Go that will do; Debian's is installed if there is none.
fn check_go() -> Result<()> {
    if !have("go") && !Path::new(GO).is_file() {
        let offered =
            || Run::new("apt-cache").args(["policy", "golang-go"]).stdout().map(|said| minor_of_package(&said));
        if offered()?.is_none() {
            // A bare machine has no lists yet.
            Run::new("apt-get").args(["-qq", "update"]).with_root().stdout()?;
        }
        if offered()?.is_none_or(|minor| minor < OLDEST_GO) {
            bail!("there is no Go, and {NEEDED}");
        }
        packages::ensure(&[&["golang-go"]])?;
    }
    let go = if have("go") { "go" } else { GO };
    let said = Run::new(go).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").stdout()?;
    let said = said.trim();
    if minor_of_go(said).is_none_or(|minor| minor < OLDEST_GO) {
        bail!("this Go is {said}, and {NEEDED}");
    }
    Ok(())
}

/// Of `Candidate: 2:1.24~2`, 24.
fn minor_of_package(policy: &str) -> Option<u32> {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    let version = candidate.split_once(':').map_or(candidate, |(_, version)| version);
    minor_of_go(&format!("go{version}"))
}

/// Of `go1.26.8`, 26.
fn minor_of_go(version: &str) -> Option<u32> {
    let digits: String = version.strip_prefix("go1.")?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Debian's etcd, taken out of its package: installed, it would run as a service of this machine. Returns the package's name.
fn unpack_etcd(into: &Path) -> Result<String> {
    let scratch = into.join("etcd-package");
    fs::create_dir(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    // apt's own user may not read our cache.
    let download =
        Run::new("apt-get").dir(&scratch).args(["-qq", "-o", "APT::Sandbox::User=root", "download", "etcd-server"]);
    if !download.ended()?.success {
        // No lists yet, or ones that name a file which the archive has replaced.
        Run::new("apt-get").args(["-qq", "update"]).with_root().stdout()?;
        download.stdout().context("etcd comes from Debian's etcd-server; or put one on the PATH")?;
    }
    let unpack = "dpkg-deb -x etcd-server_*.deb . && mv usr/bin/etcd ../etcd && echo etcd-server_*.deb";
    let package = Run::new("sh").dir(&scratch).args(["-ec", unpack]).stdout()?;
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    Ok(package.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go() {
        assert_eq!(minor_of_go("go1.26.8"), Some(26));
        assert_eq!(minor_of_go("go1.26rc1"), Some(26));
        assert_eq!(minor_of_go("devel go1.27"), None);
        assert_eq!(minor_of_package("golang-go:\n  Installed: (none)\n  Candidate: 2:1.24~2\n"), Some(24));
        assert_eq!(minor_of_package("golang-go:\n  Candidate: (none)\n"), None);
    }

    #[test]
    fn a_directory_with_a_link_to_nothing_is_not_whole() {
        let dir = tempfile::tempdir().unwrap();
        for name in PROGRAMS.iter().chain(&["facts"]) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert!(is_whole(dir.path()));
        fs::remove_file(dir.path().join("kubelet")).unwrap();
        symlink("/nowhere/kubelet", dir.path().join("kubelet")).unwrap();
        assert!(!is_whole(dir.path()));
    }
}
