//! A question before something is lost. Only a person at a terminal can answer it; a script says `--yes`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::failure::{Failure, Result};

/// `Ok`: yes. Anything but `y` or `yes` is a no.
pub fn ask(question: &str) -> Result<()> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{question} Nobody is at a terminal to answer: say --yes")));
    }
    let failed = |error: io::Error| Failure::local(format!("the terminal: {error}"));
    // Not stdout: that is for results.
    write!(io::stderr(), "{question} [y/N] ").map_err(failed)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    if is_yes(&answer) { Ok(()) } else { Err(Failure::local("nothing was done")) }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        assert!(is_yes("y\n") && is_yes(" YES \n"));
        assert!(!is_yes("") && !is_yes("\n") && !is_yes("no\n") && !is_yes("yep\n"));
    }
}
