//! What changes objects: label, annotate, cordon, patch, delete, create, apply.

use std::fs;
use std::io::Read;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Kubectl, Resource, resource};
use crate::api::objects::{merge, name, namespace};
use crate::client::Failure;

impl Kubectl<'_> {
    /// `field` is `labels` or `annotations`.
    pub(super) async fn label(&self, words: &[String], field: &str) -> Result<()> {
        let is_change = |word: &str| word.contains('=') || word.ends_with('-');
        let (changes, targets): (Vec<String>, Vec<String>) =
            words.iter().cloned().partition(|word| is_change(word));
        let (kind, names) = self.targets(&targets)?;
        if names.is_empty()
            && !self.arguments.is_on(&["all"])
            && self.arguments.value(&["selector", "l"]).is_none()
        {
            bail!("error: one or more {} names must be provided", kind.plural);
        }
        if changes.is_empty() {
            bail!(
                "error: at least one {} update is required",
                field.trim_end_matches('s')
            );
        }
        for object in self.find(kind, &names).await? {
            let (patch, verb) = self.label_patch(&object, &changes, field)?;
            let title = format!("{}/{}", kind.title, name(&object));
            if patch.as_object().is_some_and(serde_json::Map::is_empty) {
                println!("{title} not labeled");
                continue;
            }
            let patch = json!({ "metadata": { field: patch } });
            self.client
                .patch(&self.path_of(kind, &object), &patch)
                .await?;
            println!("{title} {verb}");
        }
        Ok(())
    }

    fn label_patch(
        &self,
        object: &Value,
        changes: &[String],
        field: &str,
    ) -> Result<(Value, &'static str)> {
        let mut patch = json!({});
        let mut adds = false;
        for change in changes {
            let old = |key: &str| object["metadata"][field][key].as_str();
            if let Some((key, value)) = change.split_once('=') {
                adds = true;
                match old(key) {
                    Some(old) if old == value => {}
                    Some(old) if !self.arguments.is_on(&["overwrite"]) => {
                        bail!(
                            "error: '{key}' already has a value ({old}), and --overwrite is false"
                        )
                    }
                    _ => patch[key] = json!(value),
                }
            } else {
                let key = change.trim_end_matches('-');
                match old(key) {
                    Some(_) => patch[key] = Value::Null,
                    None => println!("{} {key:?} not found.", field.trim_end_matches('s')),
                }
            }
        }
        Ok((
            patch,
            match (field, adds) {
                ("annotations", _) => "annotated",
                (_, true) => "labeled",
                (_, false) => "unlabeled",
            },
        ))
    }

    pub(super) async fn cordon(&self, words: &[String], cordon: bool) -> Result<()> {
        let kind = resource("node")?;
        if words.is_empty() && self.arguments.value(&["selector", "l"]).is_none() {
            bail!("error: USAGE: cordon NODE");
        }
        let names: Vec<&str> = words
            .iter()
            .map(|word| word.trim_start_matches("node/"))
            .collect();
        for node in self.find(kind, &names).await? {
            self.set_cordon(&node, cordon).await?;
        }
        Ok(())
    }

    pub(super) async fn set_cordon(&self, node: &Value, cordon: bool) -> Result<()> {
        let already = (node["spec"]["unschedulable"] == true) == cordon;
        let done = if cordon { "cordoned" } else { "uncordoned" };
        if !already {
            let wanted = if cordon { json!(true) } else { Value::Null };
            let patch = json!({ "spec": { "unschedulable": wanted } });
            self.client
                .patch(&self.path_of(resource("node")?, node), &patch)
                .await?;
        }
        println!(
            "node/{} {}{done}",
            name(node),
            if already { "already " } else { "" }
        );
        Ok(())
    }

    pub(super) async fn patch(&self, words: &[String]) -> Result<()> {
        let (kind, names) = self.targets(words)?;
        let patch = self
            .arguments
            .value(&["patch", "p"])
            .context("error: must specify --patch")?;
        let patch: Value =
            serde_json::from_str(patch).context("error: unable to parse the patch")?;
        for object in self.find(kind, &names).await? {
            self.client
                .patch(&self.path_of(kind, &object), &patch)
                .await?;
            println!("{}/{} patched", kind.title, name(&object));
        }
        Ok(())
    }

    pub(super) async fn delete(&self, words: &[String]) -> Result<()> {
        let (kind, names) = self.targets(words)?;
        let all =
            self.arguments.is_on(&["all"]) || self.arguments.value(&["selector", "l"]).is_some();
        if names.is_empty() && !all {
            bail!("error: resource(s) were provided, but no name was specified");
        }
        let mut targets = Vec::new();
        if names.is_empty() {
            targets = self.find(kind, &[]).await?;
        }
        let mut missing = None;
        for name in names {
            match self.find(kind, &[name]).await {
                Ok(found) => targets.extend(found),
                Err(error) => match error.downcast_ref::<Failure>() {
                    Some(failure) if failure.is(StatusCode::NOT_FOUND) => {
                        if !self.arguments.is_on(&["ignore-not-found"]) {
                            missing = Some(error);
                        }
                    }
                    _ => return Err(error),
                },
            }
        }
        for object in &targets {
            self.delete_one(kind, object).await?;
        }
        missing.map_or(Ok(()), Err)
    }

    async fn delete_one(&self, kind: Resource, object: &Value) -> Result<()> {
        let path = self.path_of(kind, object);
        let at_once = self.arguments.is_on(&["force"])
            || self.arguments.value(&["grace-period"]) == Some("0");
        let query = if at_once { "?gracePeriodSeconds=0" } else { "" };
        self.client.delete(&format!("{path}{query}")).await?;
        let forced = if at_once { "force deleted" } else { "deleted" };
        let from = match kind.namespaced {
            true => format!(" from {} namespace", namespace(object)),
            false => String::new(),
        };
        println!("{} {:?} {forced}{from}", kind.title, name(object));
        if self.arguments.value(&["wait"]) == Some("false") {
            return Ok(());
        }
        let limit = self
            .arguments
            .value(&["timeout"])
            .map(super::wait::duration)
            .transpose()?;
        let deadline = limit
            .filter(|limit| !limit.is_zero())
            .map(|limit| Instant::now() + limit);
        while self.exists(kind, object).await? {
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                bail!(
                    "error: timed out waiting for the condition on {}/{}",
                    kind.plural,
                    name(object)
                );
            }
            sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }

    /// Whether it is still the same one.
    pub(super) async fn exists(&self, kind: Resource, object: &Value) -> Result<bool> {
        match self.client.get(&self.path_of(kind, object)).await {
            Ok(now) => Ok(now["metadata"]["uid"] == object["metadata"]["uid"]),
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    /// `create -f`, and `apply -f`, which changes what is there.
    pub(super) async fn create(&self, applies: bool) -> Result<()> {
        let files = self.arguments.values(&["filename", "f"]);
        if files.is_empty() {
            bail!("error: must specify one of -f and -k");
        }
        for file in files {
            let mut text = String::new();
            if file == "-" {
                std::io::stdin().read_to_string(&mut text)?;
            } else {
                text = fs::read_to_string(file)
                    .with_context(|| format!("error: the path {file:?} cannot be read"))?;
            }
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                let object = Value::deserialize(document)
                    .with_context(|| format!("error: error parsing {file}"))?;
                if object["items"].is_array() {
                    for object in object["items"].as_array().into_iter().flatten() {
                        self.create_one(object.clone(), applies).await?;
                    }
                } else if !object.is_null() {
                    self.create_one(object, applies).await?;
                }
            }
        }
        Ok(())
    }

    async fn create_one(&self, object: Value, applies: bool) -> Result<()> {
        let kind = resource(
            object["kind"]
                .as_str()
                .context("error: object without a kind")?,
        )?;
        let of = match namespace(&object) {
            "" => self.namespace(),
            of => of,
        };
        let title = format!("{}/{}", kind.title, name(&object));
        if applies {
            let path = self.path(kind, of, name(&object));
            match self.client.get(&path).await {
                Ok(old) => {
                    let mut new = old.clone();
                    merge(&mut new, &object);
                    if new == old {
                        println!("{title} unchanged");
                    } else {
                        self.client.patch(&path, &object).await?;
                        println!("{title} configured");
                    }
                    return Ok(());
                }
                Err(failure) if failure.is(StatusCode::NOT_FOUND) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        self.client.post(&self.folder(kind, of), &object).await?;
        println!("{title} created");
        Ok(())
    }
}
