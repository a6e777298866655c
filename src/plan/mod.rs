//! What would change: snapshot against desired state, as plain data. A plan holds no session, so it cannot write.

pub mod json;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

use crate::inventory::{Inventory, Node, NodeName};
use crate::layer;
use crate::node::boot::Edit;
use crate::node::ledger::{Kind, LayerName, Ledger};
use crate::node::snapshot::Snapshot;
use crate::resource::change::{Change, Effect, Phase, Refusal, TriedLine};
use crate::resource::{self, Resource, Wanted, is_k3s};

/// All nodes as they were at the probe, by name. Nodes that could not be reached are not in it.
pub type Snapshots = BTreeMap<NodeName, Snapshot>;

/// What would change on one node.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// The node.
    pub node: NodeName,
    /// The changes, in the order in which they are made.
    pub changes: Vec<Change>,
    /// What is wanted but must not or cannot be done; with any of these nothing is applied to the node.
    pub refusals: Vec<Refusal>,
    /// What is neither a change nor a refusal, but good to know of the node.
    pub notes: Vec<String>,
    /// Restarts that an interrupted run left undone.
    pub unfinished: BTreeSet<Effect>,
    /// On a node that selfheal leaves: what goes of its own state, by name in /var/lib/selfheal.
    pub leftovers: BTreeSet<String>,
    /// What selfheal owns on the node before the plan is applied.
    pub ledger: Ledger,
}

/// The changes that are made in one exec.
#[derive(Debug, Clone)]
pub struct Step<'a> {
    /// When in the node's run.
    pub phase: Phase,
    /// The changes.
    pub changes: Vec<&'a Change>,
    /// What follows them, once.
    pub effects: BTreeSet<Effect>,
}

impl NodePlan {
    /// Whether there is nothing to do and nothing refused.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.refusals.is_empty()
            && self.unfinished.is_empty()
            && self.leftovers.is_empty()
    }

    /// Why the node has to reboot, if it has to.
    pub fn reboot(&self) -> Option<String> {
        let reasons: Vec<&str> = self
            .changes
            .iter()
            .filter_map(|change| change.reboot.as_deref())
            .collect();
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// The command line that the reboot tries out, if the node's system can do that.
    pub fn trial(&self) -> Option<&TriedLine> {
        self.changes.iter().find_map(|change| change.trial.as_ref())
    }

    /// The node's run, step by step. Restarts left undone are made good in the first one.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let mut steps: Vec<Step<'_>> = Phase::ALL
            .into_iter()
            .map(|phase| {
                let of_phase = |change: &&Change| change.phase == phase && change.has_work();
                let changes: Vec<&Change> = self.changes.iter().filter(of_phase).collect();
                let effects = changes
                    .iter()
                    .flat_map(|change| change.effects.iter().cloned())
                    .collect();
                Step {
                    phase,
                    changes,
                    effects,
                }
            })
            .collect();
        let of_k3s = |effect: &&Effect| matches!(effect, Effect::Restart(unit) if is_k3s(unit));
        for step in &mut steps {
            let unfinished = self.unfinished.iter();
            match step.phase {
                Phase::Settings => step
                    .effects
                    .extend(unfinished.filter(|it| !of_k3s(it)).cloned()),
                Phase::Cluster => step.effects.extend(unfinished.filter(of_k3s).cloned()),
                _ => {}
            }
        }
        steps.retain(|step| !step.changes.is_empty() || !step.effects.is_empty());
        steps
    }
}

/// What would change on `node`, in the layers given.
pub fn plan(
    inventory: &Inventory,
    node: &Node,
    snapshots: &Snapshots,
    layers: &BTreeSet<LayerName>,
) -> NodePlan {
    let Some(snapshot) = snapshots.get(&node.name) else {
        return compare(
            node,
            Vec::new(),
            Vec::new(),
            &Snapshot::default(),
            &BTreeSet::new(),
        );
    };
    let mut resources = Vec::new();
    let mut refusals = Vec::new();
    for layer in layers {
        match layer::desired(*layer, inventory, node, snapshots) {
            Ok(wanted) => resources.extend(wanted),
            Err(refusal) => refusals.push(refusal),
        }
    }
    let plan = compare(node, resources, refusals, snapshot, layers);
    let notes = layers
        .iter()
        .flat_map(|layer| layer::notes(*layer, node, snapshot));
    NodePlan {
        notes: notes.collect(),
        ..plan
    }
}

/// What would change on a node that selfheal leaves: nothing is wanted any more, so everything owned goes back.
pub fn restore(node: &Node, snapshot: &Snapshot) -> NodePlan {
    let mut plan = without(node, snapshot, &LayerName::ALL.into());
    plan.leftovers.clone_from(&snapshot.state);
    plan.leftovers.remove(SET_ASIDE);
    plan
}

/// What would change on a node that leaves its cluster: k3s goes, and what brings it back after a power cut.
pub fn leave_cluster(node: &Node, snapshot: &Snapshot) -> NodePlan {
    without(node, snapshot, &BTreeSet::from([LayerName::K3s]))
}

/// Nothing of these layers is wanted.
fn without(node: &Node, snapshot: &Snapshot, layers: &BTreeSet<LayerName>) -> NodePlan {
    let mut plan = compare(node, Vec::new(), Vec::new(), snapshot, layers);
    if plan.changes.iter().any(|it| it.layer == LayerName::K3s) {
        plan.changes.push(resource::k3s::leave_cluster());
    }
    plan
}

/// What was set aside of the user's files stays on a node that selfheal leaves.
const SET_ASIDE: &str = "aside";

fn compare(
    node: &Node,
    resources: Vec<Resource>,
    mut refusals: Vec<Refusal>,
    snapshot: &Snapshot,
    layers: &BTreeSet<LayerName>,
) -> NodePlan {
    // Two layers may want the same, such as a folder.
    let mut once: Vec<Resource> = Vec::new();
    for resource in resources {
        if !once.iter().any(|other| other.wanted == resource.wanted) {
            once.push(resource);
        }
    }
    let mut resources = once;
    let wanted: BTreeSet<_> = resources.iter().map(Resource::id).collect();
    let orphans: Vec<_> = snapshot
        .ledger
        .iter()
        .filter(|(id, entry)| layers.contains(&entry.layer) && !wanted.contains(id))
        .filter(|(_, entry)| !refusals.iter().any(|refusal| refusal.layer == entry.layer))
        .collect();
    // What stands in a boot file leaves it in one write, so its undoing is a comparison with what is still wanted.
    for (nothing, kinds) in [
        (
            Wanted::BootTokens {
                edit: Edit::default(),
                try_first: node.boot.trial,
            },
            &[Kind::BootToken, Kind::BootTokenRemoved][..],
        ),
        (Wanted::BootConfig(Vec::new()), &[Kind::BootConfig]),
    ] {
        let same = |resource: &Resource| discriminant(&resource.wanted) == discriminant(&nothing);
        if orphans.iter().any(|(id, _)| kinds.contains(&id.kind)) && !resources.iter().any(same) {
            resources.push(Resource::new(LayerName::Boot, nothing));
        }
    }
    let mut changes = Vec::new();
    for resource in &resources {
        match resource::compare(resource, snapshot) {
            Ok(change) => changes.extend(change),
            Err(refusal) => refusals.push(refusal),
        }
    }
    for (id, entry) in orphans.into_iter().filter(|(id, _)| !id.kind.is_boot()) {
        match resource::undo(id, entry, snapshot) {
            Ok(change) => changes.push(change),
            Err(refusal) => refusals.push(refusal),
        }
    }
    changes.sort_by_key(|change| change.phase);
    let unfinished = snapshot
        .pending_restarts
        .iter()
        .filter_map(|line| Effect::parse(line))
        .collect();
    NodePlan {
        node: node.name.clone(),
        changes,
        refusals,
        notes: Vec::new(),
        unfinished,
        leftovers: BTreeSet::new(),
        ledger: snapshot.ledger.clone(),
    }
}
