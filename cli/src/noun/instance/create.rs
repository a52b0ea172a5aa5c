//! `croft instance create`: the options become an `Instance`; what is valid is the plane's to say.

use std::time::Duration;

use clap::{Args, ValueEnum};
use croft_proto::v1::{
    self,
    instance_spec::{BootSource, PlacementPolicy, Power, Restart},
};

use super::devices::Devices;
use super::node::Node;
use super::{explain, power};
use crate::app::App;
use crate::failure::Result;
use crate::flags::{Change, pair};
use crate::labels::Labels;
use crate::noun::image;
use crate::wait::WaitArgs;
use crate::{duration, keys, names, size};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    croft instance create web --image debian-13 --vcpus 2 --memory 2GiB --disk 6GiB \\\n    \
        --ssh-key ~/.ssh/id_ed25519.pub --wait\n  \
    croft instance create db --image debian-13 --vcpus 8 --memory 32GiB --disk 100GiB \\\n    \
        --dedicated-cpus --single-numa-cell --huge-pages 1GiB --host-selector disk=nvme --explain\n  \
    croft instance create train --image debian-13 --vcpus 8 --memory 64GiB --gpu h100_sxm_80gb:2 --device pool=nic-vf\n  \
    croft instance create infer --image debian-13 --vcpus 4 --memory 16GiB --gpu mig=2g.20gb\n  \
    croft instance create node-1 --image k8s-node --vcpus 8 --memory 32GiB --cluster prod --node-labels zone=a --wait")]
pub struct Create {
    /// 1 to 50 of a-z, 0-9 and -, beginning with a letter
    instance: String,
    /// What to boot from: the tenant's own image of that name, else the platform's
    #[arg(long)]
    image: String,
    #[arg(long, value_name = "N", help = "Virtual CPUs")]
    vcpus: i32,
    /// 512MiB, 2GiB, or a number of MiB
    #[arg(long, value_name = "SIZE", value_parser = size::memory_mib)]
    memory: i64,
    /// Size of the root disk: 6GiB, or a number of GiB [default: as large as the image needs]
    #[arg(long, value_name = "SIZE", value_parser = size::disk_gib)]
    disk: Option<i64>,
    /// A public key, or a file of them, that may log in; may be given again
    #[arg(long = "ssh-key", value_name = "FILE|KEY")]
    ssh_keys: Vec<String>,
    /// cloud-init user data; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    user_data: Option<String>,
    /// cloud-init network configuration, instead of DHCP everywhere
    #[arg(long, value_name = "FILE")]
    network_config: Option<String>,
    #[arg(long, help = "The guest's host name, if not the instance's")]
    hostname: Option<String>,
    /// A network to attach to; may be given again. Without any: the tenant's own NAT network
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,
    #[command(flatten)]
    devices: Devices,
    #[command(flatten)]
    node: Node,
    /// Only hosts with this label; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    host_selector: Vec<(String, String)>,
    /// When to start it again by itself [default: on-failure]
    #[arg(long, value_enum)]
    restart: Option<RestartArg>,
    /// Which of the hosts that fit [default: spread]
    #[arg(long, value_enum)]
    policy: Option<PolicyArg>,
    /// One vCPU on one logical CPU of one NUMA cell
    #[arg(long)]
    dedicated_cpus: bool,
    /// All vCPUs and memory from one NUMA cell
    #[arg(long)]
    single_numa_cell: bool,
    /// Memory in pages of this size: 2MiB or 1GiB
    #[arg(long, value_name = "SIZE", value_parser = size::huge_page_kib)]
    huge_pages: Option<i64>,
    /// How long a stop waits for the guest [default: 90s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    stop_timeout: Option<Duration>,
    /// Define it, but leave it off
    #[arg(long)]
    stopped: bool,
    #[command(flatten)]
    labels: Labels,
    /// Say for each host whether it would fit and what would help, and create nothing
    #[arg(long, conflicts_with_all = ["wait", "dry_run"])]
    explain: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum RestartArg {
    /// Also after the guest powered itself off
    Always,
    /// After a crash or the loss of the host
    OnFailure,
    Never,
}

impl RestartArg {
    pub fn restart(self) -> Restart {
        match self {
            Self::Always => Restart::Always,
            Self::OnFailure => Restart::OnFailure,
            Self::Never => Restart::Never,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PolicyArg {
    /// The emptiest host first
    Spread,
    /// The fullest host that fits first
    Pack,
}

impl PolicyArg {
    fn policy(self) -> PlacementPolicy {
        match self {
            Self::Spread => PlacementPolicy::Spread,
            Self::Pack => PlacementPolicy::Pack,
        }
    }
}

pub async fn run(app: &App, mut create: Create) -> Result<()> {
    let name = super::name(app, &create.instance)?;
    let image = image::resolve(app, &create.image).await?;
    let devices = std::mem::take(&mut create.devices).requests(app).await?;
    let node = std::mem::take(&mut create.node).wish(app).await?;
    let (explain, wait, change) = (create.explain, create.wait.clone(), create.change.clone());
    let request = v1::CreateInstanceRequest {
        parent: names::parent_of(&name),
        instance_id: names::id(&name).to_owned(),
        request_id: change.request_id(),
        validate_only: change.dry_run,
        instance: Some(instance(create, image, devices, node)?),
    };
    if explain {
        return explain::possible(app, request).await;
    }
    let operation = app.plane()?.call(request, async |plane, r| plane.instances().create_instance(r).await).await?;
    power::finish(app, name, operation, &wait, &change, "created").await
}

fn instance(
    create: Create,
    image: String,
    devices: Vec<v1::DeviceRequest>,
    node: Option<v1::NodeWish>,
) -> Result<v1::Instance> {
    let cloud_init = cloud_init(&create)?;
    let networks = create.networks.iter().map(|network| names::top("networks", network));
    let cpu = v1::Cpu { dedicated: create.dedicated_cpus, single_numa_cell: create.single_numa_cell };
    let spec = v1::InstanceSpec {
        power: if create.stopped { Power::Stopped.into() } else { Power::Running.into() },
        restart: create.restart.map_or(Restart::Unspecified, RestartArg::restart).into(),
        stop_timeout: create.stop_timeout.map(duration::to_proto),
        vcpus: create.vcpus,
        memory_mib: create.memory,
        boot_source: Some(BootSource::Image(image)),
        disks: create.disk.map(|size_gib| v1::Disk { size_gib }).into_iter().collect(),
        interfaces: networks.map(|network| Ok(v1::NetworkInterface { network: network? })).collect::<Result<_>>()?,
        cpu: Some(cpu).filter(|cpu| cpu.dedicated || cpu.single_numa_cell),
        huge_page_kib: create.huge_pages.unwrap_or_default(),
        cloud_init,
        host_selector: create.host_selector.into_iter().collect(),
        placement_policy: create.policy.map_or(PlacementPolicy::Unspecified, PolicyArg::policy).into(),
        devices,
        node,
        ..v1::InstanceSpec::default()
    };
    Ok(v1::Instance { metadata: create.labels.metadata(), spec: Some(spec), ..v1::Instance::default() })
}

fn cloud_init(create: &Create) -> Result<Option<v1::CloudInit>> {
    let read = |path: &Option<String>, what: &str| {
        path.as_deref().map(|path| keys::read_text(path, what)).transpose().map(Option::unwrap_or_default)
    };
    let mut ssh_authorized_keys = Vec::new();
    for text in &create.ssh_keys {
        for key in keys::ssh_keys(text)? {
            if !ssh_authorized_keys.contains(&key) {
                ssh_authorized_keys.push(key);
            }
        }
    }
    let cloud_init = v1::CloudInit {
        user_data: read(&create.user_data, "the user data")?,
        network_config: read(&create.network_config, "the network configuration")?,
        ssh_authorized_keys,
        hostname: create.hostname.clone().unwrap_or_default(),
        ..v1::CloudInit::default()
    };
    Ok(Some(cloud_init).filter(|cloud_init| *cloud_init != v1::CloudInit::default()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args as Cli, Noun};

    fn parse(options: &str) -> v1::InstanceSpec {
        let line = format!("croft instance create web --image i --vcpus 2 --memory 2GiB --disk 6 {options}");
        let Noun::Instance(super::super::Command::Create(create)) =
            Cli::try_parse_from(line.split_whitespace()).unwrap().noun
        else {
            panic!("another verb")
        };
        instance(*create, "images/i".into(), Vec::new(), None).unwrap().spec.unwrap()
    }

    #[test]
    fn what_is_not_asked_for_is_left_to_the_plane() {
        let spec = parse("");
        assert_eq!((spec.vcpus, spec.memory_mib, spec.disks[0].size_gib), (2, 2048, 6));
        assert_eq!(spec.power(), Power::Running);
        assert_eq!(spec.restart(), Restart::Unspecified);
        assert_eq!(spec.cpu, None);
        assert_eq!(spec.cloud_init, None);
        assert!(spec.interfaces.is_empty());
    }

    #[test]
    fn every_option_arrives() {
        let spec = parse(
            "--stopped --restart always --policy pack --dedicated-cpus --huge-pages 1GiB --network storage \
             --host-selector disk=nvme --hostname w --stop-timeout 2m",
        );
        assert_eq!((spec.power(), spec.restart()), (Power::Stopped, Restart::Always));
        assert_eq!(spec.placement_policy(), PlacementPolicy::Pack);
        assert_eq!(spec.cpu.unwrap(), v1::Cpu { dedicated: true, single_numa_cell: false });
        assert_eq!(spec.huge_page_kib, 1_048_576);
        assert_eq!(spec.interfaces[0].network, "networks/storage");
        assert_eq!(spec.host_selector["disk"], "nvme");
        assert_eq!(spec.cloud_init.unwrap().hostname, "w");
        assert_eq!(spec.stop_timeout.unwrap().seconds, 120);
    }
}
