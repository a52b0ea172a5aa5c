//! What stands in a cell of a table: text, and what its colour says.

use comfy_table::{Cell, Color};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    text: String,
    mood: Mood,
}

/// Colour says the same as the text; nothing is told by colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Plain,
    Good,
    Busy,
    Doubtful,
    Bad,
}

impl Text {
    pub fn new(text: impl Into<String>, mood: Mood) -> Self {
        Self { text: text.into(), mood }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Empty shows as `-`, so that columns can be cut by spaces; a line break would tear the table.
    #[must_use]
    pub fn cell(&self) -> Cell {
        let text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        let cell = Cell::new(if text.is_empty() { "-".to_owned() } else { text });
        match self.mood {
            Mood::Plain => cell,
            Mood::Good => cell.fg(Color::Green),
            Mood::Busy => cell.fg(Color::Cyan),
            Mood::Doubtful => cell.fg(Color::Yellow),
            Mood::Bad => cell.fg(Color::Red),
        }
    }
}

impl<T: ToString> From<T> for Text {
    fn from(text: T) -> Self {
        Self { text: text.to_string(), mood: Mood::Plain }
    }
}

/// `a=1,b=2`
#[must_use]
pub fn labels(metadata: Option<&croft_proto::v1::Metadata>) -> Text {
    let mut pairs: Vec<_> = metadata
        .into_iter()
        .flat_map(|metadata| &metadata.labels)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    pairs.sort();
    pairs.join(",").into()
}

#[must_use]
pub fn uid(metadata: Option<&croft_proto::v1::Metadata>) -> Text {
    metadata.map(|metadata| metadata.uid.clone()).unwrap_or_default().into()
}

/// The few that matter, and how many more there are: `web1,web2,+3`.
#[must_use]
pub fn few<T: AsRef<str>>(items: &[T], most: usize) -> Text {
    let mut shown: Vec<String> = items.iter().take(most).map(|item| item.as_ref().to_owned()).collect();
    if items.len() > most {
        shown.push(format!("+{}", items.len() - most));
    }
    shown.join(",").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_tears_the_table() {
        assert_eq!(Text::from("").cell().content(), "-");
        assert_eq!(Text::from("two\nlines  here").cell().content(), "two lines here");
        assert_eq!(few(&["a", "b", "c"], 2), Text::from("a,b,+1"));
    }
}
