//! Clean Debian systems in directories: bootstrapped once for each release, kept in the cache, and unpacked for each use.
//!
//! They are entered by `tests/packages/in-root.sh`; nothing in them runs as a service. What the archive serves is not part of
//! a root's key: remove the cache's folder `roots` to get today's packages.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::guest_image::sha256_text;
use crate::recipe;
use crate::run::{Ended, Run, last_lines};
use crate::workspace::{cache_dir, root};

/// What every server has and the smallest bootstrap has not.
const INCLUDE: &str = "systemd,systemd-sysv";

/// One Debian system; its directory is removed with it.
#[derive(Debug)]
pub(crate) struct Root {
    dir: PathBuf,
    archives: PathBuf,
    show: PathBuf,
}

impl Root {
    /// A fresh one of this release. The directory `show` is its /mnt.
    pub(crate) fn unpack(suite: &str, show: &Path) -> Result<Root> {
        let tarball = bootstrapped(suite)?;
        let archives = cache_dir("roots")?.join(format!("{suite}-archives"));
        let partial = archives.join("partial");
        std::fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
        // What a run that was killed left behind.
        let old = ["/var/tmp", "-maxdepth", "1", "-name", "croft-root.*", "-mmin", "+180"];
        let remove = ["-exec", "rm", "-rf", "--one-file-system", "{}", "+"];
        Run::new("find").args(old).args(remove).with_root().stdout()?;
        let dir = Run::new("mktemp").args(["-d", "/var/tmp/croft-root.XXXXXX"]).with_root().stdout()?;
        let root = Root { dir: PathBuf::from(dir.trim()), archives, show: show.to_owned() };
        Run::new("tar").arg("-C").arg(&root.dir).arg("-xf").arg(&tarball).with_root().stdout()?;
        // As in an image that is being built: nothing may be started.
        root.succeed("printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d")?;
        Ok(root)
    }

    /// What this script of a shell does in there, where no network is.
    pub(crate) fn sh(&self, script: &str) -> Result<Ended> {
        self.enter(script).ended()
    }

    /// The same, when it must succeed; what it printed.
    pub(crate) fn succeed(&self, script: &str) -> Result<String> {
        let ended = self.sh(script)?;
        if !ended.success {
            bail!("`{script}` failed:\n{}{}", ended.stdout, ended.stderr);
        }
        Ok(ended.stdout)
    }

    /// apt-get with a network, once more with today's lists when what the old ones name is gone.
    pub(crate) fn apt(&self, arguments: &str) -> Result<()> {
        let apt = |arguments: &str| {
            let options = "-o Dpkg::Use-Pty=0 -o DPkg::Options::=--force-unsafe-io --no-install-recommends";
            self.enter(&format!("apt-get -qq -y {options} {arguments}"))
                .env("CROFT_ROOT_ARCHIVES", &self.archives)
                .ended()
        };
        let mut ended = apt(arguments)?;
        if !ended.success && ended.stderr.contains("Failed to fetch") {
            apt("update")?;
            ended = apt(arguments)?;
        }
        if !ended.success {
            bail!("apt-get {arguments} failed:\n{}{}", ended.stdout, ended.stderr);
        }
        Ok(())
    }

    /// A path of theirs, as it is named here.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }

    fn enter(&self, script: &str) -> Run {
        Run::new(root().join("tests/packages/in-root.sh"))
            .arg(&self.dir)
            .args(["/bin/sh", "-c", script])
            .env("CROFT_ROOT_SHOW", &self.show)
            .with_root()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // What it mounted was mounted for its own processes only, and they have ended.
        let remove = Run::new("rm").args(["-rf", "--one-file-system", "--"]).arg(&self.dir).with_root();
        if let Err(error) = remove.stdout() {
            eprintln!("{error:#}");
        }
    }
}

/// The tarball of a release, made if it is not in the cache.
pub(crate) fn bootstrapped(suite: &str) -> Result<PathBuf> {
    let cache = cache_dir("roots")?;
    let _one_at_a_time = recipe::lock(&cache)?;
    let key: String = sha256_text(&format!("{suite} {INCLUDE}"))?.chars().take(8).collect();
    let tarball = cache.join(format!("{suite}-{key}.tar"));
    if tarball.is_file() {
        return Ok(tarball);
    }
    println!("--> bootstrapping Debian {suite}: a minute, and only this once");
    let (making, log) = (cache.join(format!("{suite}.making.tar")), cache.join(format!("{suite}.log")));
    Run::new("mmdebstrap")
        .args(["--mode=root", "--variant=minbase", "--skip=cleanup/apt/lists"])
        .arg(format!("--include={INCLUDE}"))
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg(suite)
        .arg(&making)
        .with_root()
        .logged(&log)
        .with_context(|| format!("cannot bootstrap Debian {suite}: {}", last_lines(&log, 3)))?;
    std::fs::rename(&making, &tarball).with_context(|| format!("cannot rename {}", making.display()))?;
    Ok(tarball)
}
