//! `croft instance ssh`: OpenSSH with this program as its way into the guest.
//!
//! The host key is remembered under the instance's uid, so that an instance that is deleted and made again under its
//! old name does not look like an attack, and two tenants' `web` do not meet.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use clap::Args;

use crate::app::{App, config_path};
use crate::failure::{Failure, Result};
use crate::names;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  croft instance ssh web\n  croft instance ssh web -l root -- uptime\n  \
    croft instance ssh web -- -v -L 8080:localhost:80")]
pub struct Ssh {
    instance: String,
    /// Who to log in as
    #[arg(short, long, default_value = "debian")]
    login: String,
    /// The private key to use
    #[arg(short, long, value_name = "FILE")]
    identity: Option<OsString>,
    /// The guest's SSH port
    #[arg(short, long, default_value_t = 22)]
    port: u16,
    /// More options and the command, for ssh
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Replaces this process: ssh's exit code is the exit code.
pub async fn run(app: &App, ssh: Ssh) -> Result<()> {
    let instance = super::get(app, super::name(app, &ssh.instance)?).await?;
    let uid = instance.metadata.as_ref().map(|metadata| metadata.uid.as_str()).unwrap_or_default();
    let config = config_path()?;
    let directory = config.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)
        .map_err(|error| Failure::local(format!("cannot make {}: {error}", directory.display())))?;
    let program = std::env::current_exe().map_err(|error| Failure::local(format!("where is croft? {error}")))?;
    let proxy = proxy_command(&program, app.chosen.context_name.as_deref(), &instance.name, ssh.port)?;
    let known_hosts = directory.join("known_hosts");
    let error =
        std::process::Command::new("ssh").args(arguments(&ssh, &instance.name, uid, &proxy, &known_hosts)).exec();
    Err(Failure::local(format!("cannot run ssh: {error}")))
}

fn arguments(ssh: &Ssh, name: &str, uid: &str, proxy: &str, known_hosts: &Path) -> Vec<OsString> {
    let options = [
        format!("ProxyCommand={proxy}"),
        format!("HostKeyAlias=croft-{uid}"),
        // Quoted: the file's name may hold spaces, and ssh would take them for several files.
        format!("UserKnownHostsFile=\"{}\"", known_hosts.display()),
        // The tunnel has authenticated the instance already; later keys must be the same.
        "StrictHostKeyChecking=accept-new".to_owned(),
        "CheckHostIP=no".to_owned(),
    ];
    let mut arguments: Vec<OsString> = Vec::new();
    for option in options {
        arguments.extend(["-o".into(), option.into()]);
    }
    if let Some(identity) = &ssh.identity {
        arguments.extend(["-i".into(), identity.clone(), "-o".into(), "IdentitiesOnly=yes".into()]);
    }
    arguments.extend(["-l".into(), ssh.login.clone().into(), names::id(name).into()]);
    // OpenSSH takes options after the destination, too.
    arguments.extend(ssh.args.iter().cloned());
    arguments
}

/// For the user's shell, through which ssh runs it. The environment (CROFT_…) is inherited.
fn proxy_command(program: &Path, context: Option<&str>, name: &str, port: u16) -> Result<String> {
    let program = program
        .to_str()
        .ok_or_else(|| Failure::local(format!("{} is no text; ssh could not run it", program.display())))?;
    let mut command = quote(program);
    if let Some(context) = context {
        command.push_str(&format!(" --context {}", quote(context)));
    }
    command.push_str(&format!(" instance port-forward {} --stdio {port}", quote(name)));
    // ssh expands %h and the like.
    Ok(command.replace('%', "%%"))
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_finds_its_way_back_to_us() {
        let command =
            proxy_command(Path::new("/opt/it's/cr%ft"), Some("my plane"), "tenants/a/instances/web", 22).unwrap();
        assert_eq!(
            command,
            r"'/opt/it'\''s/cr%%ft' --context 'my plane' instance port-forward 'tenants/a/instances/web' --stdio 22"
        );
    }

    #[test]
    fn the_key_belongs_to_the_uid_and_the_rest_to_ssh() {
        let ssh = Ssh {
            instance: "web".into(),
            login: "root".into(),
            identity: Some("/k".into()),
            port: 22,
            args: vec!["-v".into(), "uptime".into()],
        };
        let arguments = arguments(&ssh, "tenants/a/instances/web", "0199", "P", Path::new("/c d/known_hosts"));
        let line = arguments.iter().map(|a| a.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        assert!(line.contains("-o HostKeyAlias=croft-0199 -o UserKnownHostsFile=\"/c d/known_hosts\""), "{line}");
        assert!(line.ends_with("-i /k -o IdentitiesOnly=yes -l root web -v uptime"), "{line}");
    }
}
