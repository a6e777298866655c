//! The options that several commands share, in the groups in which commands take them. A command shows and accepts only
//! what it heeds: anything else is a usage error, not a silent no.

use std::num::NonZeroUsize;

use camino::Utf8PathBuf;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::node::ledger::LayerName;

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(super) struct Options {
    /// The inventory [default: inventory/homelab.toml, then homelab.toml].
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(super) inventory: Option<Utf8PathBuf>,
    /// No progress, only results and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Progress with every detail, plans with long new files in full, every check of doctor.
    #[arg(short, long, global = true)]
    pub(super) verbose: bool,
    /// When to use colours; by itself on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    pub(super) color: Colour,
}

// No doc comments on the words: with them, clap spreads the help of every command over three times as many lines.
/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    Auto,
    Always,
    Never,
}

/// Which nodes a command works on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Choosing nodes and layers")]
pub(super) struct Nodes {
    /// Only these nodes: names, @roles, @tags and globs, such as `jarvis,@worker,pi-*`.
    #[arg(long, value_name = "NODES")]
    pub(super) on: Option<String>,
    #[command(flatten)]
    pub(super) parallel: Parallel,
}

/// How many nodes are worked on at once.
#[derive(Debug, Args)]
pub(super) struct Parallel {
    /// How many nodes are connected to at once.
    #[arg(long = "parallel", value_name = "N", default_value = "16")]
    pub(super) at_once: NonZeroUsize,
}

/// Which layers a command works on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Choosing nodes and layers")]
pub(super) struct Layers {
    /// Only these layers, with commas between them.
    #[arg(long, value_name = "LAYER", value_delimiter = ',', value_parser = layer())]
    pub(super) only: Vec<LayerName>,
    /// All layers but these, with commas between them.
    #[arg(long, value_name = "LAYER", value_delimiter = ',', value_parser = layer())]
    pub(super) skip: Vec<LayerName>,
}

/// A layer's name, which help and completions list.
fn layer() -> impl TypedValueParser<Value = LayerName> {
    PossibleValuesParser::new(LayerName::ALL.map(LayerName::as_str))
        .try_map(|name| name.parse::<LayerName>())
}

/// Whether the user is asked first.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Writing")]
pub(super) struct Consent {
    /// Do not ask before writing. Never confirms a host key.
    #[arg(short, long)]
    pub(super) yes: bool,
}

/// How a command writes to nodes.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Writing")]
pub(super) struct Writing {
    #[command(flatten)]
    pub(super) consent: Consent,
    /// Leave nodes that need a reboot with the reboot pending.
    #[arg(long)]
    pub(super) no_reboot: bool,
}

/// How a command prints its result.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct Output {
    /// Print the result as JSON.
    #[arg(long)]
    pub(super) json: bool,
}
