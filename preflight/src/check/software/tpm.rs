//! swtpm, which gives a guest a TPM.

use super::super::{Check, Found};
use crate::facts::{self, Facts};
use crate::finding::{Finding, Level};

pub(in crate::check) const CHECK: Check = Check {
    id: "tpm",
    looks_at: "the program swtpm",
    why: "no instance of Croft has a TPM yet; domains of your own may",
    worst: Level::Info,
    role: None,
    look,
};

fn look(facts: &Facts) -> Found {
    Ok(vec![match facts::program(&facts.fs, "swtpm")? {
        Some(path) => Finding::ok("host", path),
        None => Finding::info("host", "swtpm is not installed", "nothing: Croft does not use it"),
    }])
}
