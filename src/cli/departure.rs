//! `selfheal node remove` and `selfheal node reset`: a node leaves its cluster, or only forgets it.

use clap::Args;
use serde_json::json;

use super::apply;
use super::begin::{begin, confirmed};
use super::exit::Exit;
use super::fleet::{ask, block_on, failures, failures_json, on_node, watched};
use super::load::{Loaded, load};
use super::options::{Consent, Options, Output};
use super::output::{Failure, print, print_json};
use crate::apply::{Goal, forget};
use crate::inventory::Node;
use crate::layer;
use crate::plan::{Snapshots, json};

/// Which node is removed from the cluster.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The node's name.
    node: String,
    /// The node is gone for good and cannot be logged in to: only its object goes.
    #[arg(long, help_heading = "Writing")]
    gone: bool,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

/// Which node forgets its cluster.
#[derive(Debug, Args)]
pub(super) struct Reset {
    /// The node's name.
    node: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub(super) fn remove(asked: &Remove, options: &Options) -> Result<Exit, Failure> {
    if asked.gone {
        let loaded = load(options)?;
        return block_on(gone(asked, &loaded, options));
    }
    let Remove { node, output, .. } = asked;
    apply::leave(Goal::Remove, node, asked.consent, *output, options)
}

pub(super) fn reset(asked: &Reset, options: &Options) -> Result<Exit, Failure> {
    let Reset { node, output, .. } = asked;
    apply::leave(Goal::Reset, node, asked.consent, *output, options)
}

/// Whether the cluster still has an object of a node that is to be removed, as `server` shows it.
pub(super) fn is_member(
    node: &Node,
    server: Option<&Node>,
    snapshots: &Snapshots,
) -> Result<bool, Failure> {
    let asked = server.unwrap_or(node);
    let snapshot = snapshots.get(&asked.name);
    let Some(objects) = snapshot.and_then(|snapshot| snapshot.cluster.as_ref()) else {
        // The only server, and k3s has gone from it already.
        if server.is_none() && snapshot.is_some_and(|it| it.k3s_version.is_none()) {
            return Ok(false);
        }
        let text = format!("{}, which has to be asked, shows no cluster", asked.name);
        return Err(Failure::new(Exit::Failed, text).hint(format!(
            "`selfheal doctor --on {}` says why; without asking: selfheal node reset {}",
            asked.name, node.name
        )));
    };
    if server.is_none() {
        let others = objects.iter().filter(|it| node.name.as_str() != it.name);
        return match others.count() {
            0 => Ok(false),
            count => Err(only_server(node, count)),
        };
    }
    Ok(objects
        .iter()
        .any(|object| node.name.as_str() == object.name))
}

fn only_server(node: &Node, others: usize) -> Failure {
    let text = format!(
        "{} is the cluster's only server: without it the {others} other nodes have no cluster",
        node.name
    );
    Failure::new(Exit::Failed, text).hint(format!(
        "remove the others first; or end the cluster as it is: selfheal node reset {}",
        node.name
    ))
}

/// Only the object goes, through a server.
async fn gone(asked: &Remove, loaded: &Loaded, options: &Options) -> Result<Exit, Failure> {
    let (log, _claim) = begin("remove")?;
    let node = loaded.node(&asked.node)?;
    let Some(server) = layer::k3s::another_server(&loaded.inventory, node) else {
        let text = format!("there is no other server to ask about {}", node.name);
        return Err(Failure::new(Exit::Failed, text));
    };
    let results = on_node(
        loaded,
        server,
        options,
        &mut Some(log),
        async |reached, log| {
            let shown = (server.name.clone(), reached.snapshot.clone());
            let member = is_member(node, Some(server), &Snapshots::from([shown]))?;
            if member && !asked.consent.yes {
                print(&format!("The object of {} goes.\n", node.name));
                ask(|| confirmed("Remove this node?")).await??;
            }
            let forgotten = watched(options, log, async |_| {
                forget(&reached.session, node.name.as_str()).await
            });
            Ok(forgotten.await.map(|()| member))
        },
    )
    .await?;
    let exit = failures(&results);
    let removed = results.values().flatten().any(|member| *member);
    if asked.output.json {
        print_json(&json!({
            "version": json::VERSION,
            "node": node.name.as_str(),
            "removed": removed,
            "failed": failures_json(&results),
        }));
    } else if exit == Exit::Done {
        print(&match removed {
            true => farewell(node),
            false => format!("{} is no node of the cluster.\n", node.name),
        });
    }
    Ok(exit)
}

/// What to do about a node that does not answer.
pub(super) fn if_gone(node: &Node) {
    let name = &node.name;
    eprintln!("hint: if {name} is gone for good: selfheal node remove {name} --gone");
}

/// What is left for the user to do.
pub(super) fn farewell(node: &Node) -> String {
    format!(
        "{0} is out of the cluster. Take it out of the inventory, or set `install = false` in its `[nodes.{0}.k3s]`: else \
         the next apply lets it join again.\n",
        node.name
    )
}
