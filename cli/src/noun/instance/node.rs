//! The node of a Kubernetes cluster that an instance becomes: the options of `create`, and how far it is.

use clap::{Args, ValueEnum};
use croft_proto::v1::node_wish::Repair;
use croft_proto::v1::{self, node_taint::Effect};

use crate::app::App;
use crate::failure::Result;
use crate::flags::pair;
use crate::noun::cluster;

#[derive(Debug, Clone, Default, Args)]
pub struct Node {
    /// Make it a node of this Kubernetes cluster: the tenant's own of that name, else the platform's
    #[arg(long, value_name = "CLUSTER")]
    cluster: Option<String>,
    /// Labels of the node
    #[arg(long, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = pair, requires = "cluster")]
    node_labels: Vec<(String, String)>,
    /// Taints of the node; EFFECT is NoSchedule, PreferNoSchedule or NoExecute
    #[arg(long, value_name = "KEY=VALUE:EFFECT,…", value_delimiter = ',', value_parser = taint, requires = "cluster")]
    node_taints: Vec<v1::NodeTaint>,
    /// How the guest joins: kubelet, kubeadm, k3s, rke2, or one of the operators' [default: kubelet]
    #[arg(long, value_name = "RECIPE", requires = "cluster")]
    join_recipe: Option<String>,
    /// What to do when the node is not well while its VM runs [default: none]
    #[arg(long, value_enum, requires = "cluster")]
    node_repair: Option<RepairArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RepairArg {
    None,
    /// Reset the VM, at most six times in a day
    Restart,
    /// Where that did not help, rebuild it with a new root disk, at most twice in a day; what is on the old one is lost
    Rebuild,
    /// Where that did not help, rebuild it on another host
    Replace,
}

impl RepairArg {
    pub fn repair(self) -> Repair {
        match self {
            Self::None => Repair::None,
            Self::Restart => Repair::Restart,
            Self::Rebuild => Repair::Rebuild,
            Self::Replace => Repair::Replace,
        }
    }
}

impl Node {
    pub async fn wish(self, app: &App) -> Result<Option<v1::NodeWish>> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let cluster = cluster::resolve(app, cluster).await?;
        Ok(Some(self.of(cluster)))
    }

    fn of(self, cluster: String) -> v1::NodeWish {
        v1::NodeWish {
            cluster,
            recipe: self.join_recipe.unwrap_or_default(),
            labels: self.node_labels.into_iter().collect(),
            taints: self.node_taints,
            repair: self.node_repair.map_or(Repair::Unspecified, RepairArg::repair).into(),
        }
    }
}

/// `key=value:NoSchedule`, as kubectl takes it; the value may be left out.
fn taint(text: &str) -> Result<v1::NodeTaint, String> {
    let wrong = || format!("`{text}` is not KEY=VALUE:EFFECT, EFFECT one of NoSchedule, PreferNoSchedule, NoExecute");
    let (rest, effect) = text.rsplit_once(':').ok_or_else(wrong)?;
    let effect = match effect {
        "NoSchedule" => Effect::NoSchedule,
        "PreferNoSchedule" => Effect::PreferNoSchedule,
        "NoExecute" => Effect::NoExecute,
        _ => return Err(wrong()),
    };
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    if key.is_empty() {
        return Err(wrong());
    }
    Ok(v1::NodeTaint { key: key.to_owned(), value: value.to_owned(), effect: effect.into() })
}

/// `JOINED`; empty for what joins nothing.
pub fn word(status: &v1::InstanceStatus) -> &'static str {
    status.node.as_ref().map_or("", |node| node.phase().as_str_name())
}

/// `node web-deadbeef of clusters/prod: LEAVING, DrainBlocked: …`
pub fn sentence(instance: &v1::Instance) -> Option<String> {
    let node = instance.status.as_ref()?.node.as_ref()?;
    let wish = instance.spec.as_ref().and_then(|spec| spec.node.as_ref());
    let cluster = wish.map_or("its cluster", |wish| wish.cluster.as_str());
    let why: String = [node.reason.as_str(), node.message.as_str()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .enumerate()
        .map(|(at, part)| if at == 0 { format!(", {part}") } else { format!(": {part}") })
        .collect();
    let rebuilds = node.rebuild_times.len();
    let counted = [(node.repair_times.len().saturating_sub(rebuilds), "restarted"), (rebuilds, "rebuilt")];
    let done: Vec<String> =
        counted.iter().filter(|(times, _)| *times > 0).map(|(times, what)| format!("{what} {times}x")).collect();
    let done = match done.is_empty() {
        true => String::new(),
        false => format!("; {} in a day because it was not well", done.join(", ")),
    };
    Some(format!("node {} of {cluster}: {}{why}{done}", node.name, node.phase().as_str_name()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        node: Node,
    }

    fn parse(options: &str) -> Result<Node, clap::Error> {
        Line::try_parse_from(format!("x {options}").split_whitespace()).map(|line| line.node)
    }

    #[test]
    fn every_option_arrives() {
        let node = parse(
            "--cluster prod --node-labels zone=a,team=ml --node-taints gpu=yes:NoSchedule,spot:NoExecute --join-recipe k3s --node-repair restart",
        );
        let wish = node.unwrap().of("clusters/prod".to_owned());
        assert_eq!((wish.recipe.as_str(), wish.labels["team"].as_str()), ("k3s", "ml"));
        let taints: Vec<_> =
            wish.taints.iter().map(|taint| (taint.key.as_str(), taint.value.as_str(), taint.effect())).collect();
        assert_eq!(taints, [("gpu", "yes", Effect::NoSchedule), ("spot", "", Effect::NoExecute)]);
    }

    #[test]
    fn what_is_about_a_node_needs_a_cluster_and_taints_need_an_effect() {
        assert!(parse("--node-labels a=b").is_err());
        assert!(parse("--join-recipe k3s").is_err());
        for wrong in ["gpu", "gpu=yes", "gpu=yes:Never", "=yes:NoSchedule"] {
            assert!(parse(&format!("--cluster prod --node-taints {wrong}")).is_err(), "{wrong}");
        }
        assert!(parse("").unwrap().cluster.is_none());
    }

    #[test]
    fn how_far_it_is_reads_as_one_line() {
        let node = v1::NodeStatus {
            name: "web-deadbeef".into(),
            phase: v1::node_status::Phase::Leaving.into(),
            reason: "DrainBlocked".into(),
            message: "1 pods are left".into(),
            ..v1::NodeStatus::default()
        };
        let wish = v1::NodeWish { cluster: "clusters/prod".into(), ..v1::NodeWish::default() };
        let instance = v1::Instance {
            spec: Some(v1::InstanceSpec { node: Some(wish), ..v1::InstanceSpec::default() }),
            status: Some(v1::InstanceStatus { node: Some(node), ..v1::InstanceStatus::default() }),
            ..v1::Instance::default()
        };
        let line = "node web-deadbeef of clusters/prod: LEAVING, DrainBlocked: 1 pods are left";
        assert_eq!(sentence(&instance).as_deref(), Some(line));
        assert_eq!(sentence(&v1::Instance::default()), None);
    }
}
