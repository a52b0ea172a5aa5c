//! What the lab host tells of itself after a failure, so that nobody has to fail again to learn why.

use std::path::PathBuf;

use super::ssh::Ssh;

/// Everything that a person would ask next.
const TELL: &str = "
uptime
echo '== agent'; journalctl -q -o short-precise -u croft-hostagent -n 400
echo '== libvirtd'; journalctl -q -o short-precise -u libvirtd -u virtlogd -n 80
echo '== emulators'; for log in /var/log/libvirt/qemu/*.log; do echo \"-- $log\"; tail -n 12 \"$log\" | cut -c1-2000; done
echo '== domains'; virsh -q list --all
for domain in $(virsh -q list --all --name); do virsh -q dumpxml \"$domain\" | sed -n '/<devices>/,$p'; done
echo '== kernel'; dmesg | tail -n 80
echo '== units'; systemctl --no-pager --failed; systemctl list-jobs --no-pager; ps -eo pid,stat,etime,wchan:24,args | cut -c1-160
echo '== devices'; bash /mnt/lab/state.sh
";

/// Reaches the lab host beside whoever holds it.
#[derive(Debug, Clone)]
pub struct Witness {
    pub(super) ssh: Ssh,
    pub(super) dir: PathBuf,
}

impl Witness {
    /// Writes it down beside the other logs, as `failed-NAME.log`; the last of what the agent said is told at once.
    pub fn tell(&self, name: &str) -> String {
        let Some(said) = self.ssh.attempt(TELL) else {
            return format!("the lab host does not answer; its serial line:\n{}", super::serial_end(&self.dir));
        };
        let words: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let file = self.dir.join(format!("failed-{words}.log"));
        std::fs::write(&file, format!("{}{}", said.stdout, said.stderr)).expect("a log");
        let agent = said.stdout.split("== libvirtd").next().unwrap_or_default();
        let lines: Vec<_> = agent.lines().collect();
        format!("all of it: {}\n{}", file.display(), lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}
