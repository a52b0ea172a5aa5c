//! What Debian's own tools say of a package file.

use anyhow::{Result, bail, ensure};

use crate::debian::Made;
use crate::run::Run;
use crate::trial::Trial;

pub(super) fn judged(trial: &mut Trial, made: &Made) {
    trial.test("lintian finds neither errors nor warnings", || lintian(made));
    trial.test("each program has its pages, its completions and its settings", || contents(made));
}

fn lintian(made: &Made) -> Result<()> {
    let ended = Run::new("lintian")
        .args([
            "--fail-on",
            "error,warning",
            "--display-level",
            ">=warning",
            "--no-cfg",
            "--allow-root",
            "--profile",
            "debian",
        ])
        .args(&made.files)
        .ended()?;
    ensure!(ended.success, "lintian:\n{}{}", ended.stdout, ended.stderr);
    Ok(())
}

fn contents(made: &Made) -> Result<()> {
    /// Of each package, beside its program, copyright and changelog.
    const FILES: [(&str, &[&str]); 3] = [
        ("croft", &["usr/share/man/man1/croft-instance-create.1.gz"]),
        (
            "croft-controlplane",
            &[
                "etc/croft/controlplane.env",
                "usr/lib/systemd/system/croft-controlplane.service",
                "usr/lib/sysusers.d/croft-controlplane.conf",
                "usr/lib/tmpfiles.d/croft-controlplane.conf",
                "usr/share/man/man8/croft-controlplane-admin-restore.8.gz",
            ],
        ),
        (
            "croft-hostagent",
            &[
                "etc/croft/hostagent.env",
                "usr/lib/systemd/system/croft-hostagent.service",
                "usr/share/man/man8/croft-hostagent-run.8.gz",
            ],
        ),
    ];
    for ((name, own), file) in FILES.into_iter().zip(&made.files) {
        let listing = Run::new("dpkg-deb").arg("--contents").arg(file).stdout()?;
        let has = |path: &str| listing.lines().any(|line| line.ends_with(&format!(" ./{path}")));
        let common = [
            format!("usr/bin/{name}"),
            format!("usr/share/bash-completion/completions/{name}"),
            format!("usr/share/zsh/vendor-completions/_{name}"),
            format!("usr/share/fish/vendor_completions.d/{name}.fish"),
            format!("usr/share/doc/{name}/copyright"),
            format!("usr/share/doc/{name}/changelog.gz"),
            format!("usr/share/doc/{name}/README.Debian"),
        ];
        for path in common.iter().map(String::as_str).chain(own.iter().copied()) {
            if !has(path) {
                bail!("{} has no {path}:\n{listing}", file.display());
            }
        }
    }
    Ok(())
}
