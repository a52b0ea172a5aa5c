//! Clusters: how they were last seen, and when what ends there.

use std::fmt;

use croft_core::Timestamp;
use croft_core::cluster::Cluster;
use croft_core::cluster::health::Kind;
use croft_core::condition::ConditionStatus;
use prometheus_client::encoding::DescriptorEncoder;

use super::truth::gauges;

pub fn encode(encoder: &mut DescriptorEncoder<'_>, clusters: &[Cluster]) -> fmt::Result {
    let reachable = each(clusters, |cluster| is(cluster, Kind::Reachable));
    gauges(encoder, "croft_cluster_reachable", "1 while a cluster answers the plane.", reachable)?;
    let help = "1 for a condition of a cluster that is True, 0 for one that is False; no series: not known.";
    let conditions =
        Kind::ALL.into_iter().flat_map(|kind| parts(clusters, "condition", kind.as_str(), move |c| is(c, kind)));
    gauges(encoder, "croft_cluster_condition", help, conditions)?;
    let help = "When the API server's certificate, the CA and Croft's credential end, as a Unix time; no series: not known, \
                or never.";
    let ends: [(&str, End); 3] = [
        ("serving", |cluster| cluster.status.serving_expire_time),
        ("ca", |cluster| cluster.status.ca_expire_time),
        ("credential", |cluster| cluster.status.credential_expire_time),
    ];
    let ends =
        ends.into_iter().flat_map(|(which, end)| parts(clusters, "certificate", which, move |c| end(c).map(seconds)));
    gauges(encoder, "croft_cluster_expiry_timestamp_seconds", help, ends)?;
    let answers = each(clusters, |cluster| cluster.status.answer_time.map(seconds));
    gauges(
        encoder,
        "croft_cluster_answer_timestamp_seconds",
        "When a cluster last answered, as a Unix time.",
        answers,
    )?;
    let nodes = each(clusters, |cluster| Some(cluster.status.nodes));
    gauges(encoder, "croft_cluster_nodes", "Nodes of a cluster, Croft's and others, as last seen.", nodes)?;
    let ready = each(clusters, |cluster| Some(cluster.status.nodes_ready));
    gauges(encoder, "croft_cluster_nodes_ready", "Nodes of a cluster that were ready when last seen.", ready)
}

type End = fn(&Cluster) -> Option<Timestamp>;

/// One series for each cluster of which the value is known.
fn each(
    clusters: &[Cluster],
    value: impl Fn(&Cluster) -> Option<i64>,
) -> impl Iterator<Item = ([(&'static str, String); 1], i64)> {
    clusters.iter().filter_map(move |cluster| Some(([("cluster", cluster.name())], value(cluster)?)))
}

/// The same, of one of several.
fn parts<'a>(
    clusters: &'a [Cluster],
    label: &'static str,
    part: &'a str,
    value: impl Fn(&Cluster) -> Option<i64> + 'a,
) -> impl Iterator<Item = ([(&'static str, String); 2], i64)> + 'a {
    each(clusters, value).map(move |([cluster], value)| ([cluster, (label, part.to_owned())], value))
}

/// `None`: not known.
fn is(cluster: &Cluster, kind: Kind) -> Option<i64> {
    match cluster.status.condition(kind)?.status {
        ConditionStatus::True => Some(1),
        ConditionStatus::False => Some(0),
        ConditionStatus::Unknown => None,
    }
}

fn seconds(time: Timestamp) -> i64 {
    time.0.div_euclid(1_000_000)
}
