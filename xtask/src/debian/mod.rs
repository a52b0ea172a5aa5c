//! `cargo xtask package`: Debian's packages of the three programs (docs/packages.md), by cargo-deb out of what their
//! Cargo.toml and `packaging/` say.
//!
//! ```text
//!  cargo build ──► programs of one version          compile.rs
//!    strip · manual · changelog ──► a staged tree    stage.rs
//!      cargo-deb ──► croft_1.2.3_amd64.deb, …        mod.rs
//! ```
//! Another version costs the compilation of three `main.rs` and a link: nothing else knows the version.

mod compile;
pub(crate) mod roots;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::run::Run;
use crate::workspace::{Metadata, root};
use crate::{packages, tools};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What the packages and their programs say that they are [default: the workspace's version]
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: Option<String>,
    /// How to compile: for people, or as fast as for tests
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// Where the packages go [default: package/VERSION in the target directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Release,
    /// What `cargo build` makes, so that tests compile nothing twice; larger and slower.
    Dev,
}

/// A package, the crate that describes it, and its program, which has the package's name.
#[derive(Debug)]
struct Package {
    name: &'static str,
    krate: &'static str,
}

const PACKAGES: [Package; 3] = [
    Package { name: "croft", krate: "croft-cli" },
    Package { name: "croft-controlplane", krate: "croft-controlplane" },
    Package { name: "croft-hostagent", krate: "croft-hostagent" },
];

/// What was made of one version.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) version: String,
    pub(crate) files: Vec<PathBuf>,
}

pub(crate) fn command(options: &Options) -> Result<()> {
    packages::ensure(&[packages::BUILD, packages::PACKAGE])?;
    let began = Instant::now();
    let made = make(options.version.as_deref(), options.profile, options.out.as_deref())?;
    for file in &made.files {
        let size = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
        println!("{} ({:.1} MiB)", file.display(), size as f64 / f64::from(1 << 20));
        let depends = Run::new("dpkg-deb").arg("--field").arg(file).arg("Depends").stdout()?;
        println!("    depends on {}", depends.trim());
    }
    println!("packages of version {} made in {} s", made.version, began.elapsed().as_secs());
    Ok(())
}

/// The packages of one version: the workspace's own when none is given.
pub(crate) fn make(version: Option<&str>, profile: Profile, out: Option<&Path>) -> Result<Made> {
    let metadata = Metadata::load()?;
    let own = own_version(&metadata)?;
    let version = version.unwrap_or(&own).to_owned();
    let target = metadata.target_dir()?.join("package");
    let out = out.map_or_else(|| target.join(&version), Path::to_owned);

    let programs = compile::programs(&metadata, profile, (version != own).then_some(&version))?;
    let stage = target.join("stage").join(&version);
    stage::lay_out(&programs, &version, &stage)?;

    let cargo_deb = tools::ensure("cargo-deb")?;
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut files = Vec::new();
    for package in &PACKAGES {
        let file = out.join(format!("{}_{version}_{}.deb", package.name, architecture()?));
        let mut deb = Run::new(&cargo_deb)
            .dir(root())
            .args(["--no-build", "--no-strip", "--locked", "--offline", "--package", package.krate])
            .args(["--deb-version", &version, "--output"])
            .arg(&file)
            // Its manifests speak of target/release: it finds the staged tree there.
            .env("CARGO_TARGET_DIR", &stage)
            .env("SOURCE_DATE_EPOCH", stage::committed_at()?);
        if profile == Profile::Dev {
            deb = deb.arg("--fast");
        }
        let ended = deb.ended()?;
        if !ended.success || ended.stderr.contains("warning") {
            bail!("{} failed:\n{}{}", deb.shown(), ended.stdout, ended.stderr);
        }
        files.push(file);
    }
    Ok(Made { version, files })
}

fn architecture() -> Result<String> {
    Ok(Run::new("dpkg").arg("--print-architecture").stdout()?.trim().to_owned())
}

/// What the packages are when nobody says otherwise.
pub(crate) fn own_version(metadata: &Metadata) -> Result<String> {
    let package = metadata.packages()?.iter().find(|package| package["name"] == PACKAGES[0].krate);
    let version = package.and_then(|package| package["version"].as_str());
    Ok(version.with_context(|| format!("the workspace has no package {}", PACKAGES[0].krate))?.to_owned())
}

/// A version as Debian compares them, without a revision: who builds the packages is who makes Croft.
fn version(text: &str) -> Result<String, String> {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '~');
    if !text.starts_with(|c: char| c.is_ascii_digit()) || !text.chars().all(known) {
        return Err(
            "a version begins with a digit and has letters, digits and . + ~ (1.2.3~rc1 is before 1.2.3)".into()
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_what_dpkg_takes() {
        for good in ["1.2.3", "0.1.0~rc1", "2.0+security.1"] {
            assert_eq!(version(good).unwrap(), good);
        }
        for bad in ["", "v1.2", "1.2-3", "1 2", "1:2", "1.2/3"] {
            version(bad).unwrap_err();
        }
    }

    #[test]
    fn each_package_is_described_by_its_crate() {
        let metadata = Metadata::load().unwrap();
        for package in &PACKAGES {
            assert_eq!(metadata.targets(package.krate, "bin").unwrap(), [package.name]);
        }
    }
}
