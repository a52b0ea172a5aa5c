//! The nftables table `inet croft`: what guests on tenants' networks reach beyond their bridge.
//!
//! | from | to | |
//! |---|---|---|
//! | a guest | its host | DHCP, and DNS at the bridge's own address |
//! | a guest | another tenant's bridge | nothing |
//! | a guest | private networks, multicast | nothing but what the operator opened ([`Reach`]) |
//! | a guest | the public internet | yes (libvirt's NAT) |
//! | anybody else | a guest | answers only |
//!
//! A table of our own: in nftables a drop is final whatever other tables say, so neither libvirt's rules nor the operator's
//! can open what is closed here. It is written whole, in one transaction, and removed with the last network. What the
//! kernel lists after that is kept and compared with later listings, so that neither another agent's options nor
//! anybody's edit stays in force.
//! IPv6 is dropped: it is not offered, and a link-local address would reach the host.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::super::reasons::FIREWALL_FAILED;
use super::BRIDGE_PREFIX;
use super::reach::{CLOSED, PRIVATE, Reach};
use crate::hypervisor::Error;
use crate::prefix::Prefix;

const DEADLINE: Duration = Duration::from_secs(20);

/// The table, as this agent's options want it.
#[derive(Debug)]
pub struct Firewall {
    reach: Reach,
    written: Option<Written>,
}

/// What was put in force last.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    bridges: BTreeSet<String>,
    /// As nft lists it: not the text that it was given. `None`: there is no table.
    listing: Option<String>,
}

impl Firewall {
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self { reach, written: None }
    }

    /// Puts the table in force for these bridges; without any it is removed.
    pub async fn apply(&mut self, bridges: BTreeSet<String>) -> Result<(), Error> {
        nft(&["-f", "-"], &ruleset(&bridges, &self.reach)).await?;
        self.written = Some(Written { listing: listing().await, bridges });
        Ok(())
    }

    /// Puts it in force again unless it is as this agent wrote it. The first time it always does: the table may be one
    /// that was written with other options.
    pub async fn keep(&mut self, bridges: BTreeSet<String>) -> Result<(), Error> {
        let found = Written { listing: listing().await, bridges };
        if self.is_in_force(&found) {
            return Ok(());
        }
        if self.written.as_ref().is_some_and(|written| written.listing != found.listing) {
            tracing::warn!("the rules that keep tenants apart were gone or changed; putting them in force again");
        }
        self.apply(found.bridges).await
    }

    fn is_in_force(&self, found: &Written) -> bool {
        match found.listing {
            Some(_) => self.written.as_ref() == Some(found),
            // Also one that went before it could be listed: no table is what is wanted only where there is no bridge.
            None => found.bridges.is_empty(),
        }
    }
}

/// The table as the kernel has it. Somebody may flush all rules (a reload of another firewall does).
async fn listing() -> Option<String> {
    nft(&["list", "table", "inet", "croft"], "").await.ok()
}

fn rule(prefixes: &[Prefix], verdict: &str) -> String {
    match prefixes {
        [] => String::new(),
        some => {
            let set: Vec<String> = some.iter().map(ToString::to_string).collect();
            format!("        ip daddr {{ {} }} {verdict}\n", set.join(", "))
        }
    }
}

/// What a guest gets at once for an address that is closed to it, rather than a timeout.
const REFUSE: &str = "reject with icmpx admin-prohibited";

/// The first two statements make deleting safe to repeat: nft knows no "delete if there".
fn ruleset(bridges: &BTreeSet<String>, reach: &Reach) -> String {
    let mut text = String::from("table inet croft\ndelete table inet croft\n");
    if bridges.is_empty() {
        return text;
    }
    // With br_netfilter loaded, frames between guests of one bridge come through here too.
    let same: String = bridges.iter().fold(String::new(), |mut rules, bridge| {
        let _ = writeln!(rules, "        iifname \"{bridge}\" oifname \"{bridge}\" accept");
        rules
    });
    let closed = rule(CLOSED, "drop");
    let (denied, allowed) = (rule(&reach.denied(), REFUSE), rule(&reach.allowed(), "accept"));
    let private = rule(PRIVATE, REFUSE);
    let any = format!("\"{BRIDGE_PREFIX}*\"");
    let _ = write!(
        text,
        r#"table inet croft {{
    chain input {{
        type filter hook input priority filter - 10; policy accept;
        iifname {any} jump to_host
    }}
    chain to_host {{
        meta nfproto ipv6 drop
        ct state established,related accept
        udp sport 68 udp dport 67 accept
        meta l4proto {{ tcp, udp }} th dport 53 fib daddr . iif type local accept
        drop
    }}
    chain forward {{
        type filter hook forward priority filter - 10; policy accept;
        iifname {any} jump from_guest
        oifname {any} jump to_guest
    }}
    chain from_guest {{
{same}        meta nfproto ipv6 drop
        oifname {any} drop
{closed}{denied}{allowed}{private}    }}
    chain to_guest {{
{same}        meta nfproto ipv6 drop
        ct state established,related accept
        drop
    }}
}}
"#
    );
    text
}

async fn nft(arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |what: String| Error::Failed { reason: FIREWALL_FAILED, message: what };
    let mut command = Command::new("nft");
    command.args(arguments).env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let run = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(DEADLINE, run)
        .await
        .map_err(|_| failed(format!("nft did not end in {} s", DEADLINE.as_secs())))?
        .map_err(|e| failed(format!("cannot run nft (package nftables): {e}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("nft refuses the rules that keep tenants apart: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_two_tenants_and_for_none() {
        let bridges = BTreeSet::from(["cr-0000000a".to_owned(), "cr-0000000b".to_owned()]);
        insta::assert_snapshot!("firewall", ruleset(&bridges, &Reach::default()));
        assert_eq!(ruleset(&BTreeSet::new(), &Reach::default()).lines().count(), 2);
    }

    #[test]
    fn a_table_that_is_not_there_is_never_in_force_for_a_bridge() {
        let found = |bridge: Option<&str>, listing: Option<&str>| Written {
            bridges: bridge.map(str::to_owned).into_iter().collect(),
            listing: listing.map(str::to_owned),
        };
        let firewall = |written| Firewall { reach: Reach::default(), written };
        let bridge = Some("cr-0000000a");
        let as_written = firewall(Some(found(bridge, Some("rules"))));
        assert!(as_written.is_in_force(&found(bridge, Some("rules"))));
        assert!(!as_written.is_in_force(&found(bridge, Some("other rules"))));
        assert!(!as_written.is_in_force(&found(Some("cr-0000000b"), Some("rules"))));
        assert!(!as_written.is_in_force(&found(bridge, None)));
        // Somebody flushed it between the writing and the listing.
        assert!(!firewall(Some(found(bridge, None))).is_in_force(&found(bridge, None)));
        // Another agent's, with other options perhaps.
        assert!(!firewall(None).is_in_force(&found(bridge, Some("rules"))));
        assert!(firewall(None).is_in_force(&found(None, None)));
    }

    #[test]
    fn what_is_denied_comes_before_what_is_allowed_and_that_before_what_is_private() {
        let prefix = |text: &str| vec![text.parse().unwrap()];
        let reach = Reach { allow: prefix("10.20.0.0/16"), deny: prefix("203.0.113.0/24") };
        let text = ruleset(&BTreeSet::from(["cr-0000000a".to_owned()]), &reach);
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        let order = [
            at("oifname \"cr-*\" drop"),
            at("ip daddr { 0.0.0.0/8,"),
            at("ip daddr { 203.0.113.0/24 } reject"),
            at("ip daddr { 10.20.0.0/16 } accept"),
            at("ip daddr { 10.0.0.0/8,"),
        ];
        assert!(order.is_sorted(), "{text}");
    }
}
