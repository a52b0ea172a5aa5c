//! The options of this backend, as the agent's command line and environment give them.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::network::reach::{self, Reach};
use super::network::subnet::Subnet;
use crate::prefix::Prefix;

/// Which kind of domain guests run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DomainTypeChoice {
    /// KVM where the CPU has the flag and a vCPU ran, else QEMU's emulation.
    #[default]
    Auto,
    Kvm,
    /// Emulation (TCG): slow, and needs nothing of the CPU.
    Qemu,
}

#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "libvirt")]
pub struct Args {
    /// Which libvirtd to use
    #[arg(long, env = "CROFT_LIBVIRT_URI", default_value = "qemu:///system", value_name = "URI")]
    pub libvirt_uri: String,
    /// What guests run in
    #[arg(long, env = "CROFT_DOMAIN_TYPE", value_enum, default_value_t = DomainTypeChoice::Auto)]
    pub domain_type: DomainTypeChoice,
    /// Where the NAT network of each tenant takes its /24 from
    #[arg(long, env = "CROFT_TENANT_SUBNETS", default_value = "10.200.0.0/14", value_name = "PREFIX")]
    pub tenant_subnets: Subnet,
    /// Private networks that guests on tenants' networks reach through this host; none without it. May be given several
    /// times. Never opens this host, other tenants, loopback or multicast
    #[arg(long = "tenant-allow-prefix", env = "CROFT_TENANT_ALLOW_PREFIX", value_delimiter = ',', value_name = "PREFIX",
          value_parser = reach::allowable)]
    pub tenant_allow_prefixes: Vec<Prefix>,
    /// Further networks that they do not reach, public ones too; beats what is allowed. May be given several times
    #[arg(long = "tenant-deny-prefix", env = "CROFT_TENANT_DENY_PREFIX", value_delimiter = ',', value_name = "PREFIX")]
    pub tenant_deny_prefixes: Vec<Prefix>,
    /// Directory below which platform images may be named as file://; none may without it
    #[arg(long, env = "CROFT_IMAGE_DIR", value_name = "DIR")]
    pub image_dir: Option<PathBuf>,
    /// Networks that images may be fetched from although they are not of the public internet; may be given several times
    #[arg(long = "image-allow-prefix", env = "CROFT_IMAGE_ALLOW_PREFIX", value_delimiter = ',', value_name = "PREFIX")]
    pub image_allow_prefixes: Vec<Prefix>,
    /// Further certificate authorities (PEM) that image servers may be signed by
    #[arg(long, env = "CROFT_IMAGE_CA_FILE", value_name = "FILE")]
    pub image_ca_file: Option<PathBuf>,
    /// Disk space that fetching images leaves free, in GiB
    #[arg(long, env = "CROFT_DISK_RESERVE_GIB", default_value_t = 5, value_name = "GIB")]
    pub disk_reserve_gib: u64,
    /// Largest disk that an image may hold, in GiB
    #[arg(long, env = "CROFT_MAX_VIRTUAL_GIB", default_value_t = 2048, value_name = "GIB")]
    pub max_virtual_gib: u64,
}

impl Args {
    #[must_use]
    pub fn into_config(self, state_dir: PathBuf) -> LibvirtConfig {
        LibvirtConfig {
            uri: self.libvirt_uri,
            state_dir,
            image_dir: self.image_dir,
            domain_type: self.domain_type,
            tenant_subnets: self.tenant_subnets,
            tenant_reach: Reach { allow: self.tenant_allow_prefixes, deny: self.tenant_deny_prefixes },
            allow_prefixes: self.image_allow_prefixes,
            image_ca_file: self.image_ca_file,
            disk_reserve_gib: self.disk_reserve_gib,
            max_virtual_gib: self.max_virtual_gib,
        }
    }
}

#[derive(Debug, Clone)]
pub struct LibvirtConfig {
    pub uri: String,
    pub state_dir: PathBuf,
    pub image_dir: Option<PathBuf>,
    pub domain_type: DomainTypeChoice,
    pub tenant_subnets: Subnet,
    pub tenant_reach: Reach,
    pub allow_prefixes: Vec<Prefix>,
    pub image_ca_file: Option<PathBuf>,
    pub disk_reserve_gib: u64,
    pub max_virtual_gib: u64,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn defaults_and_refusals() {
        let config = Cli::parse_from(["x"]).args.into_config("/var/lib/croft/hostagent".into());
        assert_eq!(config.uri, "qemu:///system");
        assert_eq!(config.domain_type, DomainTypeChoice::Auto);
        let several = ["x", "--image-allow-prefix", "10.0.0.0/8", "--image-allow-prefix=fd00::/8"];
        assert_eq!(Cli::parse_from(several).args.image_allow_prefixes.len(), 2);
        for wrong in [
            "--tenant-subnets=10.0.0.0/30",
            "--tenant-allow-prefix=10.20.0.0",
            "--tenant-allow-prefix=10.20.0.0/16,fd00::/8",
            "--tenant-deny-prefix=1.2.3.4/8",
            "--image-allow-prefix=10.0.0.0",
            "--domain-type=xen",
        ] {
            let error = Cli::try_parse_from(["x", wrong]).unwrap_err().to_string();
            assert!(error.contains(wrong.split('=').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn private_networks_are_closed_unless_they_are_opened() {
        let reach = |arguments: &[&str]| {
            let config = Cli::parse_from(std::iter::once(&"x").chain(arguments)).args.into_config("/s".into());
            config.tenant_reach
        };
        assert_eq!(reach(&[]), Reach::default());
        let opened = reach(&[
            "--tenant-allow-prefix=10.20.0.0/16,192.168.7.0/24",
            "--tenant-allow-prefix=100.64.0.0/10",
            "--tenant-deny-prefix=168.63.129.16/32,fd00::/8",
        ]);
        assert_eq!((opened.allow.len(), opened.deny.len()), (3, 2));
    }
}
