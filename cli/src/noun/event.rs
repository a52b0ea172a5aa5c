//! `croft event`: what happened, in order, for a bounded time.

use clap::Subcommand;
use croft_proto::v1::{self, event::Severity};

use crate::app::App;
use crate::failure::Result;
use crate::flags::all_pages;
use crate::names;
use crate::output::cell::{Mood, Text};
use crate::output::table::{Column, Stream};
use crate::output::{self, Resource, age, named, note};
use crate::watch::{self, End, Next};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what happened, the oldest first
    List {
        #[command(flatten)]
        scope: Scope,
        /// Go on with what happens from now on
        #[arg(short, long)]
        watch: bool,
    },
    /// Show what happens from now on
    Watch {
        #[command(flatten)]
        scope: Scope,
    },
}

#[derive(Debug, clap::Args)]
pub struct Scope {
    /// Of all tenants and hosts, not only of the context's tenant
    #[arg(short = 'A', long)]
    all: bool,
    /// Only about this resource, for example tenants/acme/instances/web
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    target: String,
}

named!(v1::Event => "croft.v1.Event");

impl Resource for v1::Event {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::new("TIME", |event| age::exact(event.time.as_ref())),
        Column::new("SEVERITY", severity),
        Column::new("REASON", |event| event.reason.as_str().into()),
        Column::new("TARGET", |event| event.target.as_str().into()),
        Column::new("MESSAGE", |event| event.message.as_str().into()),
        Column::wide("NAME", |event| event.name.as_str().into()),
    ];

    fn name(&self) -> &str {
        &self.name
    }
}

fn severity(event: &v1::Event) -> Text {
    match event.severity() {
        Severity::Warning => Text::new("WARNING", Mood::Doubtful),
        severity => severity.as_str_name().into(),
    }
}

pub async fn run(app: &App, command: Command) -> Result<()> {
    match command {
        Command::List { scope, watch: false } => {
            let parent = app.tenant_or_all(scope.all, "-")?;
            app.out.list("events", &list(app, &parent, &scope.target).await?.0)
        }
        Command::List { scope, watch: true } => {
            let parent = app.tenant_or_all(scope.all, "-")?;
            let (events, token) = list(app, &parent, &scope.target).await?;
            let mut printer = Printer::new(app, scope.target);
            printer.print(&events)?;
            follow(app, &parent, token, printer).await
        }
        Command::Watch { scope } => {
            let parent = app.tenant_or_all(scope.all, "-")?;
            follow(app, &parent, String::new(), Printer::new(app, scope.target)).await
        }
    }
}

/// The events and the token from which a watch misses nothing after them.
async fn list(app: &App, parent: &str, target: &str) -> Result<(Vec<v1::Event>, String)> {
    let plane = app.plane()?;
    let mut resume = String::new();
    let events = all_pages(async |page_token| {
        let (parent, target) = (parent.to_owned(), target.to_owned());
        let request = v1::ListEventsRequest { parent, target, page_token, page_size: 0 };
        let page = plane.call(request, async |plane, r| plane.events().list_events(r).await).await?;
        // The first page's: what happened while the rest was read comes again, and is dropped by its number.
        if resume.is_empty() {
            resume = page.resume_token;
        }
        Ok((page.events, page.next_page_token))
    });
    let events = events.await?;
    Ok((events, resume))
}

async fn follow(app: &App, parent: &str, mut token: String, mut printer: Printer) -> Result<()> {
    let plane = app.plane()?;
    let open = async |plane: crate::plane::Plane, resume_token: String| {
        let request = v1::WatchEventsRequest { parent: parent.to_owned(), resume_token };
        plane.events().watch_events(request).await
    };
    loop {
        let each = |message: v1::WatchEventsResponse| {
            printer.print(message.event.as_slice())?;
            Ok(Next::More)
        };
        match watch::follow(plane, &mut token, &open, |message| &message.resume_token, each).await? {
            End::Enough => return Ok(()),
            End::TooOld => {
                note("the history no longer reaches back to the last event seen; events may be missing here");
                let (events, fresh) = list(app, parent, &printer.target).await?;
                printer.print(&events)?;
                token = fresh;
            }
        }
    }
}

/// Prints each event once, whatever is listed again.
struct Printer {
    app_out: output::Output,
    table: Stream,
    target: String,
    last: u64,
}

impl Printer {
    fn new(app: &App, target: String) -> Self {
        Self { app_out: app.out, table: Stream::new(app.out.format, app.out.style()), target, last: 0 }
    }

    fn print(&mut self, events: &[v1::Event]) -> Result<()> {
        let mut fresh = Vec::new();
        for event in events {
            if self.is_new(event) && (self.target.is_empty() || event.target == self.target) {
                fresh.push(event);
            }
        }
        if self.app_out.is_table() {
            let rows: Vec<_> = fresh.into_iter().map(|event| (Text::from(""), event)).collect();
            return output::text(&self.table.rows("", &rows));
        }
        fresh.into_iter().try_for_each(|event| self.app_out.streamed(event, &event.name))
    }

    /// Events are named after their revision, which only grows.
    fn is_new(&mut self, event: &v1::Event) -> bool {
        let Ok(revision) = names::id(&event.name).parse::<u64>() else { return true };
        let new = revision > self.last;
        self.last = self.last.max(revision);
        new
    }
}
