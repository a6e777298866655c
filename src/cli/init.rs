//! `selfheal init`: from a few hosts to a commented inventory.

use clap::Args;

/// Which hosts.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Hosts to look at.
    hosts: Vec<String>,
}
pub(super) fn run(_: &Init, _: &super::Options) -> Result<super::Exit, super::output::Failure> {
    Ok(super::Exit::Done)
}
