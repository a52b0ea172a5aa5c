//! The way up, step by step.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::guest::Source;
use super::site::Site;
use super::steps::{Done, Steps, said};
use super::{Options, down, guest, hypervisor, plane, summary};
use crate::guest_image::{self, Origin};
use crate::packages::{self, Ensured};
use crate::run::Run;
use crate::workspace::{Metadata, cargo};

const PROGRAMS: [(&str, &str); 3] =
    [("croft-controlplane", "croft-controlplane"), ("croft-hostagent", "croft-hostagent"), ("croft-cli", "croft")];

pub(super) fn run(site: &Site, options: &Options) -> Result<()> {
    climb(site, options).with_context(|| {
        format!(
            "quickstart stopped. Logs are in {}; run it again to go on, or take it down with `{}`",
            site.dir().join("logs").display(),
            down::command_line(site)
        )
    })
}

fn climb(site: &Site, options: &Options) -> Result<()> {
    let steps = Steps::new();
    steps.step("packages", || install(site, options))?;
    steps.step("programs", || build(site))?;
    steps.step("libvirt", || hypervisor::ensure(site))?;
    let image = steps.step("guest image", || image(site, options.image.as_deref()))?;
    steps.step("control plane", || plane::start_plane(site))?;
    steps.step("host agent", || plane::start_agent(site))?;
    let image = steps.step("image", || guest::register_image(site, &image))?;
    steps.step("tenant", || guest::make_tenant(site))?;
    steps.step("instance", || guest::create_instance(site, &image))?;
    steps.step("guest", || guest::wait_until_booted(site))?;
    steps.step("guest agent", || guest::wait_until_ready(site))?;
    steps.step("ssh", || guest::log_in(site))?;
    summary::print(site)
}

fn install(site: &Site, options: &Options) -> Result<Done> {
    let mut groups = vec![packages::BUILD, packages::HOST];
    if !packages::has_systemd() {
        groups.push(packages::NO_SYSTEMD);
    }
    if options.image.is_none() {
        groups.push(packages::IMAGE);
    }
    if options.keep_packages {
        let missing = packages::missing(&groups)?;
        if !missing.is_empty() {
            bail!("missing, and --keep-packages forbids to install them: {}", missing.join(" "));
        }
    }
    let ensured = packages::ensure(&groups)?;
    site.ensure()?;
    match ensured {
        Ensured::AllThere => said("all there"),
        Ensured::Installed(names) => {
            let before = site.fact("packages")?.and_then(|p| p.as_array().cloned()).unwrap_or_default();
            let all: Vec<_> = before.into_iter().chain(names.iter().map(|n| json!(n))).collect();
            site.remember("packages", json!(all))?;
            said(format!("installed {}", names.join(" ")))
        }
    }
}

fn build(site: &Site) -> Result<Done> {
    let packages = PROGRAMS.iter().flat_map(|(package, _)| ["-p", package]);
    cargo().arg("build").args(packages).logged(&site.log("build"))?;
    let built = Metadata::load()?.target_dir()?.join("debug");
    let mut replaced = Vec::new();
    for (_, program) in PROGRAMS {
        let (new, copy) = (built.join(program), site.program(program));
        if Run::new("cmp").arg("-s").arg(&new).arg(&copy).ended()?.success {
            continue;
        }
        // A daemon of the old kind ends here and is started again below: guests do not notice.
        for daemon in [plane::plane(site), plane::agent(site)].into_iter().filter(|d| d.name == program) {
            daemon.stop(std::time::Duration::from_secs(20))?;
        }
        Run::new("install").args(["-m", "0755", "--"]).arg(&new).arg(&copy).with_root().stdout()?;
        replaced.push(program);
    }
    said(if replaced.is_empty() { "up to date".to_owned() } else { format!("built {}", replaced.join(", ")) })
}

fn image(site: &Site, given: Option<&Path>) -> Result<Done<Source>> {
    if let Some(file) = given {
        let file = file.canonicalize().with_context(|| format!("no image at {}", file.display()))?;
        return Ok(Done { said: format!("{}, as given", file.display()), value: Source::given(file) });
    }
    let image = guest_image::ensure(&site.log("guest-image"))?;
    let how = match image.origin {
        Origin::Built => "built of Debian's packages",
        Origin::Cache => "from the cache",
    };
    let said = format!("{}, {how}", image.path.display());
    Ok(Done { said, value: Source { file: image.path, label: "debian".to_owned() } })
}
