//! What test runners say at their end, read and added up.
//!
//! Knows the closing lines of libtest and of this program itself. A runner whose output has none ran no test, and
//! a lane that ran no test has failed: silence must never look like success.

use std::fmt;
use std::ops::AddAssign;

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Count {
    /// Tests that really ran.
    pub(crate) fn executed(self) -> u64 {
        self.passed + self.failed
    }

    /// The same count in words that no reader of closing lines takes for one: only the last line may be that.
    pub(crate) fn words(self) -> String {
        format!("passed {}, failed {}, skipped {}", self.passed, self.failed, self.skipped)
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The plain closing line that any reader of logs understands.
impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// A count, and the names of what failed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) count: Count,
    pub(crate) failures: Vec<String>,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.count += other.count;
        self.failures.extend(other.failures);
    }
}

impl Tally {
    /// One line of a runner's output.
    pub(crate) fn read(&mut self, line: &str) {
        let failures = failed_test(line).into_iter().collect();
        *self += Tally { count: parse(line).unwrap_or_default(), failures };
    }
}

pub(crate) fn is_closing(line: &str) -> bool {
    parse(line).is_some()
}

/// The count in a closing line; `None` for every other line.
fn parse(line: &str) -> Option<Count> {
    let plain = without_colour(line);
    let text = plain.trim();
    if let Some(rest) = text.strip_prefix("test result: ") {
        // test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s
        let (_, counts) = rest.split_once(". ")?;
        return Some(Count {
            passed: number_before(counts, "passed", ';')?,
            failed: number_before(counts, "failed", ';')?,
            skipped: number_before(counts, "ignored", ';').unwrap_or(0),
        });
    }
    let passed = number_before(text, "passed", ',')?;
    let failed = number_before(text, "failed", ',')?;
    let skipped = number_before(text, "skipped", ',').unwrap_or(0);
    let count = Count { passed, failed, skipped };
    // Alone on its line, or it is somebody's prose.
    (text == count.to_string() || text == format!("{passed} passed, {failed} failed")).then_some(count)
}

/// The name in a line that says that one test failed.
fn failed_test(line: &str) -> Option<String> {
    let plain = without_colour(line);
    let text = plain.trim();
    // test a::b ... FAILED
    text.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")).map(str::to_owned)
}

/// The number before `word` in a list of "number word" items.
fn number_before(list: &str, word: &str, separator: char) -> Option<u64> {
    list.split(separator).find_map(|item| {
        let (number, rest) = item.trim().split_once(' ')?;
        (rest == word).then(|| number.parse().ok()).flatten()
    })
}

fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            // CSI … letter
            for c in chars.by_ref() {
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn count(passed: u64, failed: u64, skipped: u64) -> Option<Count> {
        Some(Count { passed, failed, skipped })
    }

    #[test]
    fn libtest() {
        let line = "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.01s";
        assert_eq!(parse(line), count(5, 0, 1));
        let line = "test result: \u{1b}[31mFAILED\u{1b}[m. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(parse(line), count(3, 2, 0));
    }

    #[test]
    fn failed_tests_are_named() {
        assert_eq!(failed_test("test a::b ... \u{1b}[31mFAILED\u{1b}[0m").as_deref(), Some("a::b"));
        assert_eq!(failed_test("test a::b ... ok"), None);
        assert_eq!(failed_test("test result: FAILED. 1 passed; 1 failed"), None);
    }

    #[test]
    fn our_own() {
        let ours = Count { passed: 4, failed: 0, skipped: 2 };
        assert_eq!(parse(&ours.to_string()), Some(ours));
        assert_eq!(parse(&ours.words()), None);
        assert_eq!(parse("4 passed, 1 failed"), count(4, 1, 0));
    }

    #[test]
    fn prose_is_not_a_closing_line() {
        for line in ["running 3 tests", "test a ... ok", "of these 4 passed, 1 failed, sadly", "4 passed", ""] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
