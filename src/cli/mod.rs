//! The command line: what the user types, and how it ends.

mod apply;
mod check;
mod exit;
mod fleet;
mod init;
mod load;
mod output;
mod plan;
mod reference;
mod trust;

use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::node::ledger::LayerName;
pub use exit::Exit;

/// Turns freshly flashed Raspberry Pis into a k3s homelab that heals itself.
#[derive(Debug, Parser)]
#[command(name = "selfheal", version, max_term_width = 100, after_help = exit::TABLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at some hosts and write a commented inventory with pinned host keys.
    Init(init::Init),
    /// Validate the inventory offline: every error at its line and column, all of them in one go.
    Check,
    /// Observe the nodes and print what would change, as diffs. Writes nothing.
    Plan,
    /// Bring up new nodes from freshly flashed Pis; the first login may be by password.
    Bootstrap,
    /// Converge the nodes after a change of the inventory. A second run changes nothing.
    Apply,
    /// Show the old and the new host key of a re-flashed node, and pin the new one.
    Trust(trust::Trust),
    /// Work on one node.
    #[command(subcommand)]
    Node(NodeCommand),
    /// Print the JSON schema of the inventory, for editors.
    Schema,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Undo selfheal on a node: originals back, what it owns gone. Packages stay.
    Restore {
        /// The node's name.
        node: String,
    },
}

/// When colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Options of every command.
#[derive(Debug, Args)]
struct Options {
    /// The inventory [default: inventory/homelab.toml, then homelab.toml].
    #[arg(short, long, global = true, value_name = "FILE")]
    inventory: Option<Utf8PathBuf>,
    /// Only these nodes: names, @roles, @tags and globs, such as `jarvis,@worker,pi-*`.
    #[arg(long, global = true, value_name = "NODES")]
    on: Option<String>,
    /// Only these layers: hardening, boot.
    #[arg(long, global = true, value_name = "LAYER", value_delimiter = ',')]
    only: Vec<LayerName>,
    /// All layers but these: hardening, boot.
    #[arg(long, global = true, value_name = "LAYER", value_delimiter = ',')]
    skip: Vec<LayerName>,
    /// How many nodes are connected to at once.
    #[arg(long, global = true, value_name = "N", default_value_t = 16)]
    parallel: usize,
    /// Do not ask before writing. Never confirms a host key.
    #[arg(short, long, global = true)]
    yes: bool,
    /// Leave nodes that need a reboot with the reboot pending.
    #[arg(long, global = true)]
    no_reboot: bool,
    /// Print the result as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// No progress, only results and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Progress with every detail, and plans with long new files in full.
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Colours.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
}

/// Runs the command line.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    let exit = dispatch(cli.command, &cli.options).unwrap_or_else(|failure| {
        output::failure(&failure);
        failure.exit
    });
    exit.into()
}

fn dispatch(command: Command, options: &Options) -> Result<Exit, output::Failure> {
    match command {
        Command::Check => check::run(options),
        Command::Init(init) => init::run(&init, options),
        Command::Plan => plan::run(options),
        Command::Bootstrap => apply::run(options, apply::Mode::Bootstrap),
        Command::Apply => apply::run(options, apply::Mode::Apply),
        Command::Node(NodeCommand::Restore { node }) => {
            apply::run(options, apply::Mode::Restore(node))
        }
        Command::Trust(trust) => trust::run(&trust, options),
        Command::Schema => reference::schema(),
        Command::Completions { shell } => reference::completions(shell),
        Command::Man => reference::man(),
    }
}
