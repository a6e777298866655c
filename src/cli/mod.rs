//! The command line: what the user types, and how it ends.

mod apply;
mod begin;
mod check;
mod cluster;
mod departure;
mod doctor;
mod exit;
mod fleet;
mod heal;
mod init;
mod kubeconfig;
mod load;
mod man;
mod options;
mod output;
mod plan;
mod reference;
mod resume;
mod settle;
mod status;
mod trust;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use exit::Exit;
use options::{Options, Output, Writing};

/// Turns freshly flashed Raspberry Pis into a k3s homelab that heals itself.
#[derive(Debug, Parser)]
#[command(name = "selfheal", version, max_term_width = 100, after_help = exit::table())]
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
    Check(Output),
    /// Observe the nodes and print what would change, as diffs. Writes nothing.
    Plan(plan::Plan),
    /// Bring up new nodes from freshly flashed Pis; the first login may be by password.
    Bootstrap(apply::Converge),
    /// Converge the nodes after a change of the inventory. A second run changes nothing.
    Apply(apply::Converge),
    /// Examine the nodes: what is wrong, what that rests on, what to do. Writes nothing.
    Doctor(doctor::Doctor),
    /// Show the nodes at a glance: whether they are ready, what runs on them, since when. Writes nothing.
    Status(status::Status),
    /// Remove the ghost sandboxes of a node, which hold on to names and addresses after a power cut.
    Heal(heal::Heal),
    /// Bring the cluster's kubeconfig to this computer, beside the clusters that it knows already.
    Kubeconfig(kubeconfig::Kubeconfig),
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
    /// Print the manual page: every command with its options, and the exit codes.
    Man,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Undo selfheal on a node: originals back, what it owns gone. Packages stay.
    Restore {
        /// The node's name.
        node: String,
        #[command(flatten)]
        writing: Writing,
        #[command(flatten)]
        output: Output,
    },
    /// Take a node out of the cluster: its pods move to the others, its object goes, k3s leaves it.
    Remove(departure::Remove),
    /// Take k3s and all that it knows off a node, without asking the cluster. The next apply lets it join as a new node.
    Reset(departure::Reset),
    /// Let a node leave safe mode: panics reboot it again, and k3s starts.
    Resume(resume::Resume),
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
        Command::Check(output) => check::run(output, options),
        Command::Init(init) => init::run(&init, options),
        Command::Plan(plan) => plan::run(&plan, options),
        Command::Doctor(doctor) => doctor::run(&doctor, options),
        Command::Bootstrap(converge) => apply::bootstrap(&converge, options),
        Command::Apply(converge) => apply::apply(&converge, options),
        Command::Node(NodeCommand::Restore {
            node,
            writing,
            output,
        }) => apply::restore(&node, writing, output, options),
        Command::Node(NodeCommand::Remove(remove)) => departure::remove(&remove, options),
        Command::Node(NodeCommand::Reset(reset)) => departure::reset(&reset, options),
        Command::Node(NodeCommand::Resume(resume)) => resume::run(&resume, options),
        Command::Status(status) => status::run(&status, options),
        Command::Heal(heal) => heal::run(&heal, options),
        Command::Kubeconfig(kubeconfig) => kubeconfig::run(&kubeconfig, options),
        Command::Trust(trust) => trust::run(&trust, options),
        Command::Schema => reference::schema(),
        Command::Completions { shell } => reference::completions(shell),
        Command::Man => man::run(),
    }
}
