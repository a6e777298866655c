//! What selfheal says about itself to other programs: schema and completions.

use clap::CommandFactory;

use super::Cli;
use super::exit::Exit;
use super::output::{Failure, print, print_json};

pub(super) fn schema() -> Result<Exit, Failure> {
    print_json(&crate::inventory::schema());
    Ok(Exit::Done)
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "selfheal", &mut script);
    print(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}
