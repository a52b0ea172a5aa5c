//! The programs of a join, run by a real shell in a guest that is a folder: what they write, when they ask for what, and that
//! nothing secret is left once the node has its certificate. `tests/join/bin` stands in for what a guest has.
#![expect(clippy::unwrap_used, reason = "every function here is part of a test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use croft_core::Timestamp;
use croft_core::id::InstanceUid;
use croft_core::instance::CloudInit;
use croft_core::instance::seed::Seed;
use croft_core::join::cluster::{Anchor, BootstrapToken};
use croft_core::join::node::{Effect, Taint};
use croft_core::join::seed::{Recipes, TICKET, Ticket, equip, strip};

const SECRET: &str = "0123456789abcdef";

struct Guest {
    root: tempfile::TempDir,
    seed: Seed,
}

impl Guest {
    /// With the program installed, as cloud-init does it, and the disk of its seed.
    fn new(recipe: &str) -> Self {
        let uid = InstanceUid::parse("01890000-0000-7000-8000-000000000001").unwrap();
        let mut seed = Seed::compose(uid, "train-1", &CloudInit::default(), "");
        equip(&mut seed, &ticket(), Recipes::built_in().get(recipe).unwrap());
        let guest = Self { root: tempfile::tempdir().unwrap(), seed };
        fs::create_dir_all(guest.path("dev/disk/by-label")).unwrap();
        fs::write(guest.path("dev/disk/by-label/CIDATA"), "").unwrap();
        guest.attach();
        guest.boot_hook();
        guest
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    /// What the disk of the seed shows from now on.
    fn attach(&self) {
        let disk = self.path("seed-disk");
        let _ = fs::remove_dir_all(&disk);
        fs::create_dir(&disk).unwrap();
        for (name, text) in &self.seed.files {
            fs::write(disk.join(name), text).unwrap();
        }
    }

    fn boot_hook(&self) {
        let hook = self.path("hook");
        // cloud-init takes the first line for itself.
        fs::write(&hook, self.seed.files["vendor-data"].strip_prefix("#cloud-boothook\n").unwrap()).unwrap();
        let output = self.shell(&[hook.to_str().unwrap()], &[]);
        assert!(output.status.success(), "{}", said(&output));
        fs::remove_file(hook).unwrap();
    }

    /// As the unit does at every boot. `kubelet`: whether the cluster gives it a certificate.
    fn join(&self, kubelet: &str) -> Output {
        self.shell(&[self.path("var/lib/croft-join/run.sh").to_str().unwrap()], &[("TEST_KUBELET", kubelet)])
    }

    /// With nothing in PATH but what stands in for a guest's programs, and the machine's plain tools.
    fn shell(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/join/bin");
        let mut command = Command::new("sh");
        command.args(arguments).env_clear().envs(environment.iter().copied());
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("CROFT_ROOT", self.root.path());
        command.env("CROFT_JOIN_PATIENCE", "0").output().unwrap()
    }

    /// Every file of the guest's, its disk of the seed left out.
    fn files(&self) -> Vec<(String, String)> {
        fn walk(root: &Path, folder: &Path, found: &mut Vec<(String, String)>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() && name != "seed-disk" {
                    walk(root, &path, found);
                } else if path.is_file() {
                    found.push((name, fs::read_to_string(&path).unwrap()));
                }
            }
        }
        let mut found = Vec::new();
        walk(self.root.path(), self.root.path(), &mut found);
        found.sort();
        found
    }

    fn holds(&self, text: &str) -> Vec<String> {
        self.files().into_iter().filter(|(_, found)| found.contains(text)).map(|(name, _)| name).collect()
    }

    /// What systemctl and the like were asked, since the last time.
    fn calls(&self) -> String {
        let path = self.path("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        calls
    }

    /// What a join left, as one text; the programs themselves are in the repository.
    fn picture(&self) -> String {
        let bin = format!("{}/tests/join/bin", env!("CARGO_MANIFEST_DIR"));
        let ours = ["var/lib/croft-join/", "etc/systemd/system/croft-join.service", "dev/", "calls"];
        let shown = |name: &str| !ours.iter().any(|own| name.starts_with(own));
        let files = self.files().into_iter().filter(|(name, _)| shown(name));
        let text: String = files.map(|(name, text)| format!("--- /{name}\n{text}")).collect();
        text.replace(&bin, "/usr/bin")
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn ticket() -> Ticket {
    Ticket {
        token: BootstrapToken {
            id: "abc123".to_owned(),
            secret: SECRET.to_owned(),
            expires: Timestamp(0),
            description: String::new(),
        },
        anchor: Anchor {
            server: "https://10.0.0.1:6443".to_owned(),
            ca: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned(),
            ca_pins: vec!["sha256:00ff".to_owned()],
        },
        node_server: String::new(),
        cluster_dns: vec!["10.96.0.10".parse().unwrap(), "fd00::a".parse().unwrap()],
        node: "train-1-deadbeef".to_owned(),
        provider_id: "croft://acme/01890000-0000-7000-8000-000000000001".to_owned(),
        labels: [("zone".to_owned(), "b".to_owned()), ("team".to_owned(), String::new())].into(),
        taints: vec![
            Taint { key: "gpu".to_owned(), value: "yes".to_owned(), effect: Effect::NoExecute },
            Taint { key: "example.com/own".to_owned(), value: String::new(), effect: Effect::NoSchedule },
        ],
    }
}

#[test]
fn each_recipe_joins_once_and_leaves_nothing_secret() {
    for recipe in ["kubelet", "kubeadm", "k3s", "rke2"] {
        let mut guest = Guest::new(recipe);
        assert!(guest.calls().ends_with("systemctl start --no-block croft-join.service\n"), "{recipe}");
        let output = guest.join("joins");
        assert!(output.status.success(), "{recipe}: {}", said(&output));
        assert!(said(&output).ends_with("croft-join: train-1-deadbeef has its certificate\n"), "{}", said(&output));
        assert!(!said(&output).contains(SECRET), "{recipe}");
        assert_eq!(guest.holds(SECRET), [""; 0], "{recipe}");
        assert!(!guest.path("run/croft-join").exists(), "{recipe}");
        let (picture, calls) = (guest.picture(), guest.calls());
        insta::with_settings!({snapshot_path => "join", prepend_module_to_snapshot => false}, {
            insta::assert_snapshot!(recipe, format!("{picture}--- calls\n{calls}"));
        });

        // The seed is replaced, and the machine boots again: nothing happens.
        strip(&mut guest.seed);
        guest.attach();
        guest.boot_hook();
        assert!(!guest.calls().contains("daemon-reload"), "{recipe}: nothing changed");
        let output = guest.join("fails");
        assert!(output.status.success() && said(&output).is_empty(), "{recipe}: {}", said(&output));
        assert_eq!(guest.calls(), "", "{recipe}");
        assert_eq!(guest.picture(), picture, "{recipe}");
    }
}

#[test]
fn a_guest_that_got_no_certificate_asks_again() {
    for recipe in ["kubelet", "k3s", "rke2"] {
        let guest = Guest::new(recipe);
        let output = guest.join("fails");
        assert_eq!(output.status.code(), Some(1), "{recipe}: {}", said(&output));
        assert!(said(&output).contains("no certificate for train-1-deadbeef") && said(&output).contains("why: asked"));
        assert_eq!(guest.calls().matches("systemctl restart").count(), 1, "{recipe}");
        // In memory only, while it is needed.
        let secret = guest.holds(SECRET);
        assert!(!secret.is_empty() && secret.iter().all(|name| name.starts_with("run/croft-join/")), "{secret:?}");
        assert_eq!(fs::metadata(guest.path("run/croft-join")).unwrap().permissions().mode() & 0o777, 0o700);

        // The same again: a kubelet that is at it is not started anew, for each start makes another request.
        assert_eq!(guest.join("fails").status.code(), Some(1));
        assert!(!guest.calls().contains("systemctl restart"), "{recipe}");

        // Power is lost, and with it the memory.
        fs::remove_dir_all(guest.path("run")).unwrap();
        let output = guest.join("joins");
        assert!(output.status.success(), "{recipe}: {}", said(&output));
        assert_eq!(guest.holds(SECRET), [""; 0], "{recipe}");
    }
}

#[test]
fn an_expired_certificate_is_none() {
    let guest = Guest::new("kubelet");
    assert!(guest.join("joins").status.success());
    fs::write(guest.path("var/lib/kubelet/pki/kubelet-client-current.pem"), "expired").unwrap();
    guest.calls();
    let output = guest.join("joins");
    assert!(said(&output).contains("joining as train-1-deadbeef"), "{}", said(&output));
    assert!(guest.calls().contains("systemctl restart"));
}

#[test]
fn without_a_token_it_waits_for_one() {
    let mut guest = Guest::new("kubelet");
    let equipped = guest.seed.clone();
    strip(&mut guest.seed);
    guest.attach();
    // `sleep` stands for the plane: it puts the ticket on the disk.
    for name in [TICKET, "croft-join-ca.crt"] {
        fs::write(guest.path(&format!("comes-{name}")), &equipped.files[name]).unwrap();
    }
    let output = guest.join("joins");
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("the seed holds no token"), "{}", said(&output));
    assert!(guest.path("var/lib/kubelet/kubeconfig").exists());
}

#[test]
fn what_the_image_says_of_its_kubelet_stays() {
    let guest = Guest::new("kubelet");
    let (unit, config) =
        (guest.path("usr/lib/systemd/system/kubelet.service"), guest.path("var/lib/kubelet/config.yaml"));
    for (path, text) in [(&unit, "[Unit]\n# the image's own\n"), (&config, "maxPods: 7\n")] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    assert!(guest.join("joins").status.success());
    assert_eq!(fs::read_to_string(config).unwrap(), "maxPods: 7\n");
    assert!(!guest.path("etc/systemd/system/kubelet.service").exists());
    let dropin = fs::read_to_string(guest.path("etc/systemd/system/kubelet.service.d/50-croft.conf")).unwrap();
    assert!(dropin.contains(" --config=/var/lib/kubelet/config.yaml "), "{dropin}");
}

#[test]
fn an_image_that_cannot_join_says_so() {
    let guest = Guest::new("kubelet");
    let bin = guest.path("bin");
    fs::create_dir(&bin).unwrap();
    for tool in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/join/bin")).unwrap() {
        let tool = tool.unwrap();
        if tool.file_name() != "kubelet" {
            symlink(tool.path(), bin.join(tool.file_name())).unwrap();
        }
    }
    let mut command = Command::new("sh");
    command.arg(guest.path("var/lib/croft-join/run.sh")).env_clear().env("CROFT_ROOT", guest.root.path());
    let output = command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("this image has no kubelet"), "{}", said(&output));
}

#[test]
fn every_program_is_good_for_a_plain_shell() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/join/seed");
    let mut seen = 0;
    for script in ["recipes", "guest"].iter().flat_map(|part| fs::read_dir(folder.join(part)).unwrap()) {
        let path = script.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sh") {
            let output = Command::new("sh").arg("-n").arg(&path).output().unwrap();
            assert!(output.status.success(), "{}: {}", path.display(), said(&output));
            seen += 1;
        }
    }
    assert_eq!(seen, 6);
}
