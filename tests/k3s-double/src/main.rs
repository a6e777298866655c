//! selfheal's **k3s double**: a program that takes k3s's place on a virtual Pi, since k3s itself cannot be had without
//! internet (issue 4, lab.md §5). It has k3s's command line, files and behaviour as far as selfheal touches them, runs
//! Debian's real containerd as its child, and says at every start what it is.
//!
//! `cargo lab release` makes a k3s of it: one file with its tools appended (`bundle`).

mod agent;
mod api;
mod bundle;
mod certificates;
mod client;
mod config;
mod containerd;
mod cri;
mod crictl;
mod durable;
mod kubectl;
mod kubelet;
mod labels;
mod log;
mod node;
mod place;
mod preflight;
mod server;
mod snapshot;
mod token;

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use bundle::Bundle;
use config::{Config, Role};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    // k3s is also kubectl, crictl and ctr, by the name it is called by.
    let program = arguments.first().map_or("k3s", String::as_str);
    let name = Path::new(program).file_name().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    if matches!(name.as_str(), "kubectl" | "crictl" | "ctr") {
        arguments.insert(1, name);
    }
    arguments.remove(0);
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    match run(command, rest) {
        Ok(code) => code,
        Err(error) => {
            match command {
                "server" | "agent" => log::say("fatal", format!("{error:#}")),
                _ => eprintln!("{error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: &str, arguments: &[String]) -> Result<ExitCode> {
    match command {
        "--version" | "-v" => {
            println!("k3s version {} (double)", Bundle::own()?.version);
            println!("selfheal's k3s double, not k3s; on Debian's containerd");
        }
        "server" => serve(Role::Server, arguments)?,
        "agent" => serve(Role::Agent, arguments)?,
        "kubectl" => return block_on(kubectl::run(arguments)),
        "crictl" => return block_on(crictl::run(arguments)),
        "ctr" => {
            Bundle::own()?.unpack()?;
            return Err(containerd::ctr().args(arguments).exec()).context("cannot run ctr");
        }
        "certificate" if arguments.first().is_some_and(|verb| verb == "check") => {
            certificates::check()?;
        }
        "etcd-snapshot" => snapshot::run(arguments)?,
        containerd::BECOME => containerd::become_containerd()?,
        "pack" => {
            let [version, tools, out] = arguments else {
                bail!("usage: k3s-double pack VERSION TOOLS.tar.zst OUT");
            };
            bundle::pack(
                &std::env::current_exe()?,
                version,
                Path::new(tools),
                Path::new(out),
            )?;
        }
        "help" | "--help" | "-h" => println!(
            "selfheal's k3s double, not k3s.\n\
             Commands: server, agent, kubectl, crictl, ctr, certificate check, etcd-snapshot save; --version"
        ),
        _ => bail!("No help topic for '{command}'"),
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(role: Role, arguments: &[String]) -> Result<()> {
    let bundle = Bundle::own()?;
    log::info("this is selfheal's k3s double, not k3s");
    log::info(format!("Starting k3s {} (double)", bundle.version));
    let config = Config::read(role, Path::new(place::CONFIG), arguments)?;
    block_on(async {
        match role {
            Role::Server => server::run(config, bundle).await,
            Role::Agent => agent::run(config, bundle).await,
        }
    })
}

/// One thread for all: containerd dies with the thread that started it, and that is this one.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}
