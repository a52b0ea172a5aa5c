//! `croft`: see the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    croft_program::is_version(option_env!("CROFT_VERSION"));
    croft_cli::main()
}
