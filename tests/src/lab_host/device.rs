//! The device library on the lab's kernel, without an agent: looks, wishes, and how the host is set up, as text.

use std::time::Duration;

use croft_gpu::apply::Outcome;
use croft_gpu::host::Host;
use croft_gpu::pci::PciFunction;
use croft_gpu::plan::{Plan, Refusal, Wish};
use serde::Deserialize;

use super::LabHost;

/// What `wish` (an example of croft-gpu) answers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Wished {
    Refused { refusal: Refusal },
    Carried { plan: Plan, give_back: Option<Wish>, outcome: Outcome, seconds: f64 },
}

/// A wish that came true.
#[derive(Debug)]
pub struct Granted {
    pub plan: Plan,
    pub back: Option<Wish>,
    pub seconds: f64,
    /// The methods by which devices were reset on the way.
    pub resets: Vec<String>,
}

impl LabHost {
    pub fn look(&self) -> Host {
        // Status 1 says that there are errors, and they are in the answer.
        let said = self.run("/mnt/lab/inventory --json");
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    pub fn function(&self, address: &str) -> PciFunction {
        let host = self.look();
        let found = host.pci.devices.into_iter().find(|function| function.address.to_string() == address);
        found.unwrap_or_else(|| panic!("no {address}; {:?}", host.pci.errors))
    }

    pub fn wish(&self, wish: &Wish) -> Wished {
        let wish = serde_json::to_string(wish).expect("JSON");
        // What it tells besides goes through a file: a helper that hangs in the kernel would keep the session open with it.
        let said = self
            .run(&format!("/mnt/lab/wish '{wish}' 2>/run/wish.log; status=$?; cat /run/wish.log >&2; exit $status"));
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
    }

    /// Wishes, and it comes true.
    pub fn granted(&self, wish: &Wish) -> Granted {
        match self.wish(wish) {
            Wished::Carried { plan, give_back: back, outcome: Outcome::Applied { resets }, seconds } => {
                let resets = resets.into_iter().filter_map(|record| record.method).collect();
                Granted { plan, back, seconds, resets }
            }
            other => panic!("{wish:?}: {other:?}\n{}", self.serial_end()),
        }
    }

    /// Wishes, and it is refused before anything is touched.
    pub fn refused(&self, wish: &Wish) -> Refusal {
        match self.wish(wish) {
            Wished::Refused { refusal } => refusal,
            other @ Wished::Carried { .. } => panic!("{wish:?}: {other:?}"),
        }
    }

    /// Wishes, and the program that carries it out is killed when it comes to this step. `false`: it has fewer.
    pub fn killed_at(&self, wish: &Wish, step: usize) -> bool {
        let wish = serde_json::to_string(wish).expect("JSON");
        let said = self.run(&format!("/mnt/lab/wish --die-before {step} '{wish}'"));
        assert!(said.success || said.stdout.is_empty(), "{said:?}");
        !said.success
    }

    /// A process that looks at this display, in a unit of its own; the name of the file that it has open.
    pub fn look_at(&self, unit: &str, display: &str) -> String {
        let card = self.sh(&format!("basename /sys/bus/pci/devices/{display}/drm/card*"));
        self.keep_open(unit, &format!("/dev/dri/{card}"));
        card
    }

    /// A process with this file open, in a unit of its own.
    pub fn keep_open(&self, unit: &str, file: &str) {
        self.sh(&format!("systemd-run -q --unit {unit} python3 /mnt/lab/open.py {file}"));
        let open = format!("find /proc/$(systemctl show -p MainPID --value {unit})/fd -lname {file} | grep -q .");
        self.until(Duration::from_secs(60), "the file is open", &open);
    }

    /// How every device is set up, as text.
    pub fn state(&self) -> String {
        self.sh("bash /mnt/lab/state.sh")
    }
}
