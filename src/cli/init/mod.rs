//! `selfheal init`: looks at some hosts and writes a commented inventory for them. Writes nothing to the hosts.

mod host;
mod show;

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use serde_json::json;

use super::exit::Exit;
use super::fleet::{ask, block_on, interruptible, prompt, watched};
use super::load::PLACES;
use super::options::{Options, Output, Parallel};
use super::output::{Failure, node_failure_with, print, print_json};
use crate::fleet::{self, Met, Outcomes, detect};
use crate::inventory::write::{FoundHost, Proposal};
use crate::inventory::{
    self, ClusterName, Inventory, LocalPath, Node, NodeName, Port, Report, UserName,
};
use crate::ssh::{Fingerprint, Prompt, Terminal, Vouched};
use host::{Host, names};

/// Which hosts, how they are reached, and what is written.
#[derive(Debug, Args)]
pub(super) struct Init {
    /// Hosts to look at; asked for at the terminal when there are none.
    #[arg(value_name = "[NAME=][USER@]HOST[:PORT]")]
    hosts: Vec<Host>,
    #[command(flatten)]
    reaching: Reaching,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    output: Output,
}

/// How the hosts are reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reaching the hosts")]
struct Reaching {
    /// Who to log in as.
    #[arg(long, value_name = "NAME", default_value = "pi", value_parser = word::<UserName>)]
    user: UserName,
    /// The port of sshd, of hosts without one of their own.
    #[arg(long, value_name = "N", default_value = "22", value_parser = word::<Port>)]
    port: Port,
    /// A private key to offer; may be given several times. None: those of ~/.ssh/config, or else the usual ones.
    #[arg(long, value_name = "FILE", value_parser = word::<LocalPath>)]
    identity: Vec<LocalPath>,
    /// Host keys to accept without asking, and no others: their fingerprints. May be given several times.
    #[arg(long, value_name = "SHA256:…")]
    fingerprint: Vec<Fingerprint>,
    #[command(flatten)]
    parallel: Parallel,
}

/// What is written.
#[derive(Debug, Args)]
#[command(next_help_heading = "The inventory that is written")]
struct Writing {
    /// The file to write; one that is there is never overwritten [default: inventory/homelab.toml].
    #[arg(short, long, value_name = "FILE")]
    inventory: Option<Utf8PathBuf>,
    /// The cluster's name.
    #[arg(long, value_name = "NAME", default_value = "homelab", value_parser = word::<ClusterName>)]
    cluster: ClusterName,
    /// The node's name, if it is only one.
    #[arg(long, value_name = "NODE", value_parser = word::<NodeName>)]
    name: Option<NodeName>,
}

/// A word of the command line, read as the inventory would.
fn word<T: std::str::FromStr<Err = inventory::Wrong>>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|wrong: inventory::Wrong| match wrong.help {
            Some(help) => format!("{} ({help})", wrong.message),
            None => wrong.message,
        })
}

pub(super) fn run(init: &Init, options: &Options) -> Result<Exit, Failure> {
    let inventory = init.writing.inventory.clone();
    let file = inventory.unwrap_or_else(|| PLACES[0].into());
    if file.symlink_metadata().is_ok() {
        return Err(exists(&file));
    }
    block_on(work(init, &file, options))
}

fn exists(file: &Utf8Path) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("{file} is there already, and init overwrites nothing"),
    )
    .hint(
        "name another one with --inventory FILE; `selfheal check` says whether this one makes sense",
    )
}

async fn work(init: &Init, file: &Utf8Path, options: &Options) -> Result<Exit, Failure> {
    let hosts = hosts(init).await?;
    let asked = preliminary(init, &hosts, file)?;
    let prompt: Arc<dyn Prompt> = match init.reaching.fingerprint.as_slice() {
        [] => prompt(),
        fingerprints => Arc::new(Vouched::new(fingerprints.to_vec(), prompt())),
    };
    let order: Vec<NodeName> = asked.iter().map(|node| node.name.clone()).collect();
    let mut unlogged = None;
    let meeting = watched(options, &mut unlogged, async |events| {
        fleet::meet(asked, init.reaching.parallel.at_once, prompt, &events).await
    });
    let mut outcomes = interruptible(meeting).await?;
    if let Some(exit) = failed(&outcomes, init.output) {
        return Ok(exit);
    }
    let met: Vec<Met> = order
        .iter()
        .filter_map(|name| outcomes.remove(name)?.ok())
        .collect();

    let proposal = proposal(init, file, found(init, &hosts, &met));
    let text = proposal.render();
    let (inventory, report) = inventory::parse(file, text.as_bytes());
    if inventory.is_none() {
        let message = format!(
            "what was found makes no inventory:\n{}",
            complaints(&report)
        );
        return Err(Failure::new(Exit::Failed, message).hint("nothing was written"));
    }
    eprint!("{}", report.render(options.style().colour));
    write(file, &text)?;
    if init.output.json {
        print_json(&json!({
            "version": 1,
            "written": file.as_str(),
            "hosts": show::hosts(&proposal, &met),
            "failed": [],
        }));
        return Ok(Exit::Done);
    }
    let usual = PLACES.iter().any(|place| file == *place);
    let named = if usual {
        String::new()
    } else {
        format!(" -i {file}")
    };
    print(&show::table(&proposal, &met));
    print(&format!(
        "\nWritten: {file}\nLook through it, then:\n  selfheal check{named}\n  selfheal bootstrap{named}\n"
    ));
    Ok(Exit::Done)
}

/// The hosts of the command line, or those that the user types.
async fn hosts(init: &Init) -> Result<Vec<Host>, Failure> {
    let mut hosts = init.hosts.clone();
    if hosts.is_empty() && Terminal::open().is_some() {
        let typed = ask(|| host::ask(&mut io::stdin().lock(), &mut io::stderr())).await?;
        hosts = typed.map_err(|error| {
            Failure::new(
                Exit::Failed,
                format!("cannot read from the terminal: {error}"),
            )
        })?;
    }
    let usage = |message: &str| Failure::new(Exit::Usage, message);
    match (hosts.as_mut_slice(), &init.writing.name) {
        ([], _) => Err(usage("which hosts?")
            .hint("name them: `selfheal init jarvis=192.168.1.10 ultron=192.168.1.11`")),
        ([only], Some(name)) if only.name.as_ref().is_none_or(|given| given == name) => {
            only.name = Some(name.clone());
            Ok(hosts)
        }
        (_, Some(_)) => Err(usage("--name is for one host that has no other name")
            .hint("name each one: `selfheal init jarvis=192.168.1.10 ultron=192.168.1.11`")),
        (_, None) => Ok(hosts),
    }
}

/// The nodes to connect to, read from an inventory like the one that will be written: what lets init in lets every
/// later command in.
fn preliminary(init: &Init, hosts: &[Host], file: &Utf8Path) -> Result<Vec<Node>, Failure> {
    let hostnames: Vec<String> = hosts
        .iter()
        .map(|host| match host.place.host.ip() {
            Some(_) => String::new(),
            None => host.place.host.to_string(),
        })
        .collect();
    let given = hosts.iter().map(|host| host.name.as_ref());
    let names = names(given.zip(hostnames.iter().map(String::as_str)));
    if let Some(twice) = (1..names.len()).find(|at| names[..*at].contains(&names[*at])) {
        let message = format!("two hosts are to be named {}", names[twice]);
        return Err(Failure::new(Exit::Usage, message).hint("no host was contacted"));
    }
    let unseen = hosts
        .iter()
        .zip(names)
        .map(|(host, name)| unseen(init, host, name));
    let text = proposal(init, file, unseen.collect()).render();
    let (inventory, report) = inventory::parse(file, text.as_bytes());
    inventory
        .map(|inventory: Inventory| inventory.nodes)
        .ok_or_else(|| {
            let message = format!("these hosts make no inventory:\n{}", complaints(&report));
            Failure::new(Exit::Usage, message).hint("no host was contacted")
        })
}

/// What is wrong, without the places in a text that nobody has seen.
fn complaints(report: &Report) -> String {
    let errors = report.diagnostics().iter().filter(|found| found.is_error());
    let lines = errors.map(|error| match &error.help {
        Some(help) => format!("  {} ({help})", error.message),
        None => format!("  {}", error.message),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A host as the user named it.
fn unseen(init: &Init, host: &Host, name: NodeName) -> FoundHost {
    let Host { place, .. } = host;
    FoundHost {
        name,
        host: place.host.clone(),
        port: place.port.unwrap_or(init.reaching.port),
        user: place
            .user
            .clone()
            .filter(|user| *user != init.reaching.user),
        address: None,
        role: None,
        model: None,
        os: None,
        memory_mib: None,
        host_key: None,
    }
}

/// The hosts with all that was seen of them.
fn found(init: &Init, hosts: &[Host], met: &[Met]) -> Vec<FoundHost> {
    let all = || hosts.iter().zip(met);
    let names = names(all().map(|(host, met)| (host.name.as_ref(), met.facts.hostname.as_str())));
    let machines: Vec<_> = all()
        .map(|(host, met)| (host.place.host.clone(), &met.facts))
        .collect();
    let addresses = detect::lan_addresses(&machines);
    let seen = all().zip(names).zip(addresses);
    seen.map(|(((host, met), name), address)| {
        let key = met.host_key.as_ref();
        FoundHost {
            address,
            model: Some(detect::model(&met.facts)),
            os: detect::os(&met.facts),
            memory_mib: Some(met.facts.memory >> 20).filter(|memory| *memory > 0),
            host_key: key.and_then(|key| key.to_string().parse().ok()),
            ..unseen(init, host, name)
        }
    })
    .collect()
}

fn proposal(init: &Init, file: &Utf8Path, hosts: Vec<FoundHost>) -> Proposal {
    const SCHEMA: &str = "homelab.schema.json";
    let beside = file.parent().unwrap_or(Utf8Path::new("")).join(SCHEMA);
    Proposal {
        cluster: init.writing.cluster.clone(),
        schema: beside.exists().then(|| format!("./{SCHEMA}")),
        user: init.reaching.user.clone(),
        identity: init.reaching.identity.iter().map(portable).collect(),
        jump: Vec::new(),
        sudo_password: None,
        login_password: None,
        hosts,
    }
}

/// A path of the command line as the inventory needs it: not relative to the folder that init runs in, and where it is
/// in the home folder, also right for others who share the inventory.
fn portable(path: &LocalPath) -> LocalPath {
    if path.as_str().starts_with('~') {
        return path.clone();
    }
    let whole = std::path::absolute(path.as_str())
        .ok()
        .and_then(|path| Utf8PathBuf::try_from(path).ok());
    let Some(whole) = whole else {
        return path.clone();
    };
    let home = fleet::home().ok();
    let within = home.and_then(|home| Some(format!("~/{}", whole.strip_prefix(home).ok()?)));
    within
        .unwrap_or_else(|| whole.into_string())
        .parse()
        .unwrap_or_else(|_| path.clone())
}

/// Says which hosts were not met. Then nothing is written: an inventory without them would not be the one asked for.
fn failed(outcomes: &Outcomes<Met>, output: Output) -> Option<Exit> {
    let failed = || {
        outcomes
            .iter()
            .filter_map(|(name, outcome)| Some((name, outcome.as_ref().err()?)))
    };
    let exit = failed().map(|(_, error)| Exit::from(error.class())).min()?;
    for (name, error) in failed() {
        node_failure_with(name.as_str(), error, show::hint(error));
    }
    eprintln!("Nothing was written.");
    if output.json {
        let failed = failed().map(|(name, error)| {
            json!({ "node": name.as_str(), "error": error.chain(), "hint": show::hint(error) })
        });
        print_json(&json!({
            "version": 1,
            "written": null,
            "hosts": [],
            "failed": failed.collect::<Vec<_>>(),
        }));
    }
    Some(exit)
}

/// Writes the inventory as a whole, unless somebody was faster.
fn write(file: &Utf8Path, text: &str) -> Result<(), Failure> {
    let write = || {
        let folder = file.parent().filter(|folder| *folder != "");
        let folder = folder.unwrap_or(Utf8Path::new("."));
        std::fs::create_dir_all(folder)?;
        let mode = Permissions::from_mode(0o666); // less the umask
        let mut fresh = tempfile::Builder::new()
            .permissions(mode)
            .tempfile_in(folder)?;
        fresh.write_all(text.as_bytes())?;
        fresh.as_file().sync_all()?;
        fresh.persist_noclobber(file).map_err(|error| error.error)
    };
    match write() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(file)),
        Err(error) => {
            let message = format!("cannot write {file}: {error}");
            Err(Failure::new(Exit::Failed, message))
        }
    }
}
