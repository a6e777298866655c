//! What selfheal says about itself: schema, completions, manual page.

use anyhow::Context;
use clap::CommandFactory;

use super::Cli;
use super::exit::{self, Exit};
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

pub(super) fn man() -> Result<Exit, Failure> {
    let mut page = Vec::new();
    let command = Cli::command().after_help(exit::TABLE);
    clap_mangen::Man::new(command)
        .render(&mut page)
        .context("cannot write the manual page")?;
    print(&String::from_utf8_lossy(&page));
    Ok(Exit::Done)
}
