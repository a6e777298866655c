//! `selfheal heal`: ghost sandboxes of a node go, now.

use clap::Args;
use serde_json::json;

use super::begin::{begin, confirmed};
use super::exit::Exit;
use super::fleet::{ask, block_on, failures, failures_json, interruptible, on_node, watched};
use super::load::{Loaded, load};
use super::options::{Consent, Options, Output};
use super::output::{Failure, print, print_json};
use crate::apply::Claim;
use crate::apply::heal::{self, Sight};
use crate::fleet::{NodeError, Reached};
use crate::plan::json;
use crate::report::Event;
use crate::report::log::Log;

/// Which node is healed.
#[derive(Debug, Args)]
pub(super) struct Heal {
    /// The node's name.
    node: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(asked: &Heal, options: &Options) -> Result<Exit, Failure> {
    let loaded = load(options)?;
    let (log, claim) = begin("heal")?;
    block_on(heal(asked, &loaded, &claim, options, log))
}

async fn heal(
    asked: &Heal,
    loaded: &Loaded,
    claim: &Claim,
    options: &Options,
    log: Log,
) -> Result<Exit, Failure> {
    let node = loaded.node(&asked.node)?;
    let name = &node.name;
    let results = on_node(
        loaded,
        node,
        options,
        &mut Some(log),
        async |reached, log| heal_one(asked, reached, claim, options, log).await,
    )
    .await?;
    let failed = failures(&results);
    let sights = results.values().flatten().next();
    let clean = sights.is_some_and(|(_, after)| after.is_clean());
    if asked.output.json {
        print_json(&json!({
            "version": json::VERSION,
            "node": name.as_str(),
            "before": sights.map(|(before, _)| before),
            "after": sights.map(|(_, after)| after),
            "clean": clean,
            "failed": failures_json(&results),
        }));
    } else if let Some((before, after)) = sights {
        print(&match (before.is_clean(), clean) {
            (true, true) => format!(
                "{name} has no ghosts among {} sandboxes.\n",
                before.sandboxes
            ),
            (false, true) => format!("{name} has no ghosts any more.\n"),
            (_, false) => format!(
                "After:\n{}{name} still has ghosts. `sudo journalctl -u k3s -u k3s-agent` on the node says why; a reboot \
                 clears what the network plugin holds.\n",
                shown(after)
            ),
        });
    }
    Ok(match sights {
        Some(_) if !clean => Exit::worst([failed, Exit::Failed]),
        _ => failed,
    })
}

/// What was there before, and what is left. What goes wrong on the node is the inner error.
async fn heal_one(
    asked: &Heal,
    reached: &Reached,
    claim: &Claim,
    options: &Options,
    log: &mut Option<Log>,
) -> Result<Result<(Sight, Sight), NodeError>, Failure> {
    let before = match interruptible(heal::look(&reached.session)).await? {
        Ok(before) => before,
        Err(error) => return Ok(Err(error)),
    };
    if before.is_clean() {
        return Ok(Ok((before.clone(), before)));
    }
    let name = &reached.node.name;
    if !asked.output.json {
        print(&format!("Before:\n{}", shown(&before)));
        print(&format!(
            "These sandboxes are removed on {name}; what is ready is not touched. k3s is restarted only if it holds a name \
             for a sandbox that is gone, and pods live on.\n"
        ));
    }
    if !asked.consent.yes {
        ask(|| confirmed("Heal this node?")).await??;
    }
    let holder = claim.on(&reached.snapshot);
    let after = watched(options, log, async |events| {
        let on_line = |line: &str| {
            events.send(Event::Note {
                node: name.to_string(),
                text: line.to_owned(),
            });
        };
        heal::heal(&reached.session, &holder, &on_line).await
    });
    Ok(after.await.map(|after| (before, after)))
}

fn shown(sight: &Sight) -> String {
    let ghosts = sight.ghosts.iter().map(|ghost| {
        let id = ghost.id.get(..12).unwrap_or(&ghost.id);
        format!("  {id}  {} ({})\n", ghost.pod, ghost.reason)
    });
    let stuck = sight.stuck.iter().map(|id| {
        let id = id.get(..12).unwrap_or(id);
        format!("  {id}  a name kept in containerd's memory\n")
    });
    let lines: String = ghosts.chain(stuck).collect();
    format!(
        "{} sandboxes, {} ready, {} ghosts\n{lines}",
        sight.sandboxes,
        sight.ready,
        sight.ghosts.len()
    )
}
