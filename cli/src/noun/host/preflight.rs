//! `croft host preflight`: is the machine that this runs on fit to be a host? The checks are `croft-preflight`'s.

use clap::{Args, ValueEnum};
use croft_preflight::{Facts, Finding, Level, Question, Report, examine};

use crate::failure::{Failure, Result};
use crate::output::cell::{Mood, Text};
use crate::output::{self, Format, Output, table};

#[derive(Debug, Args)]
pub struct Preflight {
    /// The control plane that the host will dial: is its name known, does it answer?
    #[arg(long, value_name = "HOST:PORT", value_parser = server)]
    server: Option<String>,
    /// Show only what is at least so bad
    #[arg(long, value_enum, default_value_t = LevelArg::Ok)]
    level: LevelArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LevelArg {
    Ok,
    Info,
    Warn,
    Fail,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Ok => Self::Ok,
            LevelArg::Info => Self::Info,
            LevelArg::Warn => Self::Warn,
            LevelArg::Fail => Self::Fail,
        }
    }
}

fn server(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not HOST:PORT")),
    }
}

/// Blocks for as long as the machine takes to answer: seconds.
pub fn run(out: &Output, preflight: Preflight) -> Result<()> {
    let facts = Facts::here(&Question { server: preflight.server })
        .map_err(|error| Failure::local(format!("this machine's files cannot be read: {error}")))?;
    let report = examine(&facts);
    let failed = failed(&report);
    let counts = Level::ALL.map(|level| (level.word(), report.count(level)));
    let report = report.at_least(preflight.level.into());
    match out.format {
        Format::Json | Format::Yaml => out.document(&report)?,
        Format::Name => report.findings.iter().try_for_each(|finding| output::line(finding.id))?,
        Format::Table | Format::Wide => {
            let rows: Vec<_> = report.findings.iter().map(row).collect();
            output::text(&table::texts(&["LEVEL", "CHECK", "SUBJECT", "FOUND"], &rows, out.style()))?;
            let told = if out.format == Format::Wide { Level::Info } else { Level::Warn };
            output::text(&advice(&report, told))?;
            let counts = counts.map(|(word, number)| format!("{number} {word}"));
            output::line(&format!("\n{}: {}", report.host, counts.join(", ")))?;
        }
    }
    match failed[..] {
        [] => Ok(()),
        _ => Err(Failure::local(format!("this machine is not fit to be a host yet: see {}", failed.join(", ")))),
    }
}

/// Ids of checks that fail, once each.
fn failed(report: &Report) -> Vec<&'static str> {
    let mut failed: Vec<_> =
        report.findings.iter().filter(|finding| finding.level == Level::Fail).map(|finding| finding.id).collect();
    failed.dedup();
    failed
}

fn row(finding: &Finding) -> Vec<Text> {
    let mood = match finding.level {
        Level::Ok => Mood::Good,
        Level::Info => Mood::Plain,
        Level::Warn => Mood::Doubtful,
        Level::Fail => Mood::Bad,
    };
    let level = Text::new(finding.level.word(), mood);
    vec![level, finding.id.into(), Text::from(&finding.subject), Text::from(&finding.found)]
}

/// Why, and what to do: of the worst first.
fn advice(report: &Report, least: Level) -> String {
    let mut text = String::new();
    for level in Level::ALL.into_iter().rev().filter(|level| *level >= least) {
        for finding in report.findings.iter().filter(|finding| finding.level == level) {
            let Finding { id, subject, found, reason, fix, .. } = finding;
            let role = finding.role.map(|role| format!(" (role {role})")).unwrap_or_default();
            text += &format!("\n{} {id}, {subject}: {found}\n  why: {reason}\n  fix: {fix}{role}\n", level.word());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_has_a_port() {
        assert_eq!(server("[fd00::1]:7443").unwrap(), "[fd00::1]:7443");
        for wrong in ["plane", "plane:", ":7443", "plane:0", "plane:70000", ""] {
            assert!(server(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_worst_is_told_first_with_its_fix() {
        let finding = |id, level, role| Finding {
            id,
            level,
            subject: "host".into(),
            found: "found".into(),
            reason: "reason".into(),
            fix: "fix".into(),
            role,
        };
        let findings = vec![finding("a", Level::Warn, None), finding("b", Level::Fail, Some("kernel"))];
        let report = Report { schema: 1, host: "h".into(), findings };
        assert_eq!(failed(&report), ["b"]);
        assert_eq!(
            advice(&report, Level::Warn),
            "\nfail b, host: found\n  why: reason\n  fix: fix (role kernel)\n\
             \nwarn a, host: found\n  why: reason\n  fix: fix\n"
        );
        assert!(!advice(&report, Level::Fail).contains("warn"));
    }
}
