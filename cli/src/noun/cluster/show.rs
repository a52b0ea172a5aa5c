//! A cluster on the screen: its row, and below it what is wrong and when what ends.

use croft_proto::v1::condition::Status;
use croft_proto::v1::{self, Condition};

use crate::failure::Result;
use crate::names;
use crate::output::cell::{self, Mood, Text};
use crate::output::{self, Resource, age, named, table::Column};

named!(v1::Cluster => "croft.v1.Cluster");

impl Resource for v1::Cluster {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NAME", |cluster| names::id(&cluster.name).into()),
        Column::new("OWNER", |cluster| match names::tenant_of(&cluster.name) {
            "" => "platform".into(),
            tenant => tenant.into(),
        }),
        Column::new("STATUS", status),
        Column::new("VERSION", |cluster| told(cluster, |status| status.version.as_str().into())),
        Column::new("NODES", |cluster| {
            told(cluster, |status| format!("{}/{}", status.nodes_ready, status.nodes).into())
        }),
        Column::new("ENDS", |cluster| ends(cluster).first().map_or_else(|| "".into(), |(_, time)| until(time))),
        Column::new("SERVER", |cluster| told(cluster, |status| status.server.as_str().into())),
        Column::new("AGE", |cluster| age::since(cluster.metadata.as_ref().and_then(|m| m.create_time.as_ref()))),
        Column::wide("SHARED WITH", |cluster| {
            let ids: Vec<_> = cluster.tenants.iter().map(|name| names::id(name)).collect();
            cell::few(&ids, 4)
        }),
        Column::wide("NODE SERVER", |cluster| cluster.node_server.as_str().into()),
        Column::wide("DNS", |cluster| cell::few(&cluster.cluster_dns, 3)),
        Column::wide("DESCRIPTION", |cluster| cluster.description.as_str().into()),
        Column::wide("LABELS", |cluster| cell::labels(cluster.metadata.as_ref())),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn told(cluster: &v1::Cluster, cell: impl Fn(&v1::ClusterStatus) -> Text) -> Text {
    cluster.status.as_ref().map_or_else(|| "".into(), cell)
}

fn conditions(cluster: &v1::Cluster) -> &[Condition] {
    cluster.status.as_ref().map_or(&[], |status| &status.conditions)
}

/// `OK`, or the first thing that is wrong.
fn status(cluster: &v1::Cluster) -> Text {
    let Some(bad) = conditions(cluster).iter().find(|condition| condition.status() == Status::False) else {
        return Text::new("OK", Mood::Good);
    };
    let mood = match bad.r#type.as_str() {
        "PoliciesInstalled" | "CertificatesShortLived" => Mood::Doubtful,
        _ => Mood::Bad,
    };
    Text::new(&bad.reason, mood)
}

/// What ends and when, the soonest first.
fn ends(cluster: &v1::Cluster) -> Vec<(&'static str, prost_types::Timestamp)> {
    let Some(status) = &cluster.status else { return Vec::new() };
    let all = [
        ("the credential", status.credential_expire_time),
        ("the API server's certificate", status.serving_expire_time),
        ("the CA", status.ca_expire_time),
    ];
    let mut known: Vec<_> = all.into_iter().filter_map(|(what, time)| Some((what, time?))).collect();
    known.sort_by_key(|(_, time)| time.seconds);
    known
}

fn until(time: &prost_types::Timestamp) -> Text {
    let text = age::until(Some(time));
    if age::is_past(Some(time)) { Text::new(text.as_str(), Mood::Bad) } else { text }
}

/// Below the row of `get`.
pub fn details(cluster: &v1::Cluster) -> Result<()> {
    for condition in conditions(cluster) {
        let since = age::since(condition.last_transition_time.as_ref());
        let state = condition.status().as_str_name();
        output::line(&format!("  {:<24}{state:<9}for {}{}", condition.r#type, since.as_str(), why(condition)))?;
    }
    for (what, time) in ends(cluster) {
        let verb = if age::is_past(Some(&time)) { "ended" } else { "ends" };
        let when = age::exact(Some(&time));
        output::line(&format!("  {what} {verb} {} ({})", until(&time).as_str(), when.as_str()))?;
    }
    Ok(())
}

/// `: CLUSTER_UNREACHABLE: …`
fn why(condition: &Condition) -> String {
    let said = [condition.reason.as_str(), condition.message.as_str()];
    said.into_iter().filter(|part| !part.is_empty()).map(|part| format!(": {part}")).collect()
}

/// What works and is not as it should be.
pub fn warn(cluster: &v1::Cluster) {
    for bad in conditions(cluster).iter().filter(|condition| condition.status() == Status::False) {
        output::note(&format!("warning: {} is False{}", bad.r#type, why(bad)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(conditions: &[(&str, Status, &str)]) -> v1::Cluster {
        let condition = |(kind, status, reason): &(&str, Status, &str)| Condition {
            r#type: (*kind).to_owned(),
            status: (*status).into(),
            reason: (*reason).to_owned(),
            ..Condition::default()
        };
        let conditions = conditions.iter().map(condition).collect();
        v1::Cluster { status: Some(v1::ClusterStatus { conditions, ..Default::default() }), ..Default::default() }
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_the_status() {
        let unknown = cluster(&[("Reachable", Status::True, ""), ("CertificatesShortLived", Status::Unknown, "")]);
        assert_eq!(status(&unknown), Text::new("OK", Mood::Good));
        let bad = [
            ("Reachable", Status::True, ""),
            ("RightsSufficient", Status::False, "CLUSTER_RIGHTS_MISSING"),
            ("PoliciesInstalled", Status::False, "CLUSTER_POLICIES_MISSING"),
        ];
        assert_eq!(status(&cluster(&bad)), Text::new("CLUSTER_RIGHTS_MISSING", Mood::Bad));
        assert_eq!(status(&cluster(&bad[2..])).as_str(), "CLUSTER_POLICIES_MISSING");
    }

    #[test]
    fn what_ends_first_comes_first() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let status = v1::ClusterStatus { ca_expire_time: at(9), serving_expire_time: at(3), ..Default::default() };
        let cluster = v1::Cluster { status: Some(status), ..Default::default() };
        let named: Vec<_> = ends(&cluster).into_iter().map(|(what, _)| what).collect();
        assert_eq!(named, ["the API server's certificate", "the CA"]);
    }
}
