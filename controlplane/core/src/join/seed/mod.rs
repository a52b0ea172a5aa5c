//! What a guest is given to join with: files beside its seed's own texts, and the program that uses them.
//!
//! ```text
//! CIDATA/vendor-data        cloud-init runs it at every boot: it installs run.sh, recipe.sh and a unit, and starts the unit.
//!                           Holds no secret, for cloud-init keeps copies of it
//!       /croft-join.env     the token, and all that a recipe wants to know; nobody copies it but run.sh, into memory
//!       /croft-join-ca.crt  the only CA that is believed
//! ```
//! The last two leave with the token ([`strip`]); the first stays, so that the volume that comes back for another join is the
//! same again. `vendor-data` is a script of cloud-init's own kind `cloud-boothook`, and no `#cloud-config`: of that, a key that
//! user data has too (`runcmd`, `write_files`) would be the user's alone.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::cluster::{Anchor, BootstrapToken};
use super::node::{Effect, Taint, UNINITIALISED_TAINT};
use crate::instance::seed::{self, Seed};
use crate::meta::Labels;

mod recipe;

pub use recipe::{BadRecipe, Recipe, Recipes};

/// The program.
pub const PROGRAM: &str = "vendor-data";
/// The secret.
pub const TICKET: &str = "croft-join.env";
pub const CA: &str = "croft-join-ca.crt";

const INSTALL: &str = include_str!("guest/install.sh");
const RUN: &str = include_str!("guest/run.sh");
const UNIT: &str = include_str!("guest/croft-join.service");

/// All that one guest is told of its node and its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub token: BootstrapToken,
    pub anchor: Anchor,
    /// `https://…` as nodes reach the API server; empty: as Croft does.
    pub node_server: String,
    pub cluster_dns: Vec<IpAddr>,
    pub node: String,
    pub provider_id: String,
    pub labels: Labels,
    /// Besides the one of a node that Croft has not seen to yet.
    pub taints: Vec<Taint>,
}

/// Adds what the guest joins with, in the place of what is there of an earlier join.
pub fn equip(seed: &mut Seed, ticket: &Ticket, recipe: &Recipe) {
    seed.files.insert(PROGRAM.to_owned(), program(recipe));
    seed.files.insert(TICKET.to_owned(), ticket.shell());
    let newline = if ticket.anchor.ca.ends_with('\n') { "" } else { "\n" };
    seed.files.insert(CA.to_owned(), format!("{}{newline}", ticket.anchor.ca));
}

/// Takes the secret away, and whatever is good for nothing without it.
pub fn strip(seed: &mut Seed) {
    seed.files.remove(TICKET);
    seed.files.remove(CA);
}

/// The id and the secret of the token within; `None`: there is none.
#[must_use]
pub fn token_of(seed: &Seed) -> Option<(String, String)> {
    let lines = seed.files.get(TICKET)?.lines();
    let token = lines.filter_map(|line| line.strip_prefix("CROFT_TOKEN='")?.strip_suffix('\'')).next()?;
    let (id, secret) = token.split_once('.')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// What `vendor-data` says: the installer with its three parts in their places. Each ends at a line that cannot come in it: its
/// own digest.
fn program(recipe: &Recipe) -> String {
    let parts = [("RUN", RUN), ("RECIPE", recipe.text()), ("UNIT", UNIT)];
    let mut text = "#cloud-boothook\n".to_owned();
    for line in INSTALL.lines() {
        let Some((mark, part)) = parts.iter().find(|(mark, _)| line.contains(&format!("@{mark}"))) else {
            let _ = writeln!(text, "{line}");
            continue;
        };
        if line == format!("@{mark}@") {
            text.push_str(part);
            text.push_str(if part.ends_with('\n') { "" } else { "\n" });
        } else {
            let _ = writeln!(text, "{}", line.replace(&format!("@{mark}-END@"), &hex(part)));
        }
    }
    text
}

fn hex(part: &str) -> String {
    seed::digest(part.as_bytes()).split_off("sha256:".len())
}

impl Ticket {
    /// As a POSIX shell reads it. docs/kubernetes.md tells recipes' authors what each is.
    fn shell(&self) -> String {
        let server = if self.node_server.is_empty() { &self.anchor.server } else { &self.node_server };
        let dns: Vec<_> = self.cluster_dns.iter().map(ToString::to_string).collect();
        let labels: Vec<_> = self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let variables = [
            ("CROFT_NODE_NAME", self.node.clone()),
            ("CROFT_PROVIDER_ID", self.provider_id.clone()),
            ("CROFT_SERVER", server.clone()),
            ("CROFT_CA_PINS", self.anchor.ca_pins.join(",")),
            ("CROFT_TOKEN_ID", self.token.id.clone()),
            ("CROFT_TOKEN", self.token.text()),
            ("CROFT_LABELS", labels.join(",")),
            ("CROFT_TAINTS", self.taints().join(",")),
            ("CROFT_CLUSTER_DNS", dns.join(",")),
        ];
        variables.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name}={}", quoted(value));
            text
        })
    }

    /// `key=value:Effect`, as kubelets take them. The cluster's policy lets no node of Croft's come without the first one.
    fn taints(&self) -> Vec<String> {
        let first = Taint { key: UNINITIALISED_TAINT.to_owned(), value: String::new(), effect: Effect::NoSchedule };
        let others = self.taints.iter().filter(|taint| taint.key != UNINITIALISED_TAINT);
        let text = |taint: &Taint| {
            let Taint { key, value, effect } = taint;
            let equals = if value.is_empty() { "" } else { "=" };
            format!("{key}{equals}{value}:{effect:?}")
        };
        std::iter::once(&first).chain(others).map(text).collect()
    }
}

/// Between single quotes a shell takes every character for itself, but a single quote.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests;
