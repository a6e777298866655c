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
use crate::report::{Event, Events, plural};

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
    let mut log = Some(log);
    let inventory = asked.loaded.inventory.clone();
    let consulted = asked.consulted();
    let mut outcomes = asked.look(consulted, &claim, &mut log).await?;
    let snapshots: Snapshots = outcomes
        .iter()
        .filter_map(|(name, reached)| Some((name.clone(), reached.as_ref().ok()?.snapshot.clone())))
        .collect();
    let plans = asked.plans(&snapshots);
    if !asked.output.json {
        show(&asked.loaded, &asked.listed(&plans), asked.options);
    }
    let member = asked.is_member(consulted, &plans, &snapshots)?;
    let nothing = plans.values().all(NodePlan::is_empty) && !member;
    if !nothing && !asked.writing.consent.yes {
        ask(|| confirmed("Apply these changes?")).await??;
    }

    let supplies = cluster::fetch(&inventory, &snapshots, &plans, asked.options, &mut log).await?;
    let server = match asked.goal {
        Goal::Remove => consulted,
        _ => layer::k3s::seed(&inventory, &snapshots),
    };
    let cluster = cluster::agreed(&inventory, server, &outcomes, &plans, supplies);
    if let Some(consulted) = consulted {
        close(outcomes.remove_entry(&consulted.name).into_iter().collect()).await;
    }

    let reboots = asked.rebooting_workers(&plans);
    let (stop, stopped) = watch::channel(false);
    let interrupts = tokio::spawn(interrupts(stop));
    let results = watched(asked.options, &mut log, async |events: Events| {
        let run = Arc::new(Run {
            inventory,
            goal: asked.goal,
            layers: asked.layers.clone(),
            snapshots: Mutex::new(snapshots),
            may_reboot: !asked.writing.no_reboot,
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
    Ok(asked.told(&plans, &results, nothing))
}

impl Work<'_> {
    /// The server that others join, or that is asked to let go of a node. It is looked at, and changed only if chosen.
    fn consulted(&self) -> Option<&Node> {
        match (self.goal, self.nodes.first()) {
            (Goal::Converge, _) => layer::k3s::consulted(&self.loaded.inventory, &self.nodes),
            (Goal::Remove, Some(node)) => layer::k3s::another_server(&self.loaded.inventory, node),
            _ => None,
        }
    }

    /// The nodes as they are, once nothing of an interrupted run is under way on them.
    async fn look(
        &self,
        consulted: Option<&Node>,
        claim: &Claim,
        log: &mut Option<Log>,
    ) -> Result<Outcomes<Reached>, Failure> {
        let nodes: Vec<Node> = self.nodes.iter().chain(consulted).cloned().collect();
        let look = async |log: &mut Option<Log>| {
            let (loaded, layers, options) = (&self.loaded, &self.layers, self.options);
            observe(loaded, &nodes, layers, self.parallel, options, log).await
        };
        let mut outcomes = look(log).await?;
        if settle(&mut outcomes, claim, self.options, log).await {
            // The nodes are not what they were; their plan starts from what is there now.
            close(outcomes).await;
            outcomes = look(log).await?;
        }
        Ok(outcomes)
    }

    fn plans(&self, snapshots: &Snapshots) -> BTreeMap<NodeName, NodePlan> {
        let plan = |node: &Node| {
            let snapshot = snapshots.get(&node.name)?;
            let plan = match self.goal {
                Goal::Converge => plan::plan(&self.loaded.inventory, node, snapshots, &self.layers),
                Goal::Restore => plan::restore(node, snapshot),
                Goal::Remove | Goal::Reset => plan::leave_cluster(node, snapshot),
            };
            Some((node.name.clone(), plan))
        };
        self.nodes.iter().filter_map(plan).collect()
    }

    /// The plans in the inventory's order.
    fn listed(&self, plans: &BTreeMap<NodeName, NodePlan>) -> Vec<NodePlan> {
        let of = |node: &Node| plans.get(&node.name).cloned();
        self.nodes.iter().filter_map(of).collect()
    }

    /// Whether a node that is to be removed is a part of the cluster.
    fn is_member(
        &self,
        consulted: Option<&Node>,
        plans: &BTreeMap<NodeName, NodePlan>,
        snapshots: &Snapshots,
    ) -> Result<bool, Failure> {
        let leaving = self.nodes.first().filter(|_| self.goal == Goal::Remove);
        let Some(node) = leaving.filter(|node| plans.contains_key(&node.name)) else {
            return Ok(false);
        };
        let member = departure::is_member(node, consulted, snapshots)?;
        if member && !self.output.json {
            print(
                "Before that its pods go to the other nodes, and its object leaves the cluster.\n",
            );
        }
        Ok(member)
    }

    fn rebooting_workers(&self, plans: &BTreeMap<NodeName, NodePlan>) -> Reboots {
        let reboots = |node: &&Node| {
            let plan = plans.get(&node.name);
            node.role == Role::Worker && plan.is_some_and(|plan| plan.reboot().is_some())
        };
        let may = self.nodes.iter().filter(|_| !self.writing.no_reboot);
        Reboots::new(may.filter(reboots).map(|node| node.name.clone()).collect())
    }

    /// Says how it ended.
    fn told(
        &self,
        plans: &BTreeMap<NodeName, NodePlan>,
        results: &Outcomes<usize>,
        nothing: bool,
    ) -> Exit {
        if self.output.json {
            let converged = results
                .iter()
                .filter_map(|(node, result)| Some((node, result.as_ref().ok()?)));
            print_json(&json!({
                "version": json::VERSION,
                "cluster": self.loaded.inventory.cluster.name.as_str(),
                "nodes": self.listed(plans).iter().map(json::node).collect::<Vec<_>>(),
                "converged": converged
                    .map(|(node, changes)| json!({ "node": node.as_str(), "changes": changes }))
                    .collect::<Vec<_>>(),
                "failed": failures_json(results),
            }));
        }
        let exit = failures(results);
        if self.goal == Goal::Remove && exit == Exit::Unreachable {
            self.nodes.iter().for_each(departure::if_gone);
        }
        if exit == Exit::Done && !nothing && !self.output.json {
            let changes: usize = results.values().flatten().sum();
            let on = plural(results.len(), "node");
            print(&format!(
                "Done: {} on {on}, verified.\n",
                plural(changes, "change")
            ));
            if self.goal == Goal::Remove {
                let farewells = self.nodes.iter().map(departure::farewell);
                farewells.for_each(|text| print(&text));
            }
        }
        exit
    }
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
