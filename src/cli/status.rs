//! `selfheal status`: the nodes at a glance. Writes nothing, takes no lock.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::exit::Exit;
use super::fleet::{block_on, failures, failures_json, observe};
use super::load::load;
use super::options::{Nodes, Options, Output};
use super::output::{Failure, print, print_json};
use crate::inventory::{Inventory, Node};
use crate::layer;
use crate::node::cluster::NodeObject;
use crate::node::snapshot::Snapshot;
use crate::plan::{Snapshots, json};

/// Which nodes are shown, and how.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    nodes: Nodes,
    #[command(flatten)]
    output: Output,
}

/// A node at a glance.
#[derive(Debug, Serialize)]
struct Glance<'a> {
    node: &'a str,
    role: String,
    /// `None`: it could not be looked at.
    state: Option<State>,
}

#[derive(Debug, Serialize)]
struct State {
    cluster: Membership,
    k3s: Option<String>,
    system: String,
    kernel: String,
    uptime_seconds: u64,
    safe_mode: Option<String>,
    reboot_pending: bool,
}

/// What the cluster says of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Membership {
    Ready,
    /// Ready, and takes no new pods.
    Cordoned,
    NotReady,
    /// The cluster does not know it.
    Absent,
    /// No server could be asked.
    Unknown,
    /// The inventory wants no k3s on it.
    Unwanted,
}

impl Membership {
    fn of(node: &Node, objects: Option<&Vec<NodeObject>>) -> Membership {
        let named = |object: &&NodeObject| object.name == node.name.as_str();
        match (objects, objects.and_then(|all| all.iter().find(named))) {
            _ if !node.k3s.install => Membership::Unwanted,
            (None, _) => Membership::Unknown,
            (Some(_), None) => Membership::Absent,
            (Some(_), Some(object)) if !object.ready => Membership::NotReady,
            (Some(_), Some(object)) if object.cordoned => Membership::Cordoned,
            (Some(_), Some(_)) => Membership::Ready,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Membership::Ready => "ready",
            Membership::Cordoned => "cordoned",
            Membership::NotReady => "not ready",
            Membership::Absent => "not in it",
            Membership::Unknown => "unknown",
            Membership::Unwanted => "-",
        }
    }

    fn is_well(self) -> bool {
        matches!(self, Membership::Ready | Membership::Unwanted)
    }
}

impl State {
    fn of(node: &Node, snapshot: &Snapshot, objects: Option<&Vec<NodeObject>>) -> State {
        let facts = &snapshot.facts;
        State {
            cluster: Membership::of(node, objects),
            k3s: snapshot.k3s_version.clone(),
            system: facts.os.name.clone(),
            kernel: facts.kernel.clone(),
            uptime_seconds: facts.uptime.as_secs(),
            safe_mode: snapshot.safe_mode.clone(),
            reboot_pending: !snapshot.reboot_pending.is_empty(),
        }
    }

    fn is_well(&self) -> bool {
        self.cluster.is_well() && self.safe_mode.is_none()
    }

    fn cells(&self) -> [String; 4] {
        // Minutes matter only to a node that has just come up.
        let unit = if self.uptime_seconds < 3600 { 60 } else { 3600 };
        let up = Duration::from_secs((self.uptime_seconds / unit).max(1) * unit);
        let system = match self.system.split_once(" (") {
            Some((name, _)) => name.replace("GNU/Linux ", ""),
            None => self.system.clone(),
        };
        let mut remarks = vec![humantime::format_duration(up).to_string()];
        remarks.extend(self.safe_mode.as_ref().map(|_| "in safe mode".to_owned()));
        remarks.extend(self.reboot_pending.then(|| "reboot pending".to_owned()));
        [
            self.cluster.as_str().to_owned(),
            self.k3s.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{system}, {}", self.kernel),
            remarks.join(", "),
        ]
    }
}

pub(super) fn run(status: &Status, options: &Options) -> Result<Exit, Failure> {
    let loaded = load(options)?;
    let nodes = loaded.select(&status.nodes)?;
    let parallel = status.nodes.parallel.at_once;
    let inventory = &loaded.inventory;
    block_on(async {
        let consulted = layer::k3s::consulted(inventory, &nodes);
        let looked_at: Vec<Node> = nodes.iter().chain(consulted).cloned().collect();
        let layers = BTreeSet::new();
        let outcomes = observe(&loaded, &looked_at, &layers, parallel, options, &mut None).await?;
        let snapshots: Snapshots = outcomes
            .iter()
            .filter_map(|(name, it)| Some((name.clone(), it.as_ref().ok()?.snapshot.clone())))
            .collect();
        let objects = objects(inventory, &snapshots);
        let glances: Vec<Glance<'_>> = nodes
            .iter()
            .map(|node| Glance {
                node: node.name.as_str(),
                role: node.role.to_string(),
                state: snapshots
                    .get(&node.name)
                    .map(|snapshot| State::of(node, snapshot, objects)),
            })
            .collect();
        if status.output.json {
            print_json(&json!({
                "version": json::VERSION,
                "cluster": inventory.cluster.name.as_str(),
                "nodes": glances,
                "failed": failures_json(&outcomes),
            }));
        } else {
            print(&table(&glances));
        }
        let failed = failures(&outcomes);
        for reached in outcomes.into_values().flatten() {
            reached.session.close().await;
        }
        let well = |it: &Glance<'_>| it.state.as_ref().is_none_or(State::is_well);
        let pending = if glances.iter().all(well) {
            Exit::Done
        } else {
            Exit::Pending
        };
        Ok(Exit::worst([failed, pending]))
    })
}

/// What the first server that answers says of the cluster's nodes.
fn objects<'s>(inventory: &Inventory, snapshots: &'s Snapshots) -> Option<&'s Vec<NodeObject>> {
    let mut servers = inventory.control_planes();
    servers.find_map(|node| snapshots.get(&node.name)?.cluster.as_ref())
}

fn table(glances: &[Glance<'_>]) -> String {
    let head = ["NODE", "ROLE", "CLUSTER", "K3S", "SYSTEM", "UP"].map(str::to_owned);
    let rows = glances.iter().map(|glance| {
        let cells = glance.state.as_ref().map(State::cells);
        let [cluster, k3s, system, up] =
            cells.unwrap_or_else(|| ["no answer", "-", "-", "-"].map(str::to_owned));
        [
            glance.node.to_owned(),
            glance.role.clone(),
            cluster,
            k3s,
            system,
            up,
        ]
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let line = |row: &[String; 6]| {
        let cells = row.iter().enumerate();
        let cells = cells.map(|(column, cell)| format!("{cell:<width$}", width = width(column)));
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(line).collect()
}
