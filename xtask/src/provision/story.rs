//! From two bare machines to a fleet, and back: each test finds what the one before it left.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::croft::{self, Croft};
use super::guests;
use super::machine::{Machine, TAKEN, TWIN};
use super::network::{self, PLACES};
use super::playbook::{Controller, HUGE_PAGES};
use super::repository::{self, Server};
use super::{Provided, secrets, seed};
use crate::run::Run;
use crate::trial::Trial;

type Test<'a> = (&'static str, fn(&Site<'a>) -> Result<()>);

/// Which tests there are, in this order. What the first of them cannot do, none after it can.
pub(super) fn tell<'a>(trial: &mut Trial, provided: &'a Provided, work: &'a Path) {
    let mut site = None;
    let begun = trial.test("two bare machines boot from their own disks, without IOMMU", || {
        site = Some(Site::begin(provided, work)?);
        Ok(())
    });
    let Some(site) = site.filter(|_| begun) else { return };
    let long: &[Test<'a>] = &[
        ("preflight names the IOMMU, and changes nothing", Site::preflight_only_looks),
        ("a check of site before anything is there changes nothing, and goes through", Site::checks_before),
    ];
    let heart: &[Test<'a>] = &[
        ("site makes both of them hosts that are READY", Site::provisions),
        ("each was rebooted once, into what the kernel role promised", Site::booted_as_promised),
        ("no secret is in what Ansible printed at its most talkative", Site::kept_secrets),
        ("a tenant's VMs run on both, by the API", Site::runs_guests),
        ("site again changes nothing, under running VMs", Site::is_idempotent),
        ("a check of site changes nothing", Site::checks_clean),
        (
            "an upgrade of the plane and one host brings its VM back, and leaves the other host's running",
            Site::upgrades,
        ),
        ("a host with an instance is not taken out, and says which", Site::keeps_a_host_in_use),
        ("without it, the host is drained, forgotten, and its agent gone", Site::removes),
    ];
    let after: &[Test<'a>] = &[
        ("taken out again, nothing changes", Site::removes_again),
        ("the upgrade again changes nothing", Site::upgrades_again),
    ];
    let chosen = [if provided.full { long } else { &[] }, heart, if provided.full { after } else { &[] }];
    for (name, body) in chosen.concat() {
        if !trial.test(name, || body(&site)) {
            println!("        {}", site.last_words());
            return;
        }
    }
}

struct Site<'a> {
    provided: &'a Provided,
    work: &'a Path,
    hosts: Vec<Machine>,
    controller: Controller,
    croft: Croft,
    _server: Server,
}

impl<'a> Site<'a> {
    /// The network, the packages, the machines, and a controller that has done nothing yet.
    fn begin(provided: &'a Provided, work: &'a Path) -> Result<Site<'a>> {
        network::lay_out()?;
        let key = work.join("key");
        Run::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "provision", "-f"]).arg(&key).stdout()?;
        let power_on = |place| Machine::power_on(place, provided, work, &key);
        let mut hosts = PLACES.into_iter().map(power_on).collect::<Result<Vec<_>>>()?;
        // Meanwhile.
        let served = work.join("served");
        repository::offer(&served.join(repository::DEBIAN), &provided.archive)?;
        repository::offer(&served.join(repository::CROFT), &provided.packages)?;
        let server = repository::serve(&served, &work.join("packages.log"))?;
        let program = croft::unpack(&provided.packages, &work.join("controller"))?;
        let controller = Controller::new(&provided.ansible, work, &program, &key)?;
        let croft = Croft::new(&program, controller.credentials());
        for host in &mut hosts {
            host.await_up()?;
            let words = host.sh("cat /proc/cmdline")?;
            ensure!(words.contains("intel_iommu=off"), "{} booted with {words}", host.place.name);
            host.sh("! ls -d /sys/kernel/iommu_groups/* 2>/dev/null")?;
        }
        Ok(Site { provided, work, hosts, controller, croft, _server: server })
    }

    fn first(&self) -> &Machine {
        &self.hosts[0]
    }

    fn second(&self) -> &Machine {
        &self.hosts[1]
    }

    fn preflight_only_looks(&self) -> Result<()> {
        for host in &self.hosts {
            host.sh("touch /root/before; sleep 1")?;
        }
        self.controller.play("preflight", &[])?.refused("the kernel argument intel_iommu=off keeps it off")?;
        for host in &self.hosts {
            // What any login changes.
            let changed = host
                .sh("find / -xdev -newer /root/before -type f ! -path '/var/log/*' ! -path '/var/lib/systemd/*' \
                     ! -path '/root/.ansible/*' ! -path '/var/lib/private/*'")?;
            ensure!(changed.is_empty(), "changed on {}:\n{changed}", host.place.name);
        }
        Ok(())
    }

    fn checks_before(&self) -> Result<()> {
        self.controller.play("site", &["--check", "--diff"])?.well()?;
        for host in &self.hosts {
            host.sh("test ! -e /etc/default/grub.d/zz-croft.cfg && test ! -e /etc/apt/sources.list.d/croft.sources")?;
        }
        Ok(())
    }

    fn provisions(&self) -> Result<()> {
        self.controller.play("site", &["-vvv"])?.well()?;
        for host in &self.hosts {
            let said = self.croft.json(&["host", "get", host.place.name])?;
            ensure!(said["state"] == "READY", "{} is {}", host.place.name, said["state"]);
        }
        Ok(())
    }

    fn booted_as_promised(&self) -> Result<()> {
        for host in &self.hosts {
            let boots = host.sh(&format!("cat {}", seed::BOOTS))?;
            ensure!(boots.lines().count() == 2, "{} booted {} times", host.place.name, boots.lines().count());
            let words = host.sh("cat /proc/cmdline")?;
            let has = |word: &str| words.split_whitespace().any(|other| other == word);
            ensure!(
                has("intel_iommu=on") && has("iommu=pt") && !has("intel_iommu=off"),
                "{} booted with {words}",
                host.place.name
            );
            let types = host.sh("sort -u /sys/kernel/iommu_groups/*/type")?;
            ensure!(types == "identity", "IOMMU groups of {}: {types}", host.place.name);
            let pages = |size: &str| -> Result<u32> {
                let file = format!("/sys/kernel/mm/hugepages/hugepages-{size}kB/nr_hugepages");
                host.sh(&format!("cat {file}"))?.parse().with_context(|| format!("{file} holds no number"))
            };
            let (small, large) = (pages("2048")?, pages("1048576")?);
            ensure!(
                small >= HUGE_PAGES && large == host.place.huge_pages,
                "{} has {small} huge pages of 2 MiB and {large} of 1 GiB",
                host.place.name
            );
            for (card, driver) in [(TAKEN, "vfio-pci"), (TWIN, "e1000e")] {
                let bound = host.sh(&format!("basename \"$(readlink /sys/bus/pci/devices/{card}/driver)\""))?;
                ensure!(bound == driver, "{card} of {} is with {bound}", host.place.name);
            }
        }
        Ok(())
    }

    fn kept_secrets(&self) -> Result<()> {
        let token = self.croft.token()?;
        ensure!(token.len() > 16, "the admin's token is short: nothing can be looked for");
        for log in self.logs()? {
            let said = std::fs::read_to_string(&log).with_context(|| format!("cannot read {}", log.display()))?;
            let found = secrets::found(&said, &token);
            ensure!(found.is_none(), "{} is in {}", found.unwrap_or_default(), log.display());
        }
        Ok(())
    }

    fn runs_guests(&self) -> Result<()> {
        guests::make_tenant(&self.croft, &self.hosts, &self.provided.lab)?;
        for host in &self.hosts {
            guests::create(&self.croft, host)?;
            guests::process(host)?;
        }
        Ok(())
    }

    fn is_idempotent(&self) -> Result<()> {
        let before = self.processes()?;
        self.controller.play("site", &[])?.well()?.changed_nothing()?;
        ensure!(self.processes()? == before, "a guest was started anew");
        Ok(())
    }

    fn checks_clean(&self) -> Result<()> {
        // The second is a host and nothing else; with the first, which is a plane too, where there is time.
        let limit: &[&str] = if self.provided.full { &[] } else { &["--limit", self.second().place.name] };
        self.controller.play("site", &[&["--check"], limit].concat())?.well()?.changed_nothing()
    }

    fn upgrades(&self) -> Result<()> {
        repository::offer(&self.work.join("served").join(repository::CROFT), &self.provided.later)?;
        let [of_first, of_second] = [guests::process(self.first())?, guests::process(self.second())?];
        let played = self.upgrade(self.first().place.name)?;
        let preview = format!("tenants/acme/instances/{}", guests::name(self.first()));
        ensure!(played.contains(&preview), "what a drain will do to {preview} was not shown");
        self.has_version(self.first(), &["croft-controlplane", "croft-hostagent"], Version::Later)?;
        self.has_version(self.second(), &["croft-hostagent"], Version::First)?;
        guests::is_running(&self.croft, self.first())?;
        guests::speaks(&self.croft, self.first())?;
        ensure!(guests::process(self.first())? != of_first, "the upgraded host's guest was never stopped");
        ensure!(guests::process(self.second())? == of_second, "the other host's guest was started anew");
        guests::is_running(&self.croft, self.second())
    }

    fn upgrades_again(&self) -> Result<()> {
        let before = guests::process(self.first())?;
        let version = format!("croft_version={}", self.provided.later_version);
        let name = self.first().place.name;
        self.controller.play("upgrade", &["--limit", name, "-e", &version])?.well()?.changed_nothing()?;
        ensure!(guests::process(self.first())? == before, "the guest was started anew");
        Ok(())
    }

    fn keeps_a_host_in_use(&self) -> Result<()> {
        let before = guests::process(self.second())?;
        let words = format!("{} has tenants/acme/instances/{}", self.second().place.name, guests::name(self.second()));
        self.controller.play("remove", &["--limit", self.second().place.name])?.refused(&words)?;
        ensure!(guests::process(self.second())? == before, "the guest was stopped");
        Ok(())
    }

    fn removes(&self) -> Result<()> {
        guests::delete(&self.croft, self.second())?;
        self.controller.play("remove", &["--limit", self.second().place.name])?.well()?;
        let known = self.croft.find(&["host", "get", self.second().place.name])?;
        ensure!(known.is_none(), "the plane still knows it");
        self.second()
            .sh("! dpkg-query -W -f '${db:Status-Status}\\n' croft-hostagent 2>/dev/null | grep -x installed &&
             test ! -e /etc/croft/hostagent.env && test ! -e /var/lib/croft/hostagent")?;
        guests::is_running(&self.croft, self.first())
    }

    fn removes_again(&self) -> Result<()> {
        self.controller.play("remove", &["--limit", self.second().place.name])?.well()?.changed_nothing()
    }

    /// What the playbook printed.
    fn upgrade(&self, limit: &str) -> Result<String> {
        let version = format!("croft_version={}", self.provided.later_version);
        Ok(self.controller.play("upgrade", &["--limit", limit, "-e", &version])?.well()?.said)
    }

    fn has_version(&self, host: &Machine, packages: &[&str], wanted: Version) -> Result<()> {
        for package in packages {
            let version = host.sh(&format!("dpkg-query -W -f '${{Version}}' {package}"))?;
            let is_later = version == self.provided.later_version;
            ensure!(is_later == (wanted == Version::Later), "{package} of {} is {version}", host.place.name);
        }
        Ok(())
    }

    fn processes(&self) -> Result<Vec<String>> {
        self.hosts.iter().map(guests::process).collect()
    }

    /// What playbooks printed so far.
    fn logs(&self) -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(self.work).with_context(|| format!("cannot list {}", self.work.display()))?;
        let logs: Vec<_> =
            entries.flatten().map(|e| e.path()).filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
        ensure!(logs.iter().any(|log| log.to_string_lossy().ends_with("-site.log")), "the log of site is not there");
        Ok(logs)
    }

    /// For whoever must find out why a test failed.
    fn last_words(&self) -> String {
        let of = |host: &Machine| format!("{}, on its serial line:\n{}", host.place.name, host.serial(5));
        self.hosts.iter().map(of).collect::<Vec<_>>().join("\n")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    First,
    Later,
}
