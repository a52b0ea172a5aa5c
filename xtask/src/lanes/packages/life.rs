//! A machine's years with our packages, in one system, in this order: what one test leaves is what the next one finds.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::debian::Made;
use crate::debian::roots::Root;
use crate::run::Run;
use crate::trial::Trial;

const PACKAGES: &str = "croft croft-controlplane croft-hostagent";
const DATA: &str = "/var/lib/croft/controlplane";
/// As /etc/croft/controlplane.env and the unit have it, but on a port that is free.
const SERVE: &str = "croft-controlplane serve --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0";
/// A migration of a release that is still to come.
const FROM_THE_FUTURE: &str =
    "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time)
     VALUES (999, 'future', '2030-01-01', TRUE, x'00', 0)";

pub(super) fn of_packages(trial: &mut Trial, suite: &str, old: &Made, new: &Made) {
    let machine = match Machine::new(suite, old, new) {
        Ok(machine) => machine,
        Err(error) => {
            trial.test(&format!("{suite}: a clean system"), || Err(error));
            return;
        }
    };
    let mut test =
        |what: &str, body: fn(&Machine) -> Result<()>| trial.test(&format!("{suite}: {what}"), || body(&machine));
    if !test("installs with what it depends on", Machine::installs) {
        return; // nothing to go on with
    }
    test("the files are as packed, and units and programs are sound", Machine::is_sound);
    test("nothing is enabled, and nothing was started", Machine::nothing_runs);
    test("a plane starts as its own user, in a directory that nobody else reads", Machine::plane_starts);
    test("an upgrade keeps settings, database and disks", Machine::upgrades);
    test("a downgrade of the same schema is let in", Machine::downgrades);
    test("a downgrade across a schema is refused, and changes nothing", Machine::refuses_a_downgrade);
    test("a purge of the agent leaves disks of instances, and says so", Machine::agent_leaves_disks);
    test("a purge of the agent without instances leaves nothing", Machine::agent_leaves_nothing);
    test("a removal keeps settings and database", Machine::removes);
    test("a purge leaves the database, says so, and leaves nothing else", Machine::purges);
}

/// A clean system, with both versions of the packages in its /mnt.
struct Machine {
    root: Root,
    old: String,
    new: String,
}

impl Machine {
    fn new(suite: &str, old: &Made, new: &Made) -> Result<Machine> {
        let shown = old.files.first().and_then(|file| file.parent()?.parent()).context("no package was made")?;
        Ok(Machine { root: Root::unpack(suite, shown)?, old: old.version.clone(), new: new.version.clone() })
    }

    fn installs(&self) -> Result<()> {
        self.root.apt(&format!("install /mnt/{}/*.deb", self.old))?;
        self.has_version(&self.old)
    }

    fn is_sound(&self) -> Result<()> {
        self.root.succeed(&format!("dpkg --verify {PACKAGES}"))?;
        // Its words about units of others are not ours to answer for.
        let said = self.root.sh("systemd-analyze verify --man=no /usr/lib/systemd/system/croft-*.service 2>&1")?.stdout;
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("croft-")).collect();
        ensure!(ours.is_empty(), "systemd-analyze verify:\n{}", ours.join("\n"));
        let modes = self.root.succeed(&format!("stat -c '%a %U %n' /etc/croft/*.env {DATA} /var/lib/croft"))?;
        let expected = format!(
            "600 root /etc/croft/controlplane.env\n600 root /etc/croft/hostagent.env\n700 croft {DATA}\n755 root /var/lib/croft\n"
        );
        ensure!(modes == expected, "modes and owners:\n{modes}");
        self.root.succeed("runuser -u croft -- true")?;
        Ok(())
    }

    fn nothing_runs(&self) -> Result<()> {
        for unit in ["croft-controlplane", "croft-hostagent"] {
            let state = self.root.sh(&format!("systemctl is-enabled {unit}"))?.stdout;
            ensure!(state.trim() == "disabled", "{unit} is {state}");
        }
        ensure!(self.root.succeed(&format!("ls -A {DATA}"))?.is_empty(), "a plane was started");
        Ok(())
    }

    fn plane_starts(&self) -> Result<()> {
        self.root.succeed(&format!(
            "setpriv --reuid=croft --regid=croft --init-groups -- {SERVE} & pid=$!
             for _ in $(seq 600); do [ -e {DATA}/listen.json ] && break; kill -0 $pid || exit 1; sleep 0.1; done
             test -e {DATA}/listen.json; kill $pid; wait $pid"
        ))?;
        self.has_schema("database 1")?;
        let others = self
            .root
            .succeed(&format!("find {DATA} ! -user croft -o -type f -perm /077 ! -name listen.json ! -name ca.pem"))?;
        ensure!(others.is_empty(), "not only the user croft reads these:\n{others}");
        Ok(())
    }

    fn upgrades(&self) -> Result<()> {
        self.root.succeed(
            "echo CROFT_PUBLIC_NAME=plane.example >>/etc/croft/controlplane.env
             mkdir -p /var/lib/croft/hostagent/instances/one && echo disk >/var/lib/croft/hostagent/instances/one/disk.qcow2",
        )?;
        self.root.succeed(&format!("dpkg --install /mnt/{}/*.deb </dev/null", self.new))?;
        self.has_version(&self.new)?;
        self.kept()?;
        self.has_schema("database 1")?;
        let changed = self.root.sh(&format!("dpkg --verify {PACKAGES}"))?.stdout;
        ensure!(changed.lines().all(|line| line.ends_with("/etc/croft/controlplane.env")), "changed:\n{changed}");
        Ok(())
    }

    fn downgrades(&self) -> Result<()> {
        self.root.succeed(&format!("dpkg --install /mnt/{}/*.deb </dev/null", self.old))?;
        self.has_version(&self.old)?;
        self.kept()?;
        self.root.succeed(&format!("dpkg --install /mnt/{}/*.deb </dev/null", self.new))?;
        Ok(())
    }

    fn refuses_a_downgrade(&self) -> Result<()> {
        let database = self.root.path(&format!("{DATA}/croft.db"));
        Run::new("sqlite3").arg(&database).arg(FROM_THE_FUTURE).with_root().stdout()?;
        self.has_schema("database 999")?;
        let ended = self.root.sh(&format!("dpkg --install /mnt/{}/croft-controlplane_*.deb </dev/null", self.old))?;
        ensure!(!ended.success, "the older version was let in");
        let (old, new) = (&self.old, &self.new);
        let why = format!("refusing the downgrade from {new} to {old}: the database has schema 999, and version {old}");
        ensure!(ended.stderr.contains(&why), "it does not say why:\n{}", ended.stderr);
        self.has_version(&self.new)?;
        self.kept()?;
        // Not the package alone: the program that comes with it would refuse such a database, too.
        let serve = self.root.sh(&format!("runuser -u croft -- {SERVE}"))?;
        ensure!(serve.stderr.contains("has schema 999"), "the plane took it:\n{}", serve.stderr);
        Ok(())
    }

    fn agent_leaves_disks(&self) -> Result<()> {
        let ended = self.root.sh("dpkg --purge croft-hostagent")?;
        ensure!(
            ended.success && ended.stderr.contains("/var/lib/croft/hostagent stays"),
            "{}{}",
            ended.stdout,
            ended.stderr
        );
        self.root.succeed("test -e /var/lib/croft/hostagent/instances/one/disk.qcow2")?;
        self.root.succeed(&format!("dpkg --install /mnt/{}/croft-hostagent_*.deb", self.new))?;
        Ok(())
    }

    fn agent_leaves_nothing(&self) -> Result<()> {
        self.root
            .succeed("rm -r /var/lib/croft/hostagent/instances/one; echo key >/var/lib/croft/hostagent/key.pem")?;
        self.root.succeed("dpkg --purge croft-hostagent")?;
        self.nothing_is_left("hostagent", &[])
    }

    fn removes(&self) -> Result<()> {
        self.root.succeed("dpkg --remove croft croft-controlplane")?;
        self.kept_settings()?;
        self.root.succeed(&format!("test -e {DATA}/croft.db && test ! -e /usr/bin/croft-controlplane"))?;
        Ok(())
    }

    fn purges(&self) -> Result<()> {
        let ended = self.root.sh("dpkg --purge croft croft-controlplane")?;
        ensure!(ended.success && ended.stderr.contains(&format!("{DATA} stays")), "{}{}", ended.stdout, ended.stderr);
        self.nothing_is_left("croft", &["/var/lib/croft", DATA])
    }

    /// No path has this in its last name, but those that are known to stay with what is below them.
    fn nothing_is_left(&self, name: &str, known: &[&str]) -> Result<()> {
        let found = self.root.succeed(&format!(
            "find / -xdev '(' -path '{DATA}/*' -o -path /mnt ')' -prune -o -name '*{name}*' -print"
        ))?;
        let left: Vec<&str> = found.lines().filter(|path| !known.contains(path)).collect();
        ensure!(left.is_empty(), "left behind:\n{}", left.join("\n"));
        Ok(())
    }

    fn has_version(&self, version: &str) -> Result<()> {
        let said = self.root.succeed("croft --version; croft-controlplane --version; croft-hostagent --version")?;
        let expected: String = PACKAGES.split(' ').map(|name| format!("{name} {version}\n")).collect();
        ensure!(said == expected, "the programs say:\n{said}");
        let status =
            self.root.succeed(&format!("dpkg-query -W -f '${{Version}} ${{db:Status-Abbrev}}\\n' {PACKAGES}"))?;
        ensure!(status.lines().all(|line| line.trim() == format!("{version} ii")), "dpkg says:\n{status}");
        Ok(())
    }

    fn has_schema(&self, line: &str) -> Result<()> {
        let said = self.root.succeed("runuser -u croft -- croft-controlplane admin schema")?;
        ensure!(said.lines().any(|said| said == line), "not {line}:\n{said}");
        Ok(())
    }

    fn kept(&self) -> Result<()> {
        self.kept_settings()?;
        let disk = self.root.path("/var/lib/croft/hostagent/instances/one/disk.qcow2");
        ensure!(fs::read_to_string(&disk).is_ok_and(|text| text == "disk\n"), "{} changed", disk.display());
        Ok(())
    }

    fn kept_settings(&self) -> Result<()> {
        self.root.succeed("grep -q ^CROFT_PUBLIC_NAME=plane.example$ /etc/croft/controlplane.env")?;
        Ok(())
    }
}
