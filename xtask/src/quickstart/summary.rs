//! What a person sees at the end: tables, quota as Prometheus reads it, how to log in, how to take it down.

use anyhow::{Result, bail};

use super::croft::Croft;
use super::guest::INSTANCE;
use super::plane::Ports;
use super::site::Site;
use super::{down, metrics};

pub(super) fn print(site: &Site) -> Result<()> {
    let croft = Croft::of(site);
    for (title, words) in [
        ("instances", &["instance", "list"][..]),
        ("quota of tenant demo", &["quota", "list"]),
        ("hosts", &["host", "list"]),
    ] {
        println!("\n{title}\n{}", croft.text(words)?);
    }
    let ports = Ports::of(site)?;
    let metrics = metrics::fetch(ports.plane_metrics)?;
    let quota = metrics::samples(&metrics, "croft_quota_");
    if quota.is_empty() {
        bail!("http://127.0.0.1:{}/metrics has no croft_quota_ samples", ports.plane_metrics);
    }
    println!("\nhttp://127.0.0.1:{}/metrics", ports.plane_metrics);
    for sample in quota {
        println!("{sample}");
    }
    let key = site.user("id_ed25519");
    println!(
        "\nlog in\n  export PATH={}:$PATH CROFT_CONFIG={}\n  croft instance ssh {INSTANCE} --identity {}\n  \
         croft instance console {INSTANCE}      # the serial console",
        site.dir().join("bin").display(),
        site.user("config.yaml").display(),
        key.display(),
    );
    println!("take it down\n  {}", down::command_line(site));
    Ok(())
}
