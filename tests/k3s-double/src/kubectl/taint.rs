//! `kubectl taint`.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::Kubectl;
use crate::api::objects::name;
use crate::labels;

impl Kubectl<'_> {
    pub(super) async fn taint(&self, words: &[String]) -> Result<()> {
        let is_change =
            |word: &str| word.contains(':') || word.contains('=') || word.ends_with('-');
        let (changes, targets): (Vec<String>, Vec<String>) =
            words.iter().cloned().partition(|word| is_change(word));
        let (kind, names) = self.targets(&targets)?;
        if kind.plural != "nodes" || changes.is_empty() {
            bail!("error: at least one taint update is required");
        }
        for node in self.find(kind, &names).await? {
            let old = node["spec"]["taints"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let overwrite = self.arguments.is_on(&["overwrite"]);
            let (taints, verb) = changed(old, &changes, overwrite, name(&node))?;
            let taints = if taints.is_empty() {
                Value::Null
            } else {
                json!(taints)
            };
            let patch = json!({ "spec": { "taints": taints } });
            self.client
                .patch(&self.path_of(kind, &node), &patch)
                .await?;
            println!("node/{} {verb}", name(&node));
        }
        Ok(())
    }
}

fn changed(
    mut taints: Vec<Value>,
    changes: &[String],
    overwrite: bool,
    node: &str,
) -> Result<(Vec<Value>, &'static str)> {
    let (mut added, mut replaced) = (false, false);
    for change in changes {
        if let Some(removed) = change.strip_suffix('-') {
            let (key, effect) = match removed.split_once(':') {
                Some((key, effect)) => (key, Some(effect)),
                None => (removed, None),
            };
            let key = key.split('=').next().unwrap_or(key);
            let before = taints.len();
            taints.retain(|taint| {
                taint["key"] != key || effect.is_some_and(|effect| taint["effect"] != effect)
            });
            if taints.len() == before {
                bail!("error: taint {removed:?} not found");
            }
            continue;
        }
        let (key, value, effect) = match labels::parse_taint(change) {
            Ok(taint) => taint,
            Err(error) => bail!("error: {error}"),
        };
        let mut taint = json!({ "key": key, "effect": effect });
        if let Some(value) = value {
            taint["value"] = json!(value);
        }
        let old = taints
            .iter_mut()
            .find(|old| old["key"] == taint["key"] && old["effect"] == taint["effect"]);
        match old {
            Some(old) if overwrite => {
                *old = taint;
                replaced = true;
            }
            Some(_) => bail!(
                "error: node {node} already has {key} taint(s) with same effect(s) and --overwrite is false"
            ),
            None => {
                taints.push(taint);
                added = true;
            }
        }
    }
    Ok((
        taints,
        match (added, replaced) {
            (_, true) => "modified",
            (true, false) => "tainted",
            (false, false) => "untainted",
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(
        taints: Vec<Value>,
        change: &str,
        overwrite: bool,
    ) -> Result<(Vec<Value>, &'static str)> {
        changed(taints, &[change.to_owned()], overwrite, "jarvis")
    }

    #[test]
    fn taints_come_change_and_go() {
        let (taints, verb) = change(vec![], "a=b:NoSchedule", false).unwrap();
        assert_eq!((taints.len(), verb), (1, "tainted"));
        assert!(change(taints.clone(), "a=c:NoSchedule", false).is_err());
        let (taints, verb) = change(taints, "a=c:NoSchedule", true).unwrap();
        assert_eq!((taints[0]["value"].as_str(), verb), (Some("c"), "modified"));
        assert!(
            change(taints.clone(), "x-", false).is_err()
                && change(taints.clone(), "a:NoExecute-", false).is_err()
        );
        let (taints, verb) = change(taints, "a:NoSchedule-", false).unwrap();
        assert_eq!((taints.len(), verb), (0, "untainted"));
    }
}
