//! What became of each path, for people: the table that `cargo xtask lab` ends with.

use std::fmt::Write as _;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use croft_tests::lab_host::Witness;
use futures::FutureExt as _;

#[derive(Debug)]
pub struct Table {
    rows: Vec<Row>,
    witness: Witness,
    /// Words of which a row's name must have one; none: every row is tried.
    only: Vec<String>,
}

/// One path: what was done, what was seen, how long each took.
#[derive(Debug, Default)]
pub struct Row {
    pub path: &'static str,
    pub cells: Vec<(&'static str, String)>,
    failed: bool,
}

/// From one thing to the next.
#[derive(Debug)]
pub struct Lap(Instant);

impl Lap {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn time(&mut self) -> Duration {
        let took = self.0.elapsed();
        self.0 = Instant::now();
        took
    }
}

impl Row {
    /// `attach`: `yes, 12.3 s`
    pub fn took(&mut self, what: &'static str, lap: &mut Lap) {
        self.cells.push((what, format!("yes, {:.1} s", lap.time().as_secs_f64())));
    }

    pub fn note(&mut self, what: &'static str, text: impl Into<String>) {
        self.cells.push((what, text.into()));
    }
}

impl Table {
    /// `witness`: who is heard after a failure. CROFT_LAB_ROWS has words, by commas, for whoever works on some rows alone.
    pub fn new(witness: Witness) -> Self {
        let only = std::env::var("CROFT_LAB_ROWS").unwrap_or_default();
        let only: Vec<_> = only.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        Self { rows: Vec::new(), witness, only }
    }

    /// Tried whichever rows are chosen: who comes after this table wants the host as it was.
    pub async fn last(&mut self, path: &'static str, attempt: impl AsyncFnOnce(&mut Row)) -> bool {
        let only = std::mem::take(&mut self.only);
        let went_well = self.row(path, attempt).await;
        self.only = only;
        went_well
    }

    /// Tries one path. A failure is a row too, so that the others are tried all the same.
    pub async fn row(&mut self, path: &'static str, attempt: impl AsyncFnOnce(&mut Row)) -> bool {
        if !self.only.is_empty() && !self.only.iter().any(|word| path.contains(word)) {
            return true;
        }
        let mut row = Row { path, ..Row::default() };
        let tried = AssertUnwindSafe(attempt(&mut row)).catch_unwind().await;
        if tried.is_err() {
            row.failed = true;
            row.note("failed", "see above");
            println!("lab: {path} failed; {}", self.witness.tell(path));
        }
        println!("lab: {}", row.line());
        self.rows.push(row);
        tried.is_ok()
    }

    /// Something more to say of the last row.
    pub fn note(&mut self, text: &str) {
        println!("lab: {text}");
        if let Some(row) = self.rows.last_mut() {
            row.note("note", text);
        }
    }

    /// Prints it, and fails if any of its rows did.
    pub fn close(self) {
        let mut text = String::from(
            "\n| path | attach | guest sees it | detach | back as it was | reset |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let cell = |name: &str| row.cells.iter().find(|(what, _)| *what == name).map_or("", |(_, text)| text);
            let known = ["attach", "seen", "detach", "back", "reset"];
            let cells = known.map(cell).join(" | ");
            let _ = writeln!(text, "| {} | {cells} |", row.path);
            for (what, told) in row.cells.iter().filter(|(what, _)| !known.contains(what)) {
                let _ = writeln!(text, "| | {what}: {told} | | | | |");
            }
        }
        println!("{text}");
        if !self.only.is_empty() {
            println!("lab: only rows with one of {:?} were tried", self.only);
        }
        let failed: Vec<_> = self.rows.iter().filter(|row| row.failed).map(|row| row.path).collect();
        assert!(failed.is_empty(), "failed: {failed:?}");
    }
}

impl Row {
    fn line(&self) -> String {
        let cells: Vec<_> = self.cells.iter().map(|(what, text)| format!("{what} {text}")).collect();
        format!("{}: {}", self.path, cells.join("; "))
    }
}
