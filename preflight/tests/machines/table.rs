//! docs/preflight.md has each check as the code has it.

use std::collections::BTreeSet;

use croft_preflight::CHECKS;

const PAGE: &str = include_str!("../../../docs/preflight.md");

#[test]
fn every_check_has_its_row_and_no_row_is_of_another() {
    let row = |check: &croft_preflight::Check| {
        let role = check.role.map_or("–".to_owned(), |role| format!("`{role}`"));
        format!("| `{}` | {} | {} | {} | {role} |", check.id, check.looks_at, check.why, check.worst.word())
    };
    let expected: Vec<_> = CHECKS.iter().map(row).collect();
    let table = PAGE.lines().skip_while(|line| *line != "## The checks");
    let rows: Vec<_> = table.filter(|line| line.starts_with("| `")).collect();
    assert_eq!(rows, expected, "the table should be:\n{}", expected.join("\n"));
}

#[test]
fn ids_are_told_apart_and_can_be_typed() {
    let ids: BTreeSet<_> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(ids.len(), CHECKS.len());
    assert!(ids.iter().all(|id| id.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')), "{ids:?}");
}
