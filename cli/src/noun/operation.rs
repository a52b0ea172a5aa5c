//! `croft operation`: the long-running work behind a change.

use std::time::Duration;

use clap::Subcommand;
use croft_proto::v1;

use crate::app::App;
use crate::failure::Result;
use crate::flags::first_pages;
use crate::labels::Selector;
use crate::output::cell::{Mood, Text};
use crate::output::{Resource, age, cell, named, table::Column};
use crate::{duration, names, wait};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show one operation
    Get { operation: String },
    /// Show operations, the newest first
    List {
        /// Of all tenants, not only of the context's
        #[arg(short = 'A', long)]
        all: bool,
        #[command(flatten)]
        selector: Selector,
        /// How many at most; 0: all that are kept
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Wait until an operation is done
    Wait {
        operation: String,
        /// How long to wait at most
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration::parse)]
        timeout: Duration,
    },
}

named!(v1::Operation => "croft.v1.Operation");

impl Resource for v1::Operation {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("NAME", |operation| names::id(&operation.name).into()),
        Column::new("VERB", |operation| operation.verb.as_str().into()),
        Column::new("TARGET", |operation| operation.target.as_str().into()),
        Column::new("STATE", state),
        Column::new("AGE", |operation| age::since(operation.metadata.as_ref().and_then(|m| m.create_time.as_ref()))),
        Column::new("MESSAGE", message),
        Column::wide("ACTOR", |operation| operation.actor.as_str().into()),
        Column::wide("ENDED", |operation| age::exact(operation.end_time.as_ref())),
        Column::wide("LABELS", |operation| cell::labels(operation.metadata.as_ref())),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn state(operation: &v1::Operation) -> Text {
    match (operation.done, &operation.error) {
        (false, _) => Text::new("running", Mood::Busy),
        (true, None) => Text::new("done", Mood::Good),
        (true, Some(_)) => Text::new("failed", Mood::Bad),
    }
}

fn message(operation: &v1::Operation) -> Text {
    operation.error.as_ref().map_or(operation.progress.as_str(), |error| error.message.as_str()).into()
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::Get { operation } => app.out.one(&get(app, names::top("operations", &operation)?).await?),
        Command::List { all, selector, limit } => list(app, all, &selector, limit).await,
        Command::Wait { operation, timeout } => {
            let operation = get(app, names::top("operations", &operation)?).await?;
            let operation = wait::until_done(app, operation, timeout).await?;
            app.out.did(&operation, &format!("done: {} of {}", operation.verb, operation.target))
        }
    }
}

async fn get(app: &App, name: String) -> Result<v1::Operation> {
    let request = v1::GetOperationRequest { name };
    app.plane()?.call(request, async |plane, r| plane.operations().get_operation(r).await).await
}

async fn list(app: &App, all: bool, selector: &Selector, limit: usize) -> Result<()> {
    let parent = app.tenant_or_all(all, "-")?;
    let plane = app.plane()?;
    let label_selector = selector.text()?;
    let operations = first_pages(limit, async |page_token, page_size| {
        let (parent, label_selector) = (parent.clone(), label_selector.clone());
        let request = v1::ListOperationsRequest { parent, page_token, page_size, label_selector };
        let page = plane.call(request, async |plane, r| plane.operations().list_operations(r).await).await?;
        Ok((page.operations, page.next_page_token))
    });
    app.out.list("operations", &operations.await?)
}
