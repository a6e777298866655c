//! `selfheal plan`: what would change. Writes nothing, takes no lock.

use clap::Args;
use serde_json::json;

use super::exit::Exit;
use super::fleet::{about, block_on, failures, failures_json, layers, observe};
use super::load::load;
use super::options::{Layers, Nodes, Options, Output};
use super::output::{Failure, print, print_json};
use crate::layer;
use crate::plan::text::{Shown, summary};
use crate::plan::{self, NodePlan, Snapshots, json};

/// What is looked at, and how it is printed.
#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(flatten)]
    nodes: Nodes,
    #[command(flatten)]
    layers: Layers,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(plan: &Plan, options: &Options) -> Result<Exit, Failure> {
    let loaded = load(options)?;
    let layers = layers(&plan.layers)?;
    let nodes = loaded.select(&plan.nodes)?;
    let parallel = plan.nodes.parallel.at_once;
    block_on(async {
        let consulted = layer::k3s::consulted(&loaded.inventory, &nodes);
        let looked_at: Vec<_> = nodes.iter().chain(consulted).cloned().collect();
        let outcomes = observe(&loaded, &looked_at, &layers, parallel, options, &mut None).await?;
        let snapshots: Snapshots = outcomes
            .iter()
            .filter_map(|(name, reached)| {
                Some((name.clone(), reached.as_ref().ok()?.snapshot.clone()))
            })
            .collect();
        let plans: Vec<NodePlan> = nodes
            .iter()
            .filter(|node| snapshots.contains_key(&node.name))
            .map(|node| plan::plan(&loaded.inventory, node, &snapshots, &layers))
            .collect();
        if plan.output.json {
            print_json(&json!({
                "version": json::VERSION,
                "cluster": loaded.inventory.cluster.name.as_str(),
                "nodes": plans.iter().map(json::node).collect::<Vec<_>>(),
                "failed": failures_json(&outcomes),
            }));
        } else {
            show(&loaded, &plans, options);
        }
        let failed = failures(&outcomes);
        for (_, reached) in outcomes {
            if let Ok(reached) = reached {
                reached.session.close().await;
            }
        }
        let planned = plans.iter().map(outcome);
        Ok(Exit::worst(planned.chain([failed])))
    })
}

/// Prints plans for people.
pub(super) fn show(loaded: &super::load::Loaded, plans: &[NodePlan], options: &Options) {
    for plan in plans {
        let shown = Shown {
            plan,
            about: about(loaded, &plan.node),
            style: options.style(),
            all: options.verbose,
        };
        print(&format!("{shown}\n"));
    }
    if !plans.is_empty() {
        print(&format!("{}\n", summary(plans)));
    }
}

/// What a plan makes of the exit code: a refusal is a failure, since apply would fail on it.
fn outcome(plan: &NodePlan) -> Exit {
    match plan {
        plan if !plan.refusals.is_empty() => Exit::Failed,
        plan if plan.is_empty() => Exit::Done,
        _ => Exit::Pending,
    }
}
