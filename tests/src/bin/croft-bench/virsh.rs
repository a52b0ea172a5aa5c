//! The agent's define and start beside `virsh define` and `virsh start` of the very same domain.

use std::process::Command;
use std::time::Instant;

pub async fn run() -> anyhow::Result<()> {
    if std::env::var_os("CROFT_LIBVIRT_TEST").is_none() {
        println!("agent define+start beside virsh: not run, needs a libvirtd of its own:");
        println!("  sudo tests/with-libvirtd.sh cargo xtask bench -- --only virsh");
        return Ok(());
    }
    let lab = croft_tests::lab::Lab::start().await;
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for round in 0..5 {
        let id = format!("bench{round}");
        let began = Instant::now();
        lab.create_and_run(&id).await;
        ours.push(began.elapsed());
        let uid = lab.api.get("acme", &id).await?.metadata.unwrap_or_default().uid;
        let domain = format!("croft-{uid}");
        let xml = virsh(&["dumpxml", "--inactive", &domain])?;
        lab.stop_now(&id).await;
        let file = lab.state.join(format!("{id}.xml"));
        std::fs::write(&file, xml)?;
        virsh(&["undefine", "--keep-nvram", &domain])?;
        let began = Instant::now();
        virsh(&["define", file.to_str().unwrap_or_default()])?;
        virsh(&["start", &domain])?;
        theirs.push(began.elapsed());
        virsh(&["destroy", &domain])?;
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

fn virsh(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("virsh").arg("-q").args(arguments).output()?;
    anyhow::ensure!(output.status.success(), "virsh {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
