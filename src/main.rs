//! The `selfheal` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    selfheal::cli::run()
}
