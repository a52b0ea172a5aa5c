//! `croft audit`: who did what. One entry for each change and each denied call.

use clap::Subcommand;
use croft_proto::v1;

use crate::app::App;
use crate::failure::Result;
use crate::flags::first_pages;
use crate::names;
use crate::output::cell::{Mood, Text};
use crate::output::{Resource, age, named, table::Column};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show entries, the newest first
    List {
        /// Of all tenants, not only of the context's
        #[arg(short = 'A', long)]
        all: bool,
        /// How many at most; 0: all that are kept
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
}

named!(v1::AuditEntry => "croft.v1.AuditEntry");

impl Resource for v1::AuditEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("TIME", |entry| age::exact(entry.time.as_ref())),
        Column::new("ACTOR", |entry| entry.actor.as_str().into()),
        Column::new("METHOD", |entry| names::id(&entry.method).into()),
        Column::new("TARGET", |entry| entry.target.as_str().into()),
        Column::new("RESULT", result),
        Column::wide("MESSAGE", |entry| entry.message.as_str().into()),
        Column::wide("PEER", |entry| entry.peer.as_str().into()),
        Column::wide("REQUEST ID", |entry| entry.request_id.as_str().into()),
        Column::wide("NAME", |entry| entry.name.as_str().into()),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn result(entry: &v1::AuditEntry) -> Text {
    let mood = if entry.result == "OK" { Mood::Plain } else { Mood::Bad };
    Text::new(entry.result.as_str(), mood)
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    let Command::List { all, limit } = command;
    let parent = app.tenant_or_all(all, "-")?;
    let plane = app.plane()?;
    let entries = first_pages(limit, async |page_token, page_size| {
        let request = v1::ListAuditEntriesRequest { parent: parent.clone(), page_token, page_size };
        let page = plane.call(request, async |plane, r| plane.events().list_audit_entries(r).await).await?;
        Ok((page.entries, page.next_page_token))
    });
    app.out.list("entries", &entries.await?)
}
