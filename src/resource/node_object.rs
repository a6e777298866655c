//! A node's object in Kubernetes: labels, taints, and whether selfheal left it cordoned. It is changed through a server,
//! not on the node. What of it is selfheal's stands in annotations of the object itself, so that it goes with it.

use std::collections::{BTreeMap, BTreeSet};

use super::change::{Action, Change, Phase, Verb, View};
use crate::node::cluster::{CORDONED, NodeObject, OWNED_LABELS, OWNED_TAINTS};
use crate::node::ledger::{Id, Kind, LayerName};

/// What a node's object shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedObject {
    /// The node's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints, as kubectl writes them.
    pub taints: BTreeSet<String>,
    /// The object as a server shows it.
    pub found: Found,
}

/// What is known of a node's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No server answers, so nobody knows.
    Unknown,
    /// The node is no part of the cluster yet.
    Absent,
    /// It is one.
    Present(NodeObject),
}

/// What is said to the API server about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEdit {
    /// The node's name.
    pub name: String,
    /// Labels that shall be there.
    pub labels: BTreeMap<String, String>,
    /// Taints that shall be there.
    pub taints: BTreeSet<String>,
}

/// One call of kubectl that brings an object nearer to what is wanted: its verb and arguments, without the node's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `label`, `taint`, `annotate` or `uncordon`.
    pub verb: &'static str,
    /// What follows the node's name.
    pub arguments: Vec<String>,
}

/// The change of a node's object, or `None` when it is as wanted.
pub(super) fn compare(layer: LayerName, wanted: &WantedObject) -> Option<Change> {
    let edit = ObjectEdit {
        name: wanted.name.clone(),
        labels: wanted.labels.clone(),
        taints: wanted.taints.clone(),
    };
    let after = shown(&wanted.labels, &wanted.taints, false);
    let (verb, before) = match &wanted.found {
        Found::Present(object) if calls(&edit, object).is_empty() => return None,
        Found::Present(object) => {
            let ours = |key: &String| {
                wanted.labels.contains_key(key)
                    || object.owned(OWNED_LABELS).contains(&key.as_str())
            };
            let labels = object.labels.iter().filter(|(key, _)| ours(key));
            let labels = labels
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            let ours = |taint: &&String| {
                wanted.taints.contains(*taint)
                    || object.owned(OWNED_TAINTS).contains(&taint.as_str())
            };
            let taints = object.taints.iter().filter(ours).cloned().collect();
            (
                Verb::Update,
                shown(&labels, &taints, object.annotations.contains_key(CORDONED)),
            )
        }
        Found::Absent => (Verb::Create, "not in the cluster".to_owned()),
        Found::Unknown => (Verb::Create, "known after apply".to_owned()),
    };
    Some(Change {
        layer,
        id: Id::new(Kind::NodeObject, &wanted.name),
        verb,
        view: View::Value { before, after },
        phase: Phase::Registration,
        actions: vec![Action::EditNodeObject(edit)],
        effects: BTreeSet::new(),
        reboot: None,
        trial: None,
        owns: Vec::new(),
        releases: Vec::new(),
    })
}

fn shown(labels: &BTreeMap<String, String>, taints: &BTreeSet<String>, cordoned: bool) -> String {
    let labels = labels.iter().map(|(key, value)| format!("{key}={value}"));
    let mut words: Vec<String> = labels.collect();
    words.extend(taints.iter().map(|taint| format!("taint {taint}")));
    if cordoned {
        words.push("cordoned by an interrupted run".to_owned());
    }
    if words.is_empty() {
        "registered".to_owned()
    } else {
        words.join(", ")
    }
}

/// What has to be said for `object` to be as `edit` wants it, in an order in which nothing is ever unaccounted for:
/// first what will be selfheal's, then the change, then what is no longer.
pub fn calls(edit: &ObjectEdit, object: &NodeObject) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut call = |verb, arguments: Vec<String>| {
        if !arguments.is_empty() {
            calls.push(Call { verb, arguments });
        }
    };
    let labels = BTreeSet::from_iter(edit.labels.keys().map(String::as_str));
    let owned_labels = BTreeSet::from_iter(object.owned(OWNED_LABELS));
    let taints = BTreeSet::from_iter(edit.taints.iter().map(String::as_str));
    let owned_taints = BTreeSet::from_iter(object.owned(OWNED_TAINTS));
    // What the user had set himself to the very value that is wanted stays his.
    let new_labels: BTreeSet<&str> = edit
        .labels
        .iter()
        .filter(|(key, value)| object.labels.get(*key) != Some(*value))
        .map(|(key, _)| key.as_str())
        .collect();
    let new_taints: BTreeSet<&str> = taints
        .iter()
        .copied()
        .filter(|taint| !object.taints.iter().any(|there| there == taint))
        .collect();
    let all_labels: BTreeSet<&str> = owned_labels.union(&new_labels).copied().collect();
    let all_taints: BTreeSet<&str> = owned_taints.union(&new_taints).copied().collect();
    let mut own = Vec::new();
    if all_labels != owned_labels {
        own.push(annotation(OWNED_LABELS, &all_labels));
    }
    if all_taints != owned_taints {
        own.push(annotation(OWNED_TAINTS, &all_taints));
    }
    call("annotate", own);

    let set = new_labels
        .iter()
        .filter_map(|key| Some(format!("{key}={}", edit.labels.get(*key)?)));
    let gone = owned_labels
        .difference(&labels)
        .filter(|key| object.labels.contains_key(**key));
    call(
        "label",
        set.chain(gone.map(|key| format!("{key}-"))).collect(),
    );
    // Taking off comes first: a taint whose value changes has the same key and effect.
    let gone = owned_taints
        .difference(&taints)
        .filter(|taint| object.taints.iter().any(|there| there == *taint));
    call(
        "taint",
        gone.map(|taint| format!("{}-", bare(taint))).collect(),
    );
    call(
        "taint",
        new_taints.iter().map(|taint| (*taint).to_owned()).collect(),
    );

    let mut disown = Vec::new();
    let left: BTreeSet<&str> = all_labels.intersection(&labels).copied().collect();
    if left != all_labels {
        disown.push(annotation(OWNED_LABELS, &left));
    }
    let left: BTreeSet<&str> = all_taints.intersection(&taints).copied().collect();
    if left != all_taints {
        disown.push(annotation(OWNED_TAINTS, &left));
    }
    call("annotate", disown);
    if object.annotations.contains_key(CORDONED) {
        calls.push(Call {
            verb: "uncordon",
            arguments: Vec::new(),
        });
        calls.push(Call {
            verb: "annotate",
            arguments: vec![format!("{CORDONED}-")],
        });
    }
    calls
}

fn annotation(name: &str, words: &BTreeSet<&str>) -> String {
    if words.is_empty() {
        return format!("{name}-");
    }
    let words: Vec<&str> = words.iter().copied().collect();
    format!("{name}={}", words.join(","))
}

/// A taint without its value, as it is taken off: `key:Effect`.
fn bare(taint: &str) -> String {
    let (pair, effect) = taint.rsplit_once(':').unwrap_or((taint, ""));
    let key = pair.split('=').next().unwrap_or_default();
    format!("{key}:{effect}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn edit(labels: &[(&str, &str)], taints: &[&str]) -> ObjectEdit {
        ObjectEdit {
            name: "ultron".into(),
            labels: labels
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            taints: taints.iter().map(|taint| (*taint).to_owned()).collect(),
        }
    }

    /// What a server makes of the calls.
    fn obey(object: &mut NodeObject, calls: &[Call]) {
        for Call { verb, arguments } in calls {
            for argument in arguments {
                match (*verb, argument.strip_suffix('-')) {
                    ("label", Some(key)) => drop(object.labels.remove(key)),
                    ("annotate", Some(key)) => drop(object.annotations.remove(key)),
                    ("taint", Some(taint)) => object.taints.retain(|there| bare(there) != taint),
                    ("taint", None) => {
                        assert!(
                            !object
                                .taints
                                .iter()
                                .any(|there| bare(there) == bare(argument)),
                            "{argument}"
                        );
                        object.taints.push(argument.clone());
                    }
                    (verb, _) => {
                        let (key, value) = argument.split_once('=').unwrap();
                        let map = if verb == "label" {
                            &mut object.labels
                        } else {
                            &mut object.annotations
                        };
                        map.insert(key.into(), value.into());
                    }
                }
            }
            if *verb == "uncordon" {
                object.cordoned = false;
            }
        }
    }

    #[test]
    fn what_is_wanted_comes_and_what_left_goes_and_the_users_own_stays() {
        let mut object = NodeObject {
            name: "ultron".into(),
            ..NodeObject::default()
        };
        object.labels.insert("mine".into(), "1".into());
        object.taints.push("mine:NoExecute".into());
        let first = edit(&[("disk", "ssd"), ("mine", "1")], &["slow=yes:NoSchedule"]);
        let said = calls(&first, &object);
        obey(&mut object, &said);
        assert_eq!(object.labels["disk"], "ssd");
        assert_eq!(calls(&first, &object), []);
        let second = edit(&[("zone", "attic")], &["slow=very:NoSchedule"]);
        let said = calls(&second, &object);
        obey(&mut object, &said);
        assert_eq!(object.labels.keys().collect::<Vec<_>>(), ["mine", "zone"]);
        assert_eq!(object.taints, ["mine:NoExecute", "slow=very:NoSchedule"]);
        assert_eq!(calls(&second, &object), []);
        let said = calls(&edit(&[], &[]), &object);
        obey(&mut object, &said);
        assert_eq!(object.labels.keys().collect::<Vec<_>>(), ["mine"]);
        assert!(object.annotations.is_empty() && object.taints == ["mine:NoExecute"]);
    }

    #[test]
    fn only_selfheals_own_cordon_is_lifted() {
        let nothing = edit(&[], &[]);
        let mut object = NodeObject {
            cordoned: true,
            ..NodeObject::default()
        };
        assert_eq!(calls(&nothing, &object), []);
        object.annotations.insert(CORDONED.into(), "true".into());
        let said = calls(&nothing, &object);
        obey(&mut object, &said);
        assert!(!object.cordoned && object.annotations.is_empty());
    }

    #[test]
    fn a_run_that_dies_between_two_calls_leaves_nothing_unaccounted_for() {
        let first = edit(&[("disk", "ssd")], &["slow:NoSchedule"]);
        let all = calls(&first, &NodeObject::default());
        for done in 0..=all.len() {
            let mut object = NodeObject::default();
            obey(&mut object, &all[..done]);
            let said = calls(&edit(&[], &[]), &object);
            obey(&mut object, &said);
            assert_eq!(object, NodeObject::default(), "after {done} calls");
        }
    }
}
