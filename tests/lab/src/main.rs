//! `cargo lab`: starts, stops and torments virtual Raspberry Pis.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use selfheal_lab::control::{self, Request, Status, Table};
use selfheal_lab::{Lab, Options, release};

/// Virtual Raspberry Pis: real Debian, a boot partition, a watchdog, and a plug to pull.
#[derive(Debug, Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Boot fresh Pis and leave them running
    Up {
        /// Their names
        #[arg(default_values = ["jarvis", "ultron"])]
        names: Vec<String>,
        #[command(flatten)]
        options: Options,
    },
    /// End Pis (all of them unless named) and remove their disks
    Down {
        /// Their names
        names: Vec<String>,
    },
    /// Log in as pi, or run a command
    Ssh {
        /// The Pi's name
        name: String,
        /// A command to run there
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run a script as root over the lab's private channel, which needs no network
    Root {
        /// The Pi's name
        name: String,
        /// The script
        script: String,
    },
    /// Pull the plug
    PowerCut {
        /// The Pi's name
        name: String,
    },
    /// Plug it in
    PowerOn {
        /// The Pi's name
        name: String,
    },
    /// Crash the kernel for good: only a watchdog helps then
    Freeze {
        /// The Pi's name
        name: String,
    },
    /// Stop the machine between two instructions
    Pause {
        /// The Pi's name
        name: String,
    },
    /// Let a paused machine go on
    Resume {
        /// The Pi's name
        name: String,
    },
    /// Pull the network cables
    Unplug {
        /// The Pi's name
        name: String,
    },
    /// Plug the network cables in
    Plug {
        /// The Pi's name
        name: String,
    },
    /// Show the Pis and how they are reached
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print a selfheal inventory of Pis (all of them unless named): the first one is the control plane
    Inventory {
        /// Their names
        names: Vec<String>,
        /// A folder of releases of k3s (see `release`), to make a cluster of them
        #[arg(long, value_name = "FOLDER")]
        k3s: Option<PathBuf>,
    },
    /// Build image, repository and snapshot now, if they are missing
    Build {
        #[command(flatten)]
        options: Options,
    },
    /// Make a folder like k3s's releases: the k3s double, or the k3s that SELFHEAL_LAB_K3S names
    Release {
        /// The folder, for `k3s.source` in an inventory
        folder: PathBuf,
        /// The versions in it
        #[arg(default_value = release::VERSION)]
        versions: Vec<String>,
    },
    #[command(hide = true)]
    Launch {
        name: String,
        seat: u8,
        lan: u16,
        #[command(flatten)]
        options: Options,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().action) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: Action) -> Result<()> {
    let table = Table::open()?;
    let ask =
        |name: &str, request: &Request| table.ask(name, request).map(|answer| print!("{answer}"));
    match action {
        Action::Up { names, options } => {
            // Built here, so that its progress is seen.
            Lab::new()?.prepare(&options)?;
            table.up(&names, &options)?;
            print_table(&statuses(&table)?);
            Ok(())
        }
        Action::Down { names } => {
            let names = if names.is_empty() {
                table.names()?
            } else {
                names
            };
            names.iter().try_for_each(|name| table.down(name))
        }
        Action::Ssh { name, command } => ssh(&table.status(&name)?, &command),
        Action::Root { name, script } => ask(&name, &Request::Root(script)),
        Action::PowerCut { name } => ask(&name, &Request::PowerCut),
        Action::PowerOn { name } => ask(&name, &Request::PowerOn),
        Action::Freeze { name } => ask(&name, &Request::Freeze),
        Action::Pause { name } => ask(&name, &Request::Pause),
        Action::Resume { name } => ask(&name, &Request::Resume),
        Action::Unplug { name } => ask(&name, &Request::Network(false)),
        Action::Plug { name } => ask(&name, &Request::Network(true)),
        Action::Status { json } => {
            let statuses = statuses(&table)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&statuses)?);
            } else {
                print_table(&statuses);
            }
            Ok(())
        }
        Action::Inventory { names, k3s } => {
            let k3s = k3s.map(std::fs::canonicalize).transpose()?;
            let mut statuses = statuses(&table)?;
            statuses.retain(|pi| names.is_empty() || names.contains(&pi.name));
            print!("{}", control::inventory(&statuses, k3s.as_deref()));
            Ok(())
        }
        Action::Build { options } => Lab::new()?.prepare(&options),
        Action::Release { folder, versions } => {
            let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
            release::make(&folder, &versions)
        }
        Action::Launch {
            name,
            seat,
            lan,
            options,
        } => table.launch(&name, seat, lan, &options),
    }
}

fn statuses(table: &Table) -> Result<Vec<Status>> {
    Ok(table
        .names()?
        .iter()
        .filter_map(|name| table.status(name).ok())
        .collect())
}

fn print_table(statuses: &[Status]) {
    for status in statuses {
        let Status {
            name,
            host,
            port,
            user,
            lan_address,
            boots,
            watchdog_resets,
            ..
        } = status;
        let power = if status.on { "on" } else { "off" };
        println!(
            "{name:<12} {power:<4} {user}@{host}:{port}  LAN {lan_address}  boots {boots}, by watchdog {watchdog_resets}"
        );
    }
}

fn ssh(status: &Status, command: &[String]) -> Result<()> {
    ensure!(
        status.on,
        "{} is off; `cargo lab power-on {}` plugs it in",
        status.name,
        status.name
    );
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-q", "-p", &status.port.to_string(), "-i"])
        .arg(&status.identity);
    ssh.arg("-o").arg(format!(
        "UserKnownHostsFile=\"{}\"",
        status.known_hosts.display()
    ));
    ssh.args([
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "IdentitiesOnly=yes",
    ]);
    ssh.arg(format!("{}@{}", status.user, status.host))
        .args(command);
    Err(ssh.exec().into())
}
