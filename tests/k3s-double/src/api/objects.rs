//! The objects, kept in one file that is written through to the disk at every change, as k3s's sqlite is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{durable, token};

/// Objects by resource (`pods`), then by `NAMESPACE/NAME`; the namespace of nodes is empty.
#[derive(Debug, Default)]
pub struct Objects {
    file: Option<PathBuf>,
    state: State,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    version: u64,
    /// What the server's token was when this was made; k3s encrypts its bootstrap data with it.
    #[serde(default)]
    token: String,
    resources: BTreeMap<String, BTreeMap<String, Value>>,
}

/// Events beyond this many are forgotten, the oldest first.
const EVENTS: usize = 200;

impl Objects {
    pub fn load(file: PathBuf) -> Result<Self> {
        let state = match fs::read(&file) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged", file.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        };
        Ok(Self {
            file: Some(file),
            state,
        })
    }

    fn save(&self) -> Result<()> {
        match &self.file {
            Some(file) => durable::write(file, serde_json::to_vec(&self.state)?, 0o600),
            None => Ok(()),
        }
    }

    /// Remembers the server's token; false if the data was made with another one.
    pub fn is_of(&mut self, token: &str) -> Result<bool> {
        if self.state.token.is_empty() {
            token.clone_into(&mut self.state.token);
            self.save()?;
        }
        Ok(self.state.token == token)
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.state
            .resources
            .get(resource)?
            .get(&key(namespace, name))
    }

    /// All of a namespace, or of all.
    pub fn list(&self, resource: &str, namespace: Option<&str>) -> Vec<&Value> {
        let all = self.state.resources.get(resource);
        all.into_iter()
            .flat_map(BTreeMap::values)
            .filter(|object| namespace.is_none_or(|wanted| self::namespace(object) == wanted))
            .collect()
    }

    /// Adds an object, with what the API server fills in.
    pub fn create(&mut self, resource: &str, mut object: Value) -> Result<Value> {
        let uid = uuid()?;
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(uid);
        metadata["creationTimestamp"] = json!(now());
        let key = key(namespace(&object), name(&object));
        let all = self.state.resources.entry(resource.to_owned()).or_default();
        if resource == "events" {
            while all.len() >= EVENTS {
                let oldest = all
                    .iter()
                    .min_by_key(|(_, event)| {
                        event["metadata"]["resourceVersion"]
                            .as_str()
                            .and_then(|v| v.parse::<u64>().ok())
                    })
                    .map(|(key, _)| key.clone());
                oldest.and_then(|key| all.remove(&key));
            }
        }
        self.put(resource, key, object)
    }

    /// Puts an object that was changed back; nothing is written if it was not.
    pub fn update(&mut self, resource: &str, object: Value) -> Result<Value> {
        let key = key(namespace(&object), name(&object));
        let old = self
            .state
            .resources
            .get(resource)
            .and_then(|all| all.get(&key));
        if old == Some(&object) {
            return Ok(object);
        }
        self.put(resource, key, object)
    }

    fn put(&mut self, resource: &str, key: String, mut object: Value) -> Result<Value> {
        self.state.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.state.version.to_string());
        let all = self.state.resources.entry(resource.to_owned()).or_default();
        all.insert(key, object.clone());
        self.save()?;
        Ok(object)
    }

    pub fn remove(&mut self, resource: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let all = self.state.resources.get_mut(resource);
        let removed = all.and_then(|all| all.remove(&key(namespace, name)));
        if removed.is_some() {
            self.state.version += 1;
            self.save()?;
        }
        Ok(removed)
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn namespace(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().unwrap_or_default()
}

pub fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

fn uuid() -> Result<String> {
    let hex = token::random()?;
    let parts =
        [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default());
    Ok(parts.join("-"))
}

/// Changes `target` as a JSON merge patch says (RFC 7396).
pub fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in changes {
        if change.is_null() {
            if let Some(fields) = target.as_object_mut() {
                fields.remove(key);
            }
        } else {
            merge(&mut target[key.as_str()], change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_outlive_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("db/state.db");
        let mut objects = Objects::load(file.clone()).unwrap();
        assert!(objects.is_of("secret").unwrap());
        let pod = json!({ "metadata": { "name": "a", "namespace": "default" } });
        let made = objects.create("pods", pod).unwrap();
        assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
        let unchanged = objects.update("pods", made.clone()).unwrap();
        assert_eq!(unchanged, made);

        let mut again = Objects::load(file).unwrap();
        assert_eq!(again.get("pods", "default", "a"), Some(&made));
        assert!(again.list("pods", Some("other")).is_empty());
        assert!(!again.is_of("another").unwrap());
        assert!(again.remove("pods", "default", "a").unwrap().is_some());
        assert!(again.remove("pods", "default", "a").unwrap().is_none());
    }

    #[test]
    fn a_patch_adds_changes_and_removes() {
        let mut target = json!({ "a": { "b": 1, "c": 2 }, "d": [1] });
        merge(
            &mut target,
            &json!({ "a": { "b": null, "e": { "f": 3 } }, "d": [2] }),
        );
        assert_eq!(
            target,
            json!({ "a": { "c": 2, "e": { "f": 3 } }, "d": [2] })
        );
    }
}
