//! `selfheal trust`: a re-flashed node shows a new host key; the user compares and pins it.

use clap::Args;

/// Which node.
#[derive(Debug, Args)]
pub(super) struct Trust {
    /// The node's name.
    node: String,
}
pub(super) fn run(_: &Trust, _: &super::Options) -> Result<super::Exit, super::output::Failure> {
    Ok(super::Exit::Done)
}
