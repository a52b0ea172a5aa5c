//! What a command prints on stdout: a table for people, proto JSON or YAML for programs, or names alone.
//! Progress and errors go to stderr and are not here.

pub mod age;
pub mod cell;
pub mod proto_json;
pub mod table;

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use prost::Message;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::failure::{Failure, Result};
use proto_json::ProtoJson;
use table::{Column, Style};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// Proto JSON.
    Json,
    /// The same fields as YAML.
    Yaml,
    /// Resource names, one a line.
    Name,
}

/// A message of the API and the name under which the descriptors know it.
pub trait Named: Message {
    const MESSAGE: &'static str;
}

/// What tables can show: the columns are data, in the order in which they stand.
pub trait Resource: Named + Sized + 'static {
    const COLUMNS: &'static [Column<Self>];
    fn name(&self) -> &str;
}

/// One message type per line: `named!(Tenant => "croft.v1.Tenant")`.
macro_rules! named {
    ($($type:ty => $name:literal),* $(,)?) => {
        $(impl $crate::output::Named for $type {
            const MESSAGE: &'static str = $name;
        })*
    };
}
pub(crate) use named;

#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub format: Format,
    style: Style,
}

impl Output {
    #[must_use]
    pub fn new(format: Format) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let style = if std::io::stdout().is_terminal() && !plain { Style::Colour } else { Style::Plain };
        Self { format, style }
    }

    #[must_use]
    pub fn is_table(self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    #[must_use]
    pub fn style(self) -> Style {
        self.style
    }

    pub fn one<R: Resource>(self, item: &R) -> Result<()> {
        match self.format {
            Format::Name => line(item.name()),
            Format::Json | Format::Yaml => self.document(&ProtoJson::new(R::MESSAGE, item)?),
            Format::Table | Format::Wide => text(&table::render(&[item], self.format, self.style)),
        }
    }

    /// `field` is what the list is called in the API's own response: `{"instances": […]}`.
    pub fn list<R: Resource>(self, field: &'static str, items: &[R]) -> Result<()> {
        match self.format {
            Format::Name => items.iter().try_for_each(|item| line(item.name())),
            Format::Json | Format::Yaml => {
                let items = items.iter().map(|item| ProtoJson::new(R::MESSAGE, item)).collect::<Result<_>>()?;
                self.document(&List { field, items })
            }
            Format::Table | Format::Wide if items.is_empty() => {
                note(&format!("No {field} found."));
                Ok(())
            }
            Format::Table | Format::Wide => {
                text(&table::render(&items.iter().collect::<Vec<_>>(), self.format, self.style))
            }
        }
    }

    /// What a change did: a sentence for people, the resource for programs.
    pub fn did<R: Resource>(self, item: &R, what: &str) -> Result<()> {
        if self.is_table() { line(&format!("{} {what}", item.name())) } else { self.one(item) }
    }

    /// Where the API answers with nothing (a delete).
    pub fn did_to(self, name: &str, what: &str) -> Result<()> {
        match self.format {
            Format::Table | Format::Wide => line(&format!("{name} {what}")),
            Format::Name => line(name),
            Format::Json | Format::Yaml => self.document(&serde_json::json!({ "name": name })),
        }
    }

    /// A message that is no resource: programs get all of it, people get `plain`.
    pub fn message<M: Named>(self, message: &M, plain: &str) -> Result<()> {
        match self.format {
            Format::Json | Format::Yaml => self.document(&ProtoJson::new(M::MESSAGE, message)?),
            Format::Table | Format::Wide | Format::Name => line(plain),
        }
    }

    /// One of many in a stream: a line of JSON, a YAML document, or a name. Tables are [`table::Stream`]'s.
    pub fn streamed<M: Named>(self, message: &M, name: &str) -> Result<()> {
        match self.format {
            Format::Json => line(&to_json(&ProtoJson::new(M::MESSAGE, message)?, false)?),
            Format::Yaml => text(&format!("---\n{}", to_yaml(&ProtoJson::new(M::MESSAGE, message)?)?)),
            Format::Name | Format::Table | Format::Wide => line(name),
        }
    }

    pub fn document(self, value: &impl Serialize) -> Result<()> {
        match self.format {
            Format::Yaml => text(&to_yaml(value)?),
            _ => line(&to_json(value, true)?),
        }
    }
}

struct List {
    field: &'static str,
    items: Vec<ProtoJson>,
}

impl Serialize for List {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.field, &self.items)?;
        map.end()
    }
}

fn to_json(value: &impl Serialize, pretty: bool) -> Result<String> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map_err(|error| Failure::local(format!("cannot write this as JSON: {error}")))
}

fn to_yaml(value: &impl Serialize) -> Result<String> {
    serde_yaml_ng::to_string(value).map_err(|error| Failure::local(format!("cannot write this as YAML: {error}")))
}

pub fn line(what: &str) -> Result<()> {
    text(&format!("{what}\n"))
}

pub fn text(what: &str) -> Result<()> {
    bytes(what.as_bytes())
}

/// Flushed at once: what watches and consoles print must not sit in a buffer.
pub fn bytes(what: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(what).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::StdoutClosed,
        _ => Failure::local(format!("cannot write to stdout: {error}")),
    })
}

/// A word beside the result, on stderr.
pub fn note(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}
