//! The agent's define and start beside `virsh define` and `virsh start` of the same domain under another name: one of
//! Croft's own would be stopped at once by the agent, which was told that it is to be off.

use std::process::Command;
use std::time::Instant;

pub async fn run() -> anyhow::Result<()> {
    let lab = croft_tests::lab::Lab::start().await;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for round in 0..5 {
        let id = format!("bench{round}");
        let began = Instant::now();
        lab.create_and_run(&id).await;
        ours.push(began.elapsed());
        let uid = lab.api.get("acme", &id).await?.metadata.unwrap_or_default().uid;
        let xml = foreign(&virsh(&["dumpxml", "--inactive", &format!("croft-{uid}")])?, &id);
        lab.stop_now(&id).await;
        let file = lab.state.join(format!("{id}.xml"));
        std::fs::write(&file, xml)?;
        let began = Instant::now();
        virsh(&["define", file.to_str().unwrap_or_default()])?;
        virsh(&["start", &id])?;
        theirs.push(began.elapsed());
        virsh(&["destroy", &id])?;
        virsh(&["undefine", "--keep-nvram", &id])?;
        lab.remove(&id).await;
    }
    ours.sort();
    theirs.sort();
    let (agent, reference) = (ours[ours.len() / 2], theirs[theirs.len() / 2]);
    println!("create to RUNNING through plane and agent: {agent:.1?}");
    println!("virsh define + start of the same domain:   {reference:.1?}");
    println!("ratio: {:.2}", agent.as_secs_f64() / reference.as_secs_f64());
    Ok(())
}

/// The same machine without anything that says whose it is.
fn foreign(xml: &str, name: &str) -> String {
    let cut = |xml: &str, tag: &str, instead: &str| {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        match (xml.find(&open), xml.find(&close)) {
            (Some(from), Some(to)) => format!("{}{instead}{}", &xml[..from], &xml[to + close.len()..]),
            _ => xml.to_owned(),
        }
    };
    let named = cut(xml, "name", &format!("<name>{name}</name>"));
    cut(&cut(&named, "uuid", ""), "metadata", "")
}

fn virsh(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("virsh").arg("-q").args(arguments).output()?;
    anyhow::ensure!(output.status.success(), "virsh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
