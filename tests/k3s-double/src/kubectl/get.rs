//! `kubectl get`.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Kubectl, Resource, resource};
use crate::api::objects::{name, namespace};
use crate::client::Failure;

/// What a table shows of an object.
type Row = fn(&Value) -> Vec<String>;

impl Kubectl<'_> {
    pub(super) async fn get(&self, words: &[String]) -> Result<()> {
        if let Some(path) = self.arguments.value(&["raw"]) {
            return self.raw(path).await;
        }
        // `get nodes,pods` is a list of kinds.
        let first = words
            .first()
            .context("error: you must specify the type of resource to get")?;
        let kinds: Vec<&str> = first.split(',').collect();
        let mut all = Vec::new();
        let (mut single, mut named) = (false, false);
        let mut missing = None;
        let mut found_in = Vec::new();
        if kinds.len() > 1 {
            for kind in kinds {
                let kind = resource(kind)?;
                let found = self.find(kind, &[]).await?;
                all.extend(found.iter().cloned());
                found_in.push((kind, found));
            }
        } else {
            let (kind, names) = self.targets(words)?;
            single = names.len() == 1;
            named = !names.is_empty();
            if names.is_empty() {
                all = self.find(kind, &[]).await?;
            }
            for name in names {
                match self.find(kind, &[name]).await {
                    Ok(found) => all.extend(found),
                    Err(error)
                        if is_missing(&error) && self.arguments.is_on(&["ignore-not-found"]) => {}
                    Err(error) => missing = Some(error),
                }
            }
            found_in.push((kind, all.clone()));
        }
        match self.arguments.value(&["output", "o"]) {
            Some("json") => {
                let shown = match all.as_slice() {
                    [one] if single => one.clone(),
                    [] if single => Value::Null,
                    all => {
                        json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": all })
                    }
                };
                if !shown.is_null() {
                    println!("{}", serde_json::to_string_pretty(&shown)?);
                }
            }
            Some("name") => {
                for (kind, found) in &found_in {
                    found
                        .iter()
                        .for_each(|object| println!("{}/{}", kind.title, name(object)));
                }
            }
            None | Some("wide") => {
                for (kind, found) in &found_in {
                    self.table(*kind, found, named);
                }
            }
            Some(other) => bail!("error: the double has no output format {other:?}"),
        }
        missing.map_or(Ok(()), Err)
    }

    fn table(&self, kind: Resource, objects: &[Value], named: bool) {
        if objects.is_empty() {
            if named {
                return;
            }
            if kind.namespaced && !self.arguments.is_on(&["all-namespaces", "A"]) {
                eprintln!("No resources found in {} namespace.", self.namespace());
            } else {
                eprintln!("No resources found");
            }
            return;
        }
        let (head, row): (&[&str], Row) = match kind.plural {
            "nodes" => (&["NAME", "STATUS", "ROLES", "AGE", "VERSION"], node),
            "pods" => (&["NAME", "READY", "STATUS", "RESTARTS", "AGE"], pod),
            "deployments" => (
                &["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"],
                deployment,
            ),
            "events" => (&["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], event),
            _ => (&["NAME", "AGE"], |object| {
                vec![name(object).to_owned(), age(object)]
            }),
        };
        let wide = self.arguments.value(&["output", "o"]) == Some("wide");
        let everywhere = kind.namespaced && self.arguments.is_on(&["all-namespaces", "A"]);
        let mut lines = Vec::new();
        let mut line: Vec<String> = head.iter().map(|&word| word.to_owned()).collect();
        if wide && kind.plural == "pods" {
            line.extend(["IP", "NODE"].map(str::to_owned));
        }
        if everywhere {
            line.insert(0, "NAMESPACE".to_owned());
        }
        if !self.arguments.is_on(&["no-headers"]) {
            lines.push(line);
        }
        for object in objects {
            let mut line = row(object);
            if wide && kind.plural == "pods" {
                let text = |value: &Value| value.as_str().unwrap_or("<none>").to_owned();
                line.extend([
                    text(&object["status"]["podIP"]),
                    text(&object["spec"]["nodeName"]),
                ]);
            }
            if everywhere {
                line.insert(0, namespace(object).to_owned());
            }
            lines.push(line);
        }
        print_columns(&lines);
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Failure>()
        .is_some_and(|failure| failure.is(http::StatusCode::NOT_FOUND))
}

/// A table, its columns as wide as they have to be.
pub fn print_columns(lines: &[Vec<String>]) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(String::len).max().unwrap_or(0) + 3
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text += &format!("{cell:<width$}");
        }
        println!("{}", text.trim_end());
    }
}

fn age(object: &Value) -> String {
    let made = object["metadata"]["creationTimestamp"].as_str();
    let made = made.and_then(|made| made.parse::<jiff::Timestamp>().ok());
    let Some(made) = made else {
        return "<unknown>".to_owned();
    };
    match jiff::Timestamp::now().as_second() - made.as_second() {
        seconds if seconds < 120 => format!("{seconds}s"),
        seconds if seconds < 7200 => format!("{}m", seconds / 60),
        seconds if seconds < 172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

fn node(node: &Value) -> Vec<String> {
    let mut status = match crate::api::controllers::is_ready(node) {
        true => "Ready".to_owned(),
        false => "NotReady".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status += ",SchedulingDisabled";
    }
    let labels = node["metadata"]["labels"].as_object();
    let roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    let roles = match roles.is_empty() {
        true => "<none>".to_owned(),
        false => roles.join(","),
    };
    let version = node["status"]["nodeInfo"]["kubeletVersion"]
        .as_str()
        .unwrap_or_default();
    vec![
        name(node).to_owned(),
        status,
        roles,
        age(node),
        version.to_owned(),
    ]
}

fn pod(pod: &Value) -> Vec<String> {
    let wanted = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let statuses = pod["status"]["containerStatuses"].as_array();
    let ready = statuses
        .into_iter()
        .flatten()
        .filter(|status| status["ready"] == true)
        .count();
    let restarts: u64 = statuses
        .into_iter()
        .flatten()
        .filter_map(|status| status["restartCount"].as_u64())
        .sum();
    let status = if pod["metadata"]["deletionTimestamp"].is_string() {
        "Terminating"
    } else if pod["status"]["phase"] == "Pending" && pod["spec"]["nodeName"].is_string() {
        "ContainerCreating"
    } else {
        pod["status"]["phase"].as_str().unwrap_or("Unknown")
    };
    vec![
        name(pod).to_owned(),
        format!("{ready}/{wanted}"),
        status.to_owned(),
        restarts.to_string(),
        age(pod),
    ]
}

fn deployment(deployment: &Value) -> Vec<String> {
    let count = |key: &str| deployment["status"][key].as_u64().unwrap_or(0).to_string();
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    vec![
        name(deployment).to_owned(),
        format!("{}/{wanted}", count("readyReplicas")),
        count("updatedReplicas"),
        count("availableReplicas"),
        age(deployment),
    ]
}

fn event(event: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    vec![
        age(event),
        text(&event["type"]),
        text(&event["reason"]),
        format!("pod/{}", text(&event["involvedObject"]["name"])),
        text(&event["message"]),
    ]
}
