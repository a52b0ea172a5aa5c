//! `croft instance explain` and `create --explain`: per host the first thing in the way, and the cheapest fix.

use croft_proto::v1::{self, explain_instance_response::HostVerdict};

use crate::app::App;
use crate::failure::Result;
use crate::names;
use crate::output::{self, table};

pub async fn existing(app: &App, instance: &str) -> Result<()> {
    let name = super::name(app, instance)?;
    explain(app, v1::ExplainInstanceRequest { name, create: None }).await
}

pub async fn possible(app: &App, create: v1::CreateInstanceRequest) -> Result<()> {
    explain(app, v1::ExplainInstanceRequest { name: String::new(), create: Some(create) }).await
}

async fn explain(app: &App, request: v1::ExplainInstanceRequest) -> Result<()> {
    let answer = app.plane()?.call(request, async |plane, r| plane.instances().explain_instance(r).await).await?;
    if !app.out.is_table() {
        let hosts = answer.hosts.iter().filter(|host| host.fits).map(|host| host.host.clone());
        let plain = hosts.collect::<Vec<_>>().join("\n");
        return app.out.message(&answer, &plain);
    }
    output::line(&answer.summary)?;
    if answer.hosts.is_empty() {
        return Ok(());
    }
    let mut hosts = answer.hosts;
    sort(&mut hosts);
    let rows = hosts.iter().map(row).collect();
    output::text(&format!("\n{}", table::plain(&["HOST", "FITS", "BECAUSE", "MESSAGE", "FIX"], rows)))
}

/// The best first, then those that do not fit by name.
fn sort(hosts: &mut [HostVerdict]) {
    hosts.sort_by(|a, b| (!a.fits, a.rank, &a.host).cmp(&(!b.fits, b.rank, &b.host)));
}

fn row(host: &HostVerdict) -> Vec<String> {
    let fits = match (host.fits, host.rank) {
        (false, _) => "no".to_owned(),
        (true, 0) => "yes".to_owned(),
        (true, rank) => format!("yes, rank {rank}"),
    };
    vec![names::id(&host.host).to_owned(), fits, host.predicate.clone(), host.message.clone(), host.fix.clone()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_host_stands_first() {
        let host = |name: &str, fits, rank| HostVerdict { host: name.into(), fits, rank, ..HostVerdict::default() };
        let mut hosts = [host("c", false, 0), host("b", true, 2), host("a", false, 0), host("d", true, 1)];
        sort(&mut hosts);
        assert_eq!(hosts.map(|host| host.host).join(""), "dbac");
    }
}
