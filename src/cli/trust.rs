//! `selfheal trust`: a re-flashed node shows a new host key; the user compares and pins it.

use clap::Args;
use serde_json::json;

use super::exit::Exit;
use super::fleet::{ask, block_on, interruptible, prompt};
use super::load::{find, load};
use super::options::{Options, Output};
use super::output::{Failure, node_failure, print, print_json};
use crate::fleet::{self, NodeError};
use crate::inventory::{self, Node, NodeName, PublicKey};
use crate::ssh::{self, Fingerprint, Hop, HostKey, Record, Target, Terminal, Verdict};

/// Which node.
#[derive(Debug, Args)]
pub(super) struct Trust {
    /// The node's name.
    node: String,
    /// The new key's fingerprint, compared beforehand: pins the key without asking, and no other.
    #[arg(long, value_name = "SHA256:…")]
    fingerprint: Option<Fingerprint>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(trust: &Trust, options: &Options) -> Result<Exit, Failure> {
    let loaded = load(options)?;
    let mut node = loaded.node(&trust.node)?.clone();
    // Nobody logs in there, so no secret is fetched.
    node.ssh.login_password = None;
    node.ssh.sudo_password = None;
    block_on(work(&node, trust, options))
}

async fn work(node: &Node, trust: &Trust, options: &Options) -> Result<Exit, Failure> {
    let (target, new) = match interruptible(look(node)).await? {
        Ok(looked) => looked,
        Err(error) => {
            node_failure(node.name.as_str(), &error);
            return Ok(error.class().into());
        }
    };
    let record = Record::of(&target.destination).map_err(|(file, error)| {
        Failure::new(Exit::Failed, format!("cannot read {file}: {error}"))
    })?;
    let verdict = record.judge(&new);
    if !trust.output.json {
        print(&comparison(&target, &record, &new, &verdict));
    }
    if let Verdict::Revoked(place) = &verdict {
        let message = format!(
            "{}: the key it shows is revoked ({place}); nothing was changed",
            node.name
        );
        return Err(Failure::new(Exit::LoginRefused, message)
            .hint("give the node a new host key; a revoked one is never accepted"));
    }
    if let Some(fingerprint) = &trust.fingerprint
        && !fingerprint.is_of(&new)
    {
        let message = format!(
            "{}: the fingerprint of the key it shows is {}, and not the one given; nothing was changed",
            node.name,
            new.fingerprint()
        );
        return Err(Failure::new(Exit::LoginRefused, message).hint(COMPARE));
    }
    let done = if verdict == Verdict::Known {
        None
    } else {
        if trust.fingerprint.is_none() {
            let key = new.clone();
            ask(move || confirm(&key)).await??;
        }
        Some(match &node.host_key {
            Some(_) => {
                let done = pin(options, &node.name, &new)?;
                refresh(&target, &new)?;
                done
            }
            None => remember(&target, &new)?,
        })
    };
    if trust.output.json {
        print_json(&json(&target, &record, &new, done.as_ref()));
    } else {
        let text = done.map_or_else(
            || "It is the same: nothing to do.".to_owned(),
            |done| done.text,
        );
        print(&format!("{text}\n"));
    }
    Ok(Exit::Done)
}

/// How the node is reached, and the key it shows.
async fn look(node: &Node) -> Result<(Target, HostKey), NodeError> {
    let target = fleet::target(node).await?;
    let shown = ssh::scan_host_key(&target, &prompt()).await?;
    Ok((target, shown))
}

fn json(target: &Target, record: &Record, new: &HostKey, done: Option<&Done>) -> serde_json::Value {
    let shown = |key: &HostKey| json!({ "type": key.kind(), "fingerprint": key.fingerprint() });
    let recorded = record.keys().iter();
    let recorded = recorded
        .map(|(key, place)| json!({ "key": shown(key), "place": place.to_string() }))
        .collect::<Vec<_>>();
    json!({
        "version": 1,
        "node": target.node,
        "recorded": recorded,
        "shown": shown(new),
        "written": done.map(|done| &done.file),
    })
}

/// The keys on record and the one the node shows, one above the other.
fn comparison(target: &Target, record: &Record, new: &HostKey, verdict: &Verdict) -> String {
    let hop = &target.destination;
    let mut text = format!("{} ({}, port {})\n", target.node, hop.host, hop.port);
    let mut line = |what: &str, key: &HostKey, place: &str| {
        let (kind, fingerprint) = (key.kind(), key.fingerprint());
        text += format!("  {what:9}  {kind:19}  {fingerprint}  {place}").trim_end();
        text += "\n";
    };
    for (key, place) in record.keys() {
        line("on record", key, &place.to_string());
    }
    line("shown now", new, "");
    match verdict {
        Verdict::Unknown => text += "No key of this node is on record yet.\n",
        Verdict::Changed(_) => {
            text += "The node shows another key. A re-flashed one does; if it was not re-flashed, somebody may be in \
                     between.\n";
        }
        Verdict::Known | Verdict::Revoked(_) => {}
    }
    text
}

/// How to know that a key is the right one.
const COMPARE: &str = "the right one is what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` prints on the node's own \
                       screen (or the like for its other types of keys)";

/// Somebody has to vouch for the new key at the terminal; there is no `--yes` for it.
fn confirm(new: &HostKey) -> Result<(), Failure> {
    let Some(terminal) = Terminal::open() else {
        let message = "nobody is at a terminal to confirm the key; nothing was changed";
        let hint = format!(
            "run it at a terminal, or give the right fingerprint: --fingerprint SHA256:…; {COMPARE}"
        );
        return Err(Failure::new(Exit::Usage, message).hint(hint));
    };
    let question = "Type yes, or paste the right fingerprint, to trust it from now on: ";
    if terminal.vouch(question, new) {
        return Ok(());
    }
    Err(Failure::new(Exit::Interrupted, "not confirmed; nothing was changed").hint(COMPARE))
}

/// What was written.
struct Done {
    file: String,
    text: String,
}

/// Replaces the pin in the inventory.
fn pin(options: &Options, node: &NodeName, new: &HostKey) -> Result<Done, Failure> {
    let file = find(options)?;
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Failed, format!("cannot pin the key in {file}: {why}"))
            .hint("nothing was changed")
    };
    let key: PublicKey = new.to_string().parse().map_err(|why| failed(&why))?;
    let source = std::fs::read_to_string(&file).map_err(|why| failed(&why))?;
    let pinned = inventory::pin(&source, node, &key)
        .ok_or_else(|| failed(&"its pin is not there any more"))?;
    let (valid, report) = inventory::parse(file.clone(), pinned.as_bytes());
    if valid.is_none() {
        return Err(failed(&report));
    }
    crate::replace::replace(&file, pinned.as_bytes()).map_err(|why| failed(&why))?;
    let text = format!("The new key is pinned in {file}, in the place of the old one.");
    Ok(Done {
        file: file.into(),
        text,
    })
}

/// A pinned node may stand in known_hosts, too: a plain `ssh` would refuse it with the old key there.
fn refresh(target: &Target, new: &HostKey) -> Result<(), Failure> {
    let hop = &target.destination;
    let recorded = Hop {
        host_key: None,
        ..hop.clone()
    };
    match Record::of(&recorded) {
        Ok(record) if !record.keys().is_empty() => remember(target, new).map(drop),
        _ => Ok(()),
    }
}

/// Puts the new key into known_hosts, in the place of the old ones.
fn remember(target: &Target, new: &HostKey) -> Result<Done, Failure> {
    let hop = &target.destination;
    let gone = hop.known_hosts.forget(hop);
    let written = gone.and_then(|gone| hop.known_hosts.remember(hop, new).map(|()| gone));
    let gone = written.map_err(|(file, error)| {
        Failure::new(Exit::Failed, format!("cannot write {file}: {error}"))
    })?;
    let file = hop.known_hosts.user.first().map(ToString::to_string);
    let file = file.unwrap_or_default();
    let mut text = match gone {
        0 => format!("The key is on record in {file}."),
        _ => format!("The new key is on record in {file}; the old one is gone."),
    };
    // Patterns and the system's files are not ours to edit, and what they name is still let through.
    let left = Record::of(hop).unwrap_or_default();
    for (_, place) in left.keys().iter().filter(|(key, _)| key != new) {
        text += &format!("\nAn old key is still accepted: remove it at {place}.");
    }
    Ok(Done { file, text })
}
