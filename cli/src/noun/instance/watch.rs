//! Following instances: the state now, then every change, across lost connections and forgotten histories.

use std::cell::RefCell;
use std::collections::BTreeMap;

use clap::Args;
use croft_proto::v1::{self, watch_instances_response::Kind};

use super::list::Filter;
use super::mirror::{Change, Mirror};
use crate::app::App;
use crate::failure::Result;
use crate::names;
use crate::output::cell::{Mood, Text};
use crate::output::table::{self, Stream};
use crate::output::{self, Format, Output};
use crate::plane::Plane;
use crate::watch::{self, End, Next};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  croft instance watch web\n  croft instance watch -A -o json | jq -c .instance.status.state"
)]
pub struct Watch {
    /// Only this one; ends when it is removed
    #[arg(conflicts_with_all = ["all", "selector", "host"])]
    instance: Option<String>,
    #[command(flatten)]
    filter: Filter,
}

pub async fn run(app: &App, watch: Watch) -> Result<()> {
    let only = watch.instance.as_deref().map(|instance| super::name(app, instance)).transpose()?;
    if let Some(name) = &only {
        // Told now: a watch for what does not exist would be silent for ever.
        super::get(app, name.clone()).await?;
    }
    follow(app, watch.filter, only).await
}

pub async fn follow(app: &App, filter: Filter, only: Option<String>) -> Result<()> {
    let parent = match &only {
        Some(name) => names::parent_of(name),
        None => filter.parent(app)?,
    };
    let host = filter.host_name()?;
    // Applied here, and refused as a list refuses it.
    filter.selector.text()?;
    let wanted = |instance: &v1::Instance| match &only {
        Some(name) => instance.name == *name,
        None => filter.matches(instance, &host),
    };
    let mirror = RefCell::new(Mirror::default());
    let open = async |plane: Plane, resume_token: String| {
        if resume_token.is_empty() {
            mirror.borrow_mut().restart();
        }
        let request = v1::WatchInstancesRequest { parent: parent.clone(), resume_token };
        plane.instances().watch_instances(request).await
    };
    let mut printer = Printer::new(app.out);
    let mut token = String::new();
    loop {
        let each = |message: v1::WatchInstancesResponse| {
            let changes = mirror.borrow_mut().absorb(message);
            let ended = only.is_some() && changes.iter().any(|c| c.kind == Kind::Removed && wanted(&c.instance));
            printer.hold(changes.into_iter().filter(|change| wanted(&change.instance)));
            if mirror.borrow().is_synced() {
                printer.print()?;
            }
            Ok(if ended { Next::Enough } else { Next::More })
        };
        match watch::follow(app.plane()?, &mut token, &open, |message| &message.resume_token, each).await? {
            End::Enough => return printer.print(),
            // The mirror knows what was shown, so starting over shows only what differs.
            End::TooOld => token.clear(),
        }
    }
}

/// Holds what is told until the state is whole, so that a table's columns fit all of it.
struct Printer {
    out: Output,
    table: Stream,
    held: Vec<Change>,
    /// Per instance the row that people saw last.
    shown: BTreeMap<String, Vec<Text>>,
}

impl Printer {
    fn new(out: Output) -> Self {
        Self { out, table: Stream::new(out.format, out.style()), held: Vec::new(), shown: BTreeMap::new() }
    }

    fn hold(&mut self, changes: impl Iterator<Item = Change>) {
        self.held.extend(changes);
    }

    fn print(&mut self) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        if self.out.is_table() {
            let news = held.iter().filter(|change| is_news(&mut self.shown, change, self.out.format));
            let rows: Vec<_> = news.map(|change| (kind(change.kind), &change.instance)).collect();
            return output::text(&self.table.rows("EVENT", &rows));
        }
        held.into_iter().try_for_each(|change| {
            let name = change.instance.name.clone();
            let message = v1::WatchInstancesResponse {
                kind: change.kind.into(),
                instance: Some(change.instance),
                ..v1::WatchInstancesResponse::default()
            };
            self.out.streamed(&message, &name)
        })
    }
}

/// A change that no column shows would be the same line again. Programs get it all the same.
fn is_news(shown: &mut BTreeMap<String, Vec<Text>>, change: &Change, format: Format) -> bool {
    let name = change.instance.name.clone();
    if change.kind == Kind::Removed {
        shown.remove(&name);
        return true;
    }
    let row = table::lasting(&change.instance, format);
    shown.insert(name, row.clone()).as_ref() != Some(&row)
}

fn kind(kind: Kind) -> Text {
    let mood = if kind == Kind::Removed { Mood::Doubtful } else { Mood::Plain };
    Text::new(kind.as_str_name(), mood)
}
