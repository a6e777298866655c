//! The plan as JSON, for programs: versioned, documented in the README.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::NodePlan;
use crate::node::ledger::{Kind, LayerName};
use crate::resource::change::{Change, Effect, Phase, Verb, View};

/// The version of the format. It changes when a field changes its meaning or goes; new fields may come at any time.
pub const VERSION: u32 = 1;

/// One node's plan.
pub fn node(plan: &NodePlan) -> Value {
    json!({
        "node": plan.node.as_str(),
        "changes": plan.changes.iter().map(change).collect::<Vec<_>>(),
        "refusals": plan.refusals,
        "unfinished": plan.unfinished,
        "notes": plan.notes,
        "leftovers": plan.leftovers,
        "reboot": plan.reboot(),
        "trial": plan.trial().is_some(),
    })
}

fn change(change: &Change) -> Value {
    #[derive(Serialize)]
    struct Row<'a> {
        layer: LayerName,
        kind: Kind,
        name: &'a str,
        verb: Verb,
        phase: Phase,
        before: Option<&'a str>,
        after: Option<&'a str>,
        hidden: Option<&'a str>,
        effects: &'a BTreeSet<Effect>,
        reboot: Option<&'a str>,
        trial: bool,
    }
    let (before, after, hidden) = match &change.view {
        View::Text { before, after } => (before.as_deref(), after.as_deref(), None),
        View::Value { before, after } => (Some(before.as_str()), Some(after.as_str()), None),
        View::Hidden(why) => (None, None, Some(*why)),
    };
    json!(Row {
        layer: change.layer,
        kind: change.id.kind,
        name: &change.id.name,
        verb: change.verb,
        phase: change.phase,
        before,
        after,
        hidden,
        effects: &change.effects,
        reboot: change.reboot.as_deref(),
        trial: change.trial.is_some(),
    })
}
