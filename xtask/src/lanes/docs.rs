//! *docs*: every link in the documentation leads somewhere, and every command in it is one that our programs accept.
//!
//! A command is tried by running it with `--help` added: clap then checks its verbs and options and does nothing.
//! Links to the web are not followed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap::error::ErrorKind;

use super::cargo_tests::build_binaries;
use super::{Lane, Name, Options, Ran, timed};
use crate::closing::Tally;
use crate::markdown::{self, Document};
use crate::packages;
use crate::run::Run;
use crate::workspace::{Metadata, files, root};

pub(super) const LANE: Lane = Lane {
    name: Name::Docs,
    what: "links and commands in the documentation",
    budget: Duration::from_secs(30),
    packages: &[packages::BUILD, packages::LINT],
    obstacle: || None,
    run: lane,
};

const PROGRAMS: [&str; 3] = ["croft", "croft-controlplane", "croft-hostagent"];

fn lane(_: &Options) -> Result<Ran> {
    let ((), build) = timed(build_binaries)?;
    let binaries = Metadata::load()?.target_dir()?.join("debug");
    let (tally, tests) = timed(|| {
        let documents = documents()?;
        let mut tally = Tally::default();
        for (file, document) in &documents {
            for link in &document.links {
                record(&mut tally, file, link.line, broken_link(file, &link.target, &documents));
            }
            for command in &document.commands {
                if let Some(words) = ours(&command.text) {
                    record(&mut tally, file, command.line, refused(&words, &binaries)?);
                }
            }
        }
        Ok(tally)
    })?;
    Ok(Ran { tally, build, tests })
}

fn record(tally: &mut Tally, file: &Path, line: usize, fault: Option<String>) {
    match fault {
        None => tally.count.passed += 1,
        Some(fault) => {
            tally.count.failed += 1;
            tally.failures.push(format!("{}:{line}: {fault}", file.display()));
        }
    }
}

fn documents() -> Result<BTreeMap<PathBuf, Document>> {
    let markdown = files()?.into_iter().filter(|f| f.ends_with(".md"));
    markdown
        .map(|file| {
            let text = fs::read_to_string(root().join(&file)).with_context(|| format!("cannot read {file}"))?;
            Ok((PathBuf::from(file), markdown::read(&text)))
        })
        .collect()
}

fn broken_link(from: &Path, target: &str, documents: &BTreeMap<PathBuf, Document>) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let file = if path.is_empty() { from.to_owned() } else { resolve(from, path) };
    if !root().join(&file).exists() {
        return Some(format!("the link {target} leads to {}, which is not there", file.display()));
    }
    let has_anchor = |d: &Document| anchor.is_empty() || d.anchors.iter().any(|a| a == anchor);
    match documents.get(&file) {
        Some(document) if !has_anchor(document) => Some(format!("{} has no heading #{anchor}", file.display())),
        _ => None,
    }
}

fn resolve(from: &Path, path: &str) -> PathBuf {
    let mut resolved = from.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::Normal(name) => resolved.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    resolved
}

/// The words of a command of ours: without what the shell does around it.
fn ours(command: &str) -> Option<Vec<String>> {
    let mut words = shell_words(command);
    let is_end = |w: &String| ["|", "||", "&&", ";", ">", ">>", "&"].contains(&w.as_str()) || w.starts_with('#');
    words.truncate(words.iter().position(is_end).unwrap_or(words.len()));
    // "and so on"; elsewhere it stands for a value
    words.pop_if(|w| w == "…" || w == "...");
    let is_prefix = |w: &String| w == "sudo" || w == "-E" || (w.contains('=') && !w.starts_with('-'));
    let words = words.split_off(words.iter().position(|w| !is_prefix(w))?);
    let program = Path::new(words.first()?).file_name()?.to_str()?;
    let xtask = program == "cargo" && words.get(1).is_some_and(|w| w == "xtask");
    // In a picture the program's name may stand alone, or beside a box.
    let is_word = |w: &String| w.starts_with(|c: char| c.is_ascii_lowercase() || c == '-');
    (xtask || (PROGRAMS.contains(&program) && words.get(1).is_some_and(is_word))).then_some(words)
}

/// Split at blanks outside quotes; the quotes themselves go.
fn shell_words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in command.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => words.push(String::new()),
            _ => {
                if let Some(word) = words.last_mut() {
                    word.push(c);
                }
            }
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

/// Why our program would refuse these words.
fn refused(words: &[String], binaries: &Path) -> Result<Option<String>> {
    // What follows `--` belongs to somebody else.
    let own: Vec<&String> = words.iter().take_while(|w| *w != "--").collect();
    if words[0] == "cargo" {
        let asked = crate::Arguments::command().try_get_matches_from(own[1..].iter().copied().chain([&help()]));
        return Ok(match asked {
            Err(error) if error.kind() == ErrorKind::DisplayHelp => None,
            Err(error) => Some(format!("`{}`: {}", words.join(" "), first_line(&error.to_string()))),
            Ok(_) => None,
        });
    }
    let program = Path::new(&words[0]).file_name().unwrap_or_default();
    let ended = Run::new(binaries.join(program))
        .args(&own[1..])
        .arg("--help")
        // Nothing to talk to, whatever it should try.
        .env("CROFT_CONFIG", "/nonexistent/croft.yaml")
        .env("CROFT_SERVER", "127.0.0.1:1")
        .ended()?;
    Ok((!ended.success).then(|| format!("`{}`: {}", words.join(" "), first_line(&ended.stderr))))
}

fn help() -> String {
    "--help".to_owned()
}

fn first_line(text: &str) -> &str {
    text.lines().find(|l| !l.trim().is_empty()).unwrap_or("refused without a word")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_commands_are_tried() {
        assert_eq!(ours("sudo apt-get install git"), None);
        assert_eq!(ours("cargo build"), None);
        assert_eq!(
            ours("croft host list --token \"$(cat t)\" …").unwrap(),
            ["croft", "host", "list", "--token", "$(cat t)"]
        );
        assert_eq!(ours("croft (CLI) ──► controlplane"), None);
        assert_eq!(ours("CI=true cargo xtask test | tee log").unwrap(), ["cargo", "xtask", "test"]);
        assert_eq!(ours("sudo target/debug/croft host list # all").unwrap(), ["target/debug/croft", "host", "list"]);
    }

    #[test]
    fn an_option_that_does_not_exist_is_refused() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(refused(&words("cargo xtask quickstart --down"), Path::new("/")).unwrap(), None);
        let fault = refused(&words("cargo xtask quickstart --dwon"), Path::new("/")).unwrap().unwrap();
        assert!(fault.contains("--dwon"), "{fault}");
    }

    #[test]
    fn links_are_resolved_from_where_they_stand() {
        assert_eq!(
            resolve(Path::new("docs/errors/NoCapacity.md"), "../operations.md"),
            Path::new("docs/operations.md")
        );
        let mut documents = BTreeMap::new();
        documents.insert(PathBuf::from("README.md"), markdown::read("# One\n"));
        assert!(broken_link(Path::new("Cargo.toml"), "no-such-file.md", &documents).is_some());
        assert!(
            broken_link(Path::new("README.md"), "#two", &documents).is_some() || !root().join("README.md").exists()
        );
        assert_eq!(broken_link(Path::new("README.md"), "https://croft.dev", &documents), None);
    }
}
