//! `selfheal bootstrap`, `selfheal apply` and `selfheal node restore`: observe, plan, ask, carry out, look again.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use clap::Args;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::begin::{begin, confirmed};
use super::exit::Exit;
use super::fleet::{ask, block_on, failures, failures_json, layers, observe, watched};
use super::load::{Loaded, load};
use super::options::{Consent, Layers, Nodes, Options, Output, Writing};
use super::output::{Failure, print, print_json};
use super::plan::show;
use super::settle::settle;
use super::{cluster, departure};
use crate::apply::{Claim, Goal, Reboots, Run};
use crate::fleet::{NodeError, Outcomes, Reached};
use crate::inventory::{Node, NodeName, Role};
use crate::layer;
use crate::node::ledger::LayerName;
use crate::plan::{self, NodePlan, Snapshots, json};
use crate::report::log::Log;
use crate::report::{Event, Events};

/// Which nodes are converged, and how.
#[derive(Debug, Args)]
pub(super) struct Converge {
    #[command(flatten)]
    nodes: Nodes,
    #[command(flatten)]
    layers: Layers,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    output: Output,
}

/// What a command is to do, read from its options and the inventory.
struct Work<'a> {
    /// The command's name, for its log.
    name: &'static str,
    goal: Goal,
    loaded: Loaded,
    nodes: Vec<Node>,
    layers: BTreeSet<LayerName>,
    parallel: NonZeroUsize,
    writing: Writing,
    output: Output,
    options: &'a Options,
}

pub(super) fn bootstrap(converge: &Converge, options: &Options) -> Result<Exit, Failure> {
    run(converging("bootstrap", converge, options)?)
}

pub(super) fn apply(converge: &Converge, options: &Options) -> Result<Exit, Failure> {
    run(converging("apply", converge, options)?)
}

fn converging<'a>(
    name: &'static str,
    converge: &Converge,
    options: &'a Options,
) -> Result<Work<'a>, Failure> {
    let loaded = load(options)?;
    Ok(Work {
        name,
        goal: Goal::Converge,
        layers: layers(&converge.layers)?,
        nodes: loaded.select(&converge.nodes)?,
        loaded,
        parallel: converge.nodes.parallel.at_once,
        writing: converge.writing,
        output: converge.output,
        options,
    })
}

pub(super) fn restore(
    node: &str,
    writing: Writing,
    output: Output,
    options: &Options,
) -> Result<Exit, Failure> {
    let layers = LayerName::ALL.into();
    run(on_one(
        "restore",
        Goal::Restore,
        node,
        layers,
        writing,
        output,
        options,
    )?)
}

/// A node leaves its cluster ([`Goal::Remove`]), or forgets it ([`Goal::Reset`]).
pub(super) fn leave(
    goal: Goal,
    node: &str,
    consent: Consent,
    output: Output,
    options: &Options,
) -> Result<Exit, Failure> {
    let name = match goal {
        Goal::Reset => "reset",
        _ => "remove",
    };
    let writing = Writing {
        consent,
        no_reboot: false,
    };
    let layers = BTreeSet::from([LayerName::K3s]);
    run(on_one(name, goal, node, layers, writing, output, options)?)
}

fn on_one<'a>(
    name: &'static str,
    goal: Goal,
    node: &str,
    layers: BTreeSet<LayerName>,
    writing: Writing,
    output: Output,
    options: &'a Options,
) -> Result<Work<'a>, Failure> {
    let loaded = load(options)?;
    Ok(Work {
        name,
        goal,
        nodes: vec![loaded.node(node)?.clone()],
        loaded,
        layers,
        parallel: NonZeroUsize::MIN,
        writing,
        output,
        options,
    })
}

fn run(asked: Work) -> Result<Exit, Failure> {
    let (log, claim) = begin(asked.name)?;
    let path = log.path().to_owned();
    let exit = block_on(work(asked, claim, log));
    if !matches!(exit, Ok(Exit::Done)) {
        eprintln!("log: {path}");
    }
    exit
}

async fn work(asked: Work<'_>, claim: Claim, log: Log) -> Result<Exit, Failure> {
    let Work {
        name: _,
        goal,
        loaded,
        nodes,
        layers,
        parallel,
        writing,
        output,
        options,
    } = asked;
    let mut log = Some(log);
    // The server that others join is looked at in any case, and changed only if it was chosen.
    let consulted = match (goal, nodes.first()) {
        (Goal::Converge, _) => layer::k3s::consulted(&loaded.inventory, &nodes),
        (Goal::Remove, Some(node)) => layer::k3s::another_server(&loaded.inventory, node),
        _ => None,
    };
    let looked_at: Vec<Node> = nodes.iter().chain(consulted).cloned().collect();
    let mut outcomes = observe(&loaded, &looked_at, &layers, parallel, options, &mut log).await?;
    if settle(&mut outcomes, &claim, options, &mut log).await {
        // The nodes are not what they were; their plan starts from what is there now.
        close(outcomes).await;
        outcomes = observe(&loaded, &looked_at, &layers, parallel, options, &mut log).await?;
    }
    let snapshots: Snapshots = outcomes
        .iter()
        .filter_map(|(name, reached)| Some((name.clone(), reached.as_ref().ok()?.snapshot.clone())))
        .collect();
    let plans: BTreeMap<NodeName, NodePlan> = nodes
        .iter()
        .filter_map(|node| {
            let snapshot = snapshots.get(&node.name)?;
            let plan = match goal {
                Goal::Converge => plan::plan(&loaded.inventory, node, &snapshots, &layers),
                Goal::Restore => plan::restore(node, snapshot),
                Goal::Remove | Goal::Reset => plan::leave_cluster(node, snapshot),
            };
            Some((node.name.clone(), plan))
        })
        .collect();
    let listed: Vec<NodePlan> = nodes
        .iter()
        .filter_map(|node| plans.get(&node.name).cloned())
        .collect();
    if !output.json {
        show(&loaded, &listed, options);
    }
    let member = match nodes.first().filter(|_| goal == Goal::Remove) {
        Some(node) if plans.contains_key(&node.name) => {
            departure::is_member(node, consulted, &snapshots)?
        }
        _ => false,
    };
    if member && !output.json {
        print("Before that its pods go to the other nodes, and its object leaves the cluster.\n");
    }
    let nothing = plans.values().all(NodePlan::is_empty) && !member;
    if !nothing && !writing.consent.yes {
        ask(|| confirmed("Apply these changes?")).await??;
    }

    let supplies = cluster::fetch(&loaded.inventory, &snapshots, &plans, options, &mut log).await?;
    let server = match goal {
        Goal::Remove => consulted,
        _ => layer::k3s::seed(&loaded.inventory, &snapshots),
    };
    let cluster = cluster::agreed(&loaded.inventory, server, &outcomes, &plans, supplies);
    if let Some(consulted) = consulted {
        close(outcomes.remove_entry(&consulted.name).into_iter().collect()).await;
    }

    let workers = |plan: &&NodePlan| {
        let role = loaded
            .inventory
            .node(plan.node.as_str())
            .map(|node| node.role);
        role == Some(Role::Worker) && plan.reboot().is_some() && !writing.no_reboot
    };
    let reboots = Reboots::new(
        plans
            .values()
            .filter(workers)
            .map(|plan| plan.node.clone())
            .collect(),
    );
    let (stop, stopped) = watch::channel(false);
    let interrupts = tokio::spawn(interrupts(stop));
    let results = watched(options, &mut log, async |events: Events| {
        let run = Arc::new(Run {
            inventory: loaded.inventory.clone(),
            goal,
            layers,
            snapshots: Mutex::new(snapshots),
            may_reboot: !writing.no_reboot,
            claim,
            reboots,
            cluster,
            events,
            stop: stopped,
        });
        converge(&run, outcomes, &plans).await
    })
    .await;
    interrupts.abort();

    if output.json {
        let converged = results
            .iter()
            .filter_map(|(node, result)| Some((node, result.as_ref().ok()?)));
        print_json(&json!({
            "version": json::VERSION,
            "cluster": loaded.inventory.cluster.name.as_str(),
            "nodes": listed.iter().map(json::node).collect::<Vec<_>>(),
            "converged": converged
                .map(|(node, changes)| json!({ "node": node.as_str(), "changes": changes }))
                .collect::<Vec<_>>(),
            "failed": failures_json(&results),
        }));
    }
    let exit = failures(&results);
    if goal == Goal::Remove && exit == Exit::Unreachable {
        nodes.iter().for_each(departure::if_gone);
    }
    if exit == Exit::Done && !nothing && !output.json {
        let changes: usize = results.values().flatten().sum();
        let plural = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            _ => format!("{count} {word}s"),
        };
        let on = plural(results.len(), "node");
        let changes = plural(changes, "change");
        print(&format!("Done: {changes} on {on}, verified.\n"));
        if goal == Goal::Remove {
            nodes
                .first()
                .into_iter()
                .map(departure::farewell)
                .for_each(|text| print(&text));
        }
    }
    Ok(exit)
}

async fn close(outcomes: Outcomes<Reached>) {
    for reached in outcomes.into_values().flatten() {
        reached.session.close().await;
    }
}

/// Each node at its own pace.
async fn converge(
    run: &Arc<Run>,
    outcomes: Outcomes<Reached>,
    plans: &BTreeMap<NodeName, NodePlan>,
) -> Outcomes<usize> {
    let mut tasks = JoinSet::new();
    let mut results: Outcomes<usize> = BTreeMap::new();
    for (name, reached) in outcomes {
        match (reached, plans.get(&name)) {
            (Ok(reached), Some(plan)) => {
                let (run, plan) = (run.clone(), plan.clone());
                tasks.spawn(async move {
                    let limit = reached.node.ssh.run_timeout.get();
                    let converged = tokio::time::timeout(limit, run.converge(reached, plan)).await;
                    (
                        name,
                        converged.unwrap_or(Err(NodeError::RunTimeout {
                            seconds: limit.as_secs(),
                        })),
                    )
                });
            }
            (Err(error), _) => drop(results.insert(name, Err(error))),
            (Ok(_), None) => {}
        }
    }
    while let Some(finished) = tasks.join_next().await {
        let Ok((name, result)) = finished else {
            continue;
        };
        run.reboots.done(&name);
        run.cluster.over(&name);
        if let Err(error) = &result {
            run.events.send(Event::Failed {
                node: name.to_string(),
                error: error.chain(),
            });
        }
        results.insert(name, result);
    }
    results
}

/// Ctrl-C once stops after the current step, twice at once.
async fn interrupts(stop: watch::Sender<bool>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        eprintln!("stopping after the current step; press Ctrl-C again to stop at once");
        stop.send_replace(true);
    }
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(i32::from(Exit::Interrupted.code()));
    }
}
