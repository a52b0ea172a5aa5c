//! `croft apply`: bring what is to what files say. Creates what is missing, updates what may change, refuses the rest
//! by the field's name, and leaves alone what the files do not mention.

mod diff;
mod document;
mod kind;

use std::collections::BTreeSet;

use clap::Args;
use croft_proto::v1;
use serde_json::json;

use crate::app::App;
use crate::failure::{Failure, Result};
use crate::output::{self, note};
use crate::wait::{self, WaitArgs};
use crate::{keys, noun};
use document::Document;

#[derive(Debug, Args)]
#[command(
    after_help = "Documents are YAML or JSON: `kind` (Tenant, Quota, Network, Pool, Image, Cluster or Instance), `name`, and the \
    fields as `-o yaml` shows them. Their order does not matter. See docs/cli.md.\n\n\
    Examples:\n  croft apply -f acme.yaml --wait\n  croft apply -f acme.yaml --dry-run\n  \
    croft instance get web -o yaml | croft apply -f -"
)]
pub struct Apply {
    /// A file of documents; `-` reads stdin; may be given again
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<String>,
    /// Say what would be done, run the plane's checks, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Did {
    Created,
    /// The fields that changed.
    Updated(Vec<String>),
    Unchanged,
    /// Only in a dry run: the plane cannot check it before this name exists.
    Unchecked(String),
}

pub async fn run(app: &App, apply: Apply) -> Result<()> {
    let mut documents = Vec::new();
    for file in &apply.files {
        let text = keys::read_text(file, "the file")?;
        documents.extend(document::read(app, file, &text)?);
    }
    if documents.is_empty() {
        return Err(Failure::usage("the files hold no documents"));
    }
    check_names(&documents)?;
    // Tenants before what is in them; within a kind as written, parents before children.
    documents.sort_by_key(|document| document.kind);

    let mut done = Vec::new();
    let mut operations = Vec::new();
    let outcome = bring_all(app, &documents, apply.dry_run, &mut done, &mut operations).await;
    if !app.out.is_table() {
        print_all(app, &done)?;
    }
    if outcome.is_err() && done.len() > 1 {
        note(&format!("stopped: {} of {} documents are applied; run it again to go on", done.len(), documents.len()));
    }
    outcome?;
    if apply.wait.wait {
        for operation in operations {
            let target = operation.target.clone();
            wait::until_done(app, operation, apply.wait.timeout).await?;
            if target.contains("/instances/") {
                let instance = noun::instance::get(app, target).await?;
                note(&format!("{}: {}", instance.name, noun::instance::state::sentence(&instance)));
            }
        }
    }
    Ok(())
}

fn check_names(documents: &[Document]) -> Result<()> {
    let mut seen = BTreeSet::new();
    match documents.iter().find(|document| !seen.insert(&document.name)) {
        Some(twice) => Err(Failure::usage(format!("{}: {} is there twice", twice.place, twice.name))),
        None => Ok(()),
    }
}

async fn bring_all<'a>(
    app: &App,
    documents: &'a [Document],
    dry_run: bool,
    done: &mut Vec<(&'a Document, Did)>,
    operations: &mut Vec<v1::Operation>,
) -> Result<()> {
    let mut planned = BTreeSet::new();
    for document in documents {
        let did = bring(app, document, dry_run, &planned, operations).await?;
        if dry_run && matches!(did, Did::Created | Did::Unchecked(_)) {
            planned.insert(document.name.clone());
        }
        if app.out.is_table() {
            output::line(&sentence(document, &did, dry_run))?;
        }
        done.push((document, did));
    }
    Ok(())
}

async fn bring(
    app: &App,
    document: &Document,
    dry_run: bool,
    planned: &BTreeSet<String>,
    operations: &mut Vec<v1::Operation>,
) -> Result<Did> {
    if let Some(missing) = document.needs().into_iter().find(|name| planned.contains(name)) {
        return Ok(Did::Unchecked(missing));
    }
    let Some(live) = kind::read(app, document).await? else {
        operations.extend(kind::create(app, document, dry_run).await?);
        return Ok(Did::Created);
    };
    let differences = diff::differences(document, &live)?;
    if differences.is_empty() {
        return Ok(Did::Unchanged);
    }
    diff::check_mutable(document, &differences)?;
    let paths: Vec<String> = differences.into_iter().map(|difference| difference.path).collect();
    operations.extend(kind::update(app, document, &live, &paths, dry_run).await?);
    Ok(Did::Updated(paths))
}

fn sentence(document: &Document, did: &Did, dry_run: bool) -> String {
    let suffix = if dry_run { " (dry run)" } else { "" };
    match did {
        Did::Created => format!("{} created{suffix}", document.name),
        Did::Updated(paths) => format!("{} updated: {}{suffix}", document.name, paths.join(", ")),
        Did::Unchanged => format!("{} unchanged", document.name),
        Did::Unchecked(missing) => format!("{} created{suffix}; not checked before {missing} exists", document.name),
    }
}

fn print_all(app: &App, done: &[(&Document, Did)]) -> Result<()> {
    if app.out.format == output::Format::Name {
        return done.iter().try_for_each(|(document, _)| output::line(&document.name));
    }
    let results = done.iter().map(|(document, did)| {
        let (word, fields): (_, &[String]) = match did {
            Did::Created | Did::Unchecked(_) => ("created", &[]),
            Did::Updated(paths) => ("updated", paths),
            Did::Unchanged => ("unchanged", &[]),
        };
        json!({ "kind": document.kind.word(), "name": document.name, "result": word, "fields": fields })
    });
    app.out.document(&json!({ "results": results.collect::<Vec<_>>() }))
}
