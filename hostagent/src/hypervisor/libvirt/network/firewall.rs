//! The nftables table `inet croft`: what guests on tenants' networks reach beyond their bridge.
//!
//! | from | to | |
//! |---|---|---|
//! | a guest | its host | DHCP, and DNS at the bridge's own address |
//! | a guest | another tenant's bridge, link-local, multicast | nothing |
//! | a guest | the world | yes (libvirt's NAT) |
//! | anybody else | a guest | answers only |
//!
//! A table of our own: in nftables a drop is final whatever other tables say, so neither libvirt's rules nor the operator's
//! can open what is closed here. It is written whole, in one transaction, and removed with the last network.
//! IPv6 is dropped: it is not offered, and a link-local address would reach the host.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::super::reasons::FIREWALL_FAILED;
use super::BRIDGE_PREFIX;
use crate::hypervisor::Error;

const DEADLINE: Duration = Duration::from_secs(20);

/// Puts the table in force for these bridges; without any it is removed.
pub async fn apply(bridges: &BTreeSet<String>) -> Result<(), Error> {
    nft(&["-f", "-"], &ruleset(bridges)).await.map(drop)
}

/// Whether the table is there. Somebody may flush all rules (a reload of another firewall does).
pub async fn is_in_force() -> bool {
    nft(&["list", "chain", "inet", "croft", "forward"], "").await.is_ok_and(|said| said.contains("from_guest"))
}

/// The first two statements make deleting safe to repeat: nft knows no "delete if there".
fn ruleset(bridges: &BTreeSet<String>) -> String {
    let mut text = String::from("table inet croft\ndelete table inet croft\n");
    if bridges.is_empty() {
        return text;
    }
    // With br_netfilter loaded, frames between guests of one bridge come through here too.
    let same: String = bridges.iter().fold(String::new(), |mut rules, bridge| {
        let _ = writeln!(rules, "        iifname \"{bridge}\" oifname \"{bridge}\" accept");
        rules
    });
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
        ip daddr {{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4, 240.0.0.0/4 }} drop
    }}
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
        insta::assert_snapshot!("firewall", ruleset(&bridges));
        assert_eq!(ruleset(&BTreeSet::new()).lines().count(), 2);
    }
}
