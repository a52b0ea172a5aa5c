//! All checks over one set of facts.

use serde::Serialize;

use crate::check::CHECKS;
use crate::facts::Facts;
use crate::finding::{Finding, Level};

/// The shape of `croft host preflight -o json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Raised when a field changes its meaning; fields may be added.
    pub schema: u32,
    pub host: String,
    /// In the order of the checks.
    pub findings: Vec<Finding>,
}

#[must_use]
pub fn examine(facts: &Facts) -> Report {
    let findings = CHECKS.iter().flat_map(|check| check.run(facts)).collect();
    Report { schema: 1, host: facts.asked.hostname.clone(), findings }
}

impl Report {
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }

    /// Only what is at least as bad as `level`.
    #[must_use]
    pub fn at_least(self, level: Level) -> Report {
        let findings = self.findings.into_iter().filter(|finding| finding.level >= level).collect();
        Report { findings, ..self }
    }
}
