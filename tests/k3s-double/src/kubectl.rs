//! `k3s kubectl`: the verbs that selfheal uses, with kubectl's output and exit codes.

pub mod arguments;
mod change;
mod drain;
pub mod get;
mod taint;
mod wait;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::Value;

use crate::api::objects;
use crate::client::{Client, Failure};
use crate::place;
use arguments::Arguments;

/// Options that have a value.
const VALUES: &[&str] = &[
    "namespace",
    "n",
    "output",
    "o",
    "selector",
    "l",
    "field-selector",
    "kubeconfig",
    "raw",
    "timeout",
    "grace-period",
    "filename",
    "f",
    "for",
    "pod-selector",
    "request-timeout",
    "context",
    "cluster",
    "user",
    "sort-by",
    "skip-wait-for-delete-timeout",
    "chunk-size",
    "field-manager",
    "patch",
    "p",
    "type",
];

pub async fn run(arguments: &[String]) -> Result<ExitCode> {
    match verb(&Arguments::parse(arguments, VALUES)?).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{}", shown(&error));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// As kubectl says it.
fn shown(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Failure>() {
        Some(Failure::Unreachable(_)) => {
            "The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?".to_owned()
        }
        Some(Failure::Refused { reason, .. }) if reason == "Unauthorized" => {
            "error: You must be logged in to the server (Unauthorized)".to_owned()
        }
        Some(Failure::Refused { reason, message, .. }) => format!("Error from server ({reason}): {message}"),
        None => format!("{error:#}"),
    }
}

async fn verb(arguments: &Arguments) -> Result<()> {
    let (verb, words) = arguments
        .words
        .split_first()
        .context("kubectl: which verb?")?;
    if verb == "version" && arguments.is_on(&["client"]) {
        println!("Client Version: {}", crate::bundle::Bundle::own()?.version);
        return Ok(());
    }
    let kubectl = Kubectl {
        client: client(arguments)?,
        arguments,
    };
    match verb.as_str() {
        "get" => kubectl.get(words).await,
        "label" => kubectl.label(words, "labels").await,
        "annotate" => kubectl.label(words, "annotations").await,
        "taint" => kubectl.taint(words).await,
        "cordon" => kubectl.cordon(words, true).await,
        "uncordon" => kubectl.cordon(words, false).await,
        "drain" => kubectl.drain(words).await,
        "delete" => kubectl.delete(words).await,
        "create" => kubectl.create(false).await,
        "apply" => kubectl.create(true).await,
        "patch" => kubectl.patch(words).await,
        "wait" => kubectl.wait(words).await,
        "rollout" => kubectl.rollout(words).await,
        "version" => {
            let version = kubectl.client.get("/version").await?;
            let own = crate::bundle::Bundle::own()?.version;
            println!(
                "Client Version: {own}\nServer Version: {}",
                version["gitVersion"].as_str().unwrap_or("?")
            );
            Ok(())
        }
        _ => bail!(
            "error: unknown command {verb:?} for \"kubectl\" (the double has only some of them)"
        ),
    }
}

/// The API that the kubeconfig names.
fn client(arguments: &Arguments) -> Result<Client> {
    let named = arguments.value(&["kubeconfig"]).map(str::to_owned);
    let named = named.or_else(|| {
        std::env::var("KUBECONFIG")
            .ok()
            .filter(|file| !file.is_empty())
    });
    let file = match named {
        Some(file) => file,
        None if !Path::new(place::KUBECONFIG).exists() => {
            bail!(
                "The connection to the server localhost:8080 was refused - did you specify the right host or port?"
            )
        }
        None => place::KUBECONFIG.to_owned(),
    };
    let text = fs::read_to_string(&file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            anyhow::anyhow!("error: stat {file}: no such file or directory")
        }
        _ => anyhow::anyhow!("error: error loading config file \"{file}\": open {file}: {error}"),
    })?;
    let config: Value = serde_yaml_ng::from_str(&text)
        .with_context(|| format!("error: error loading config file \"{file}\""))?;
    let server = config["clusters"][0]["cluster"]["server"].as_str();
    let address = server
        .and_then(|server| server.strip_prefix("https://"))
        .and_then(|address| address.parse().ok())
        .with_context(|| format!("error: {file} names no server by its address"))?;
    let certificate = config["users"][0]["user"]["client-certificate-data"].as_str();
    Ok(Client::anonymous(address).with_certificate(certificate.unwrap_or_default()))
}

struct Kubectl<'a> {
    client: Client,
    arguments: &'a Arguments,
}

/// A kind of object, and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Resource {
    plural: &'static str,
    singular: &'static str,
    /// As kubectl names it in what it prints: `deployment.apps`.
    title: &'static str,
    group: &'static str,
    namespaced: bool,
}

fn resource(word: &str) -> Result<Resource> {
    let (plural, singular, title, group, namespaced) = match word.to_lowercase().as_str() {
        "no" | "node" | "nodes" => ("nodes", "node", "node", "/api/v1", false),
        "po" | "pod" | "pods" => ("pods", "pod", "pod", "/api/v1", true),
        "secret" | "secrets" => ("secrets", "secret", "secret", "/api/v1", true),
        "ev" | "event" | "events" => ("events", "event", "event", "/api/v1", true),
        "deploy" | "deployment" | "deployments" | "deployments.apps" | "deployment.apps" => (
            "deployments",
            "deployment",
            "deployment.apps",
            "/apis/apps/v1",
            true,
        ),
        "ds" | "daemonset" | "daemonsets" => (
            "daemonsets",
            "daemonset",
            "daemonset.apps",
            "/apis/apps/v1",
            true,
        ),
        _ => bail!("error: the server doesn't have a resource type \"{word}\""),
    };
    Ok(Resource {
        plural,
        singular,
        title,
        group,
        namespaced,
    })
}

impl Kubectl<'_> {
    fn namespace(&self) -> &str {
        self.arguments
            .value(&["namespace", "n"])
            .unwrap_or("default")
    }

    /// The folder of a resource, in a namespace.
    fn folder(&self, resource: Resource, namespace: &str) -> String {
        match resource.namespaced {
            true => format!(
                "{}/namespaces/{namespace}/{}",
                resource.group, resource.plural
            ),
            false => format!("{}/{}", resource.group, resource.plural),
        }
    }

    fn path(&self, resource: Resource, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.folder(resource, namespace))
    }

    fn path_of(&self, resource: Resource, object: &Value) -> String {
        self.path(resource, objects::namespace(object), objects::name(object))
    }

    /// What `TYPE NAME…`, `TYPE/NAME…`, `TYPE` with a selector, or `TYPE --all` mean; the words behind are left over.
    fn targets<'w>(&self, words: &'w [String]) -> Result<(Resource, Vec<&'w str>)> {
        let (first, rest) = words
            .split_first()
            .context("error: you must specify the type of resource")?;
        let Some((kind, name)) = first.split_once('/') else {
            return Ok((resource(first)?, rest.iter().map(String::as_str).collect()));
        };
        let mut names = vec![name];
        for word in rest {
            match word.split_once('/') {
                Some((_, name)) => names.push(name),
                None => names.push(word),
            }
        }
        Ok((resource(kind)?, names))
    }

    /// The objects of these names, or all that are selected.
    async fn find(&self, resource: Resource, names: &[&str]) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        for name in names {
            found.push(
                self.client
                    .get(&self.path(resource, self.namespace(), name))
                    .await?,
            );
        }
        if names.is_empty() {
            let folder = match self.arguments.is_on(&["all-namespaces", "A"]) {
                true => format!("{}/{}", resource.group, resource.plural),
                false => self.folder(resource, self.namespace()),
            };
            let list = self.client.get(&folder).await?;
            found.extend(list["items"].as_array().into_iter().flatten().cloned());
            if let Some(selector) = self.arguments.value(&["selector", "l"]) {
                found.retain(|object| selector.split(',').all(|term| has_label(object, term)));
            }
            if let Some(selector) = self.arguments.value(&["field-selector"]) {
                found.retain(|object| selector.split(',').all(|term| has_field(object, term)));
            }
        }
        Ok(found)
    }

    async fn raw(&self, path: &str) -> Result<()> {
        let began = std::time::Instant::now();
        let bytes = self.client.raw(Method::GET, path, None).await?;
        let chatty = self.arguments.value(&["v"]);
        if chatty.is_some_and(|level| level.parse::<u8>().is_ok_and(|level| level >= 6)) {
            let took = began.elapsed().as_millis();
            eprintln!(
                "\"Response\" verb=\"GET\" url=\"https://127.0.0.1:6443{path}\" status=\"200 OK\" milliseconds={took}"
            );
        }
        print!("{}", String::from_utf8_lossy(&bytes));
        Ok(())
    }
}

/// `key`, `!key`, `key=value`, `key!=value`.
fn has_label(object: &Value, term: &str) -> bool {
    let label = |key: &str| {
        object["metadata"]["labels"][key]
            .as_str()
            .map(str::to_owned)
    };
    if let Some(key) = term.strip_prefix('!') {
        label(key).is_none()
    } else if let Some((key, value)) = term.split_once("!=") {
        label(key).as_deref() != Some(value)
    } else if let Some((key, value)) = term.split_once('=') {
        label(key).as_deref() == Some(value.trim_start_matches('='))
    } else {
        label(term).is_some()
    }
}

fn has_field(object: &Value, term: &str) -> bool {
    let (path, value, wanted) = match term.split_once("!=") {
        Some((path, value)) => (path, value, false),
        None => match term.split_once('=') {
            Some((path, value)) => (path, value.trim_start_matches('='), true),
            None => return false,
        },
    };
    let mut at = object;
    for key in path.split('.') {
        at = &at[key];
    }
    (at.as_str().unwrap_or_default() == value) == wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_selected_by_labels_and_fields() {
        let object =
            json!({ "metadata": { "labels": { "a": "1" } }, "spec": { "nodeName": "jarvis" } });
        for term in ["a", "a=1", "a==1", "!b", "a!=2", "b!=1"] {
            assert!(has_label(&object, term), "{term}");
        }
        for term in ["b", "a=2", "!a", "a!=1"] {
            assert!(!has_label(&object, term), "{term}");
        }
        assert!(
            has_field(&object, "spec.nodeName=jarvis")
                && has_field(&object, "status.phase!=Running")
        );
        assert!(!has_field(&object, "spec.nodeName=ultron"));
    }
}
