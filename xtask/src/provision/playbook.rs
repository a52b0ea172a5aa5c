//! Ansible on the controller: the inventory of the story, a playbook's run, and what it says that it did.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::machine::TAKEN;
use super::network::{CONTROLLER, PLACES};
use super::repository;
use crate::run::Run;
use crate::workspace::root;

/// Pages of 2 MiB on each machine.
pub(super) const HUGE_PAGES: u32 = 32;
/// Where hosts take images from that lie with them.
pub(super) const IMAGES: &str = "/srv/croft/images";

#[derive(Debug)]
pub(super) struct Controller {
    programs: PathBuf,
    work: PathBuf,
    plays: Cell<usize>,
}

/// One run of a playbook.
#[derive(Debug)]
pub(super) struct Played {
    success: bool,
    pub(super) said: String,
}

impl Controller {
    /// With a copy of the collection and an inventory below `work`.
    pub(super) fn new(programs: &Path, work: &Path, croft: &Path, key: &Path) -> Result<Controller> {
        let collection = work.join("collections/ansible_collections/croft");
        fs::create_dir_all(&collection).with_context(|| format!("cannot make {}", collection.display()))?;
        Run::new("cp").arg("-R").arg(root().join("ansible")).arg(collection.join("fleet")).stdout()?;
        let inventory = work.join("fleet.json");
        fs::write(&inventory, inventory_of(work, croft, key).to_string())
            .with_context(|| format!("cannot write {}", inventory.display()))?;
        Ok(Controller { programs: programs.to_owned(), work: work.to_owned(), plays: Cell::new(0) })
    }

    /// `ansible-playbook croft.fleet.NAME`. The whole of what it prints is kept.
    pub(super) fn play(&self, name: &str, words: &[&str]) -> Result<Played> {
        let began = Instant::now();
        let mut path = OsString::from(&self.programs);
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let run = Run::new(self.programs.join("ansible-playbook"))
            .args(["-i", "fleet.json", &format!("croft.fleet.{name}")])
            .args(words)
            .dir(&self.work)
            .without(&["ANSIBLE_", "CROFT_"])
            .env("PATH", path)
            .env("HOME", &self.work)
            .env("LC_ALL", "C.UTF-8")
            .env("ANSIBLE_COLLECTIONS_PATH", self.work.join("collections"))
            .env("ANSIBLE_HOST_KEY_CHECKING", "False")
            .env(
                "ANSIBLE_SSH_ARGS",
                "-F none -o UserKnownHostsFile=/dev/null -o ControlMaster=auto -o ControlPersist=600",
            )
            .env("ANSIBLE_PIPELINING", "True")
            .env("ANSIBLE_GATHERING", "smart")
            .env("ANSIBLE_TIMEOUT", "60")
            .env("ANSIBLE_NOCOLOR", "1");
        self.plays.set(self.plays.get() + 1);
        let log = self.work.join(format!("{:02}-{name}.log", self.plays.get()));
        // It takes minutes: a terminal shows the log's last line meanwhile.
        let ended = run.logged(&log);
        let said = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        if !said.contains("PLAY [") {
            // It did not come so far as to play.
            ended?;
            bail!("{} played nothing", run.shown());
        }
        let success = ended.is_ok();
        println!("        {name} {}: {} s", words.join(" "), began.elapsed().as_secs());
        Ok(Played { success, said })
    }

    pub(super) fn credentials(&self) -> PathBuf {
        self.work.join("credentials")
    }
}

impl Played {
    /// No task failed, and every machine was reached.
    pub(super) fn well(self) -> Result<Played> {
        if !self.success {
            bail!("the playbook failed:\n{}", self.failures());
        }
        Ok(self)
    }

    /// It failed, and said this to whoever reads it.
    pub(super) fn refused(self, words: &str) -> Result<()> {
        ensure!(!self.success, "the playbook went through");
        // Ansible wraps nothing, but JSON escapes quotes; words are chosen without any.
        ensure!(self.said.contains(words), "it does not say `{words}`:\n{}", self.failures());
        Ok(())
    }

    /// On no machine anything was changed.
    pub(super) fn changed_nothing(&self) -> Result<()> {
        let recap = recap(&self.said);
        ensure!(!recap.is_empty(), "the playbook ended without a recap");
        let changed: Vec<_> = recap.iter().filter(|(_, changed)| **changed > 0).collect();
        ensure!(changed.is_empty(), "changed again: {}", changes(&self.said).join("; "));
        Ok(())
    }

    /// From the first failure on; without any, the end.
    fn failures(&self) -> String {
        let lines: Vec<&str> = self.said.lines().collect();
        let failed = |line: &&str| ["fatal: ", "ERROR", "[ERROR]"].iter().any(|word| line.starts_with(word));
        let first = lines.iter().position(failed).unwrap_or(lines.len().saturating_sub(15));
        let shown = lines[first.saturating_sub(2)..].iter().take(25);
        shown.map(|line| line.chars().take(1500).collect::<String>()).collect::<Vec<_>>().join("\n")
    }
}

/// How many tasks changed each machine: `h1 : ok=80 changed=12 unreachable=0 …`.
fn recap(said: &str) -> BTreeMap<String, u64> {
    let lines = said.lines().skip_while(|line| !line.starts_with("PLAY RECAP")).skip(1);
    let count = |line: &str| line.split_whitespace().find_map(|word| word.strip_prefix("changed=")?.parse().ok());
    lines.filter_map(|line| Some((line.split_once(':')?.0.trim().to_owned(), count(line)?))).collect()
}

/// `h1: Kernel arguments`, for each task that changed something.
fn changes(said: &str) -> Vec<String> {
    let mut task = "";
    let mut changes = Vec::new();
    for line in said.lines() {
        if let Some(rest) = line.strip_prefix("TASK [") {
            task = rest.split(']').next().unwrap_or(rest);
        } else if let Some(rest) = line.strip_prefix("changed: [") {
            changes.push(format!("{}: {task}", rest.split([']', ' ']).next().unwrap_or(rest)));
        }
    }
    changes
}

fn inventory_of(work: &Path, croft: &Path, key: &Path) -> Value {
    let plane = PLACES[0];
    let credentials = work.join("credentials");
    let host = |place: &super::network::Place| {
        let pages = if place.huge_pages == 0 { String::new() } else { place.huge_pages.to_string() };
        (
            place.name.to_owned(),
            json!({
                "ansible_host": place.address,
                "kernel_hugepages_1g": pages,
                "hostagent_labels": { "machine": place.name },
            }),
        )
    };
    let hosts: serde_json::Map<String, Value> = PLACES.iter().map(host).collect();
    json!({ "all": {
        "vars": {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": key,
            "ansible_python_interpreter": "/usr/bin/python3",
            "repository_uri": format!("http://{CONTROLLER}/{}", repository::CROFT),
            "repository_suite": "./",
            "repository_trusted": true,
            "croft_executable": croft,
            "preflight_binary": croft,
            "croft_credentials_dir": credentials,
            "croft_server": format!("{}:7443", plane.address),
            "croft_ca_file": credentials.join("ca.pem"),
            "croft_token_file": credentials.join("admin.token"),
            "controlplane_public_names": [plane.address],
            "kernel_hugepages_2m": HUGE_PAGES,
            "kernel_vfio_devices": [TAKEN],
            // An emulated machine takes its time.
            "kernel_reboot_timeout": 600,
            "hostagent_ready_timeout": 300,
            "hostagent_environment": { "CROFT_IMAGE_DIR": IMAGES },
        },
        "children": {
            "croft_controlplane": { "hosts": { (plane.name): {} } },
            "croft_hosts": { "hosts": hosts },
        },
    } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "TASK [croft.fleet.kernel : Kernel arguments] ****\nok: [h1]\nchanged: [h2]\n\n\
                        TASK [Read it] ***\nchanged: [h1 -> localhost]\n\nPLAY RECAP ****\n\
                        h1                         : ok=80   changed=1    unreachable=0    failed=0    skipped=3\n\
                        h2                         : ok=80   changed=0    unreachable=0    failed=0    skipped=3\n";

    #[test]
    fn the_recap_tells_what_changed_on_which_machine() {
        assert_eq!(recap(SAID), BTreeMap::from([("h1".to_owned(), 1), ("h2".to_owned(), 0)]));
        assert_eq!(changes(SAID), ["h2: croft.fleet.kernel : Kernel arguments", "h1: Read it"]);
    }

    #[test]
    fn a_run_without_a_recap_proves_nothing() {
        let played = Played { success: true, said: String::new() };
        assert!(played.changed_nothing().is_err());
        let played = Played { success: true, said: SAID.to_owned() };
        let error = played.changed_nothing().unwrap_err().to_string();
        assert!(error.contains("h2: croft.fleet.kernel"), "{error}");
    }
}
