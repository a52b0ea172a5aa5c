//! The manual of a program, written by the program itself, so that it never speaks of another one: a page for each command,
//! and what shells complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// Arguments of the hidden command `manual`, by which packages are made.
#[derive(Debug, Clone, Args)]
pub struct Manual {
    /// Man pages go into man/, completions into bash/, zsh/ and fish/ below it
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

const SHELLS: [(Shell, &str); 3] = [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];

/// Writes the pages and completions of `program` below `directory`, which is made. `section` is the manual's: 1 for what
/// everybody runs, 8 for what root does.
pub fn write_manual(program: Command, section: &str, directory: &Path) -> io::Result<()> {
    let name = program.get_name().to_owned();
    for (shell, folder) in SHELLS {
        let folder = directory.join(folder);
        fs::create_dir_all(&folder)?;
        clap_complete::generate_to(shell, &mut program.clone(), &name, &folder)?;
    }
    let pages = directory.join("man");
    fs::create_dir_all(&pages)?;
    // `croft help host` is for people who have no manual.
    let mut program = program.disable_help_subcommand(true);
    program.build();
    page(program, section, &pages)
}

fn page(command: Command, section: &str, pages: &Path) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        page(verb.clone(), section, pages)?;
    }
    let man = Man::new(command).section(section).manual("Croft").source(format!("Croft {}", crate::version()));
    man.render(&mut File::create(pages.join(man.get_filename()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_that_names_its_options_and_hidden_ones_have_none() {
        let program = Command::new("croft-thing").subcommand(Command::new("secret").hide(true)).subcommand(
            Command::new("run").about("Runs it").arg(clap::Arg::new("speed").long("speed").help("How fast")),
        );
        let dir = tempfile::tempdir().unwrap();
        write_manual(program, "8", dir.path()).unwrap();
        let mut pages: Vec<String> = fs::read_dir(dir.path().join("man"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        assert_eq!(pages, ["croft-thing-run.8", "croft-thing.8"]);
        let text = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert!(text("man/croft-thing-run.8").contains("How fast"));
        assert!(text("man/croft-thing.8").contains("croft\\-thing\\-run(8)"), "{}", text("man/croft-thing.8"));
        for file in ["bash/croft-thing.bash", "zsh/_croft-thing", "fish/croft-thing.fish"] {
            assert!(text(file).contains("speed"), "{file}");
        }
    }
}
