//! Tables as kubectl's: no borders, upper-case headers, columns as narrow as their content.

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::cell::Text;
use super::{Format, Resource};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Plain,
    Colour,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    Always,
    Wide,
}

/// One column of a noun's table.
#[derive(Debug)]
pub struct Column<R> {
    pub header: &'static str,
    pub shown: Shown,
    pub cell: fn(&R) -> Text,
}

impl<R> Column<R> {
    pub const fn new(header: &'static str, cell: fn(&R) -> Text) -> Self {
        Self { header, shown: Shown::Always, cell }
    }

    pub const fn wide(header: &'static str, cell: fn(&R) -> Text) -> Self {
        Self { header, shown: Shown::Wide, cell }
    }
}

fn columns<R: Resource>(format: Format) -> impl Iterator<Item = &'static Column<R>> {
    R::COLUMNS.iter().filter(move |column| column.shown == Shown::Always || format == Format::Wide)
}

#[must_use]
pub fn render<R: Resource>(items: &[&R], format: Format, style: Style) -> String {
    let header = columns::<R>(format).map(|column| column.header.to_owned()).collect();
    let rows = items.iter().map(|item| row(*item, format)).collect::<Vec<_>>();
    draw(&[], Some(header), &rows, style).0
}

/// A row without what changes by itself as time goes by.
#[must_use]
pub fn lasting<R: Resource>(item: &R, format: Format) -> Vec<Text> {
    columns(format).filter(|column| column.header != "AGE").map(|column| (column.cell)(item)).collect()
}

fn row<R: Resource>(item: &R, format: Format) -> Vec<Text> {
    columns(format).map(|column| (column.cell)(item)).collect()
}

/// For what is no message of the API.
#[must_use]
pub fn plain(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let rows: Vec<Vec<Text>> = rows.into_iter().map(|row| row.into_iter().map(Text::from).collect()).collect();
    texts(header, &rows, Style::Plain)
}

/// The same, with colours.
#[must_use]
pub fn texts(header: &[&str], rows: &[Vec<Text>], style: Style) -> String {
    draw(&[], Some(header.iter().map(|&name| name.to_owned()).collect()), rows, style).0
}

/// A table that grows while it is being read: later rows keep at least the widths of the earlier ones.
#[derive(Debug)]
pub struct Stream {
    format: Format,
    style: Style,
    widths: Vec<u16>,
    begun: bool,
}

impl Stream {
    #[must_use]
    pub fn new(format: Format, style: Style) -> Self {
        Self { format, style, widths: Vec::new(), begun: false }
    }

    /// The next rows, with the header before the first. `first` is an extra column at the left (the kind of a change).
    pub fn rows<R: Resource>(&mut self, first: &'static str, items: &[(Text, &R)]) -> String {
        if items.is_empty() {
            return String::new();
        }
        let extra = !first.is_empty();
        let header = (!self.begun).then(|| {
            let names = columns::<R>(self.format).map(|column| column.header.to_owned());
            extra.then(|| first.to_owned()).into_iter().chain(names).collect()
        });
        let rows: Vec<Vec<Text>> = items
            .iter()
            .map(|(text, item)| extra.then(|| text.clone()).into_iter().chain(row(*item, self.format)).collect())
            .collect();
        self.begun = true;
        if extra && self.widths.is_empty() {
            // The longest kind of change may come last.
            self.widths.push("MODIFIED".len() as u16);
        }
        let (text, widths) = draw(&self.widths, header, &rows, self.style);
        self.widths = widths;
        text
    }
}

/// The text, and how wide each column's content came out.
fn draw(at_least: &[u16], header: Option<Vec<String>>, rows: &[Vec<Text>], style: Style) -> (String, Vec<u16>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    match style {
        Style::Plain => table.force_no_tty(),
        Style::Colour => table.enforce_styling(),
    };
    if let Some(header) = header {
        table.set_header(header);
    }
    table.add_rows(rows.iter().map(|row| row.iter().map(Text::cell).collect::<Vec<_>>()));
    let widths: Vec<u16> = table
        .column_max_content_widths()
        .iter()
        .enumerate()
        .map(|(at, width)| (*width).max(at_least.get(at).copied().unwrap_or_default()))
        .collect();
    for (at, width) in widths.iter().enumerate() {
        if let Some(column) = table.column_mut(at) {
            column.set_padding((0, 3));
            // Boundaries count the padding.
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + 3)));
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    (text, widths)
}

#[cfg(test)]
mod tests {
    use croft_proto::v1::Tenant;

    use super::*;

    fn tenant(id: &str, display_name: &str) -> Tenant {
        Tenant { name: format!("tenants/{id}"), display_name: display_name.into(), ..Tenant::default() }
    }

    #[test]
    fn tables_have_no_borders_and_end_where_their_text_ends() {
        let (a, b) = (tenant("acme", "Acme Corp"), tenant("a-much-longer-one", ""));
        let text = render(&[&a, &b], Format::Table, Style::Plain);
        assert_eq!(
            text,
            "NAME                PARENT   DISPLAY NAME   AGE\n\
             acme                -        Acme Corp      -\n\
             a-much-longer-one   -        -              -\n"
        );
    }

    #[test]
    fn wide_has_more() {
        let text = render(&[&tenant("acme", "")], Format::Wide, Style::Plain);
        assert!(text.lines().next().unwrap().ends_with("UID   LABELS"), "{text}");
    }

    #[test]
    fn a_growing_table_stays_in_line() {
        let mut stream = Stream::new(Format::Table, Style::Plain);
        let first = stream.rows("EVENT", &[(Text::from("ADDED"), &tenant("a-long-name", "x"))]);
        let second = stream.rows("EVENT", &[(Text::from("MODIFIED"), &tenant("b", "y"))]);
        let third = stream.rows("EVENT", &[(Text::from("ADDED"), &tenant("c", "z"))]);
        assert!(first.starts_with("EVENT      NAME"), "{first}");
        assert_eq!(second, "MODIFIED   b             -        y              -\n");
        assert_eq!(third, "ADDED      c             -        z              -\n");
    }
}
