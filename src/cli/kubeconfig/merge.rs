//! k3s's kubeconfig under a name and an address that make sense elsewhere, beside the clusters that a user has already.

use serde_yaml_ng::{Mapping, Value};

/// Why two kubeconfigs cannot be one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MergeError {
    /// One of them is none.
    #[error("{0} is no kubeconfig")]
    NoKubeconfig(&'static str),
    /// The name is taken.
    #[error("it has a cluster {name} already, at {server}")]
    Taken {
        /// The name.
        name: String,
        /// Where that one is.
        server: String,
    },
}

/// The user's kubeconfig with the cluster that `fetched` describes, called `name` and reached at `server`. Nothing else of
/// it changes, but that a file without a current context gets this one.
///
/// # Errors
/// [`MergeError`]; a cluster of this name at another address is replaced only if `replace` says so.
pub(super) fn merge(
    existing: &str,
    fetched: &str,
    name: &str,
    server: &str,
    replace: bool,
) -> Result<String, MergeError> {
    let from_node = || MergeError::NoKubeconfig("what the node has");
    let fetched: Value = serde_yaml_ng::from_str(fetched).map_err(|_| from_node())?;
    let part = |list: &str, key: &str| fetched.get(list)?.get(0)?.get(key)?.as_mapping().cloned();
    let mut cluster = part("clusters", "cluster").ok_or_else(from_node)?;
    let user = part("users", "user").ok_or_else(from_node)?;
    cluster.insert("server".into(), server.into());

    let yours = || MergeError::NoKubeconfig("your file");
    let mut merged = match serde_yaml_ng::from_str(existing).map_err(|_| yours())? {
        Value::Null => Mapping::new(),
        Value::Mapping(mapping) => mapping,
        _ => return Err(yours()),
    };
    if let Some(other) =
        entry(&merged, "clusters", name).and_then(|it| it.get("cluster")?.get("server")?.as_str())
        && other != server
        && !replace
    {
        return Err(MergeError::Taken {
            name: name.to_owned(),
            server: other.to_owned(),
        });
    }
    for (key, value) in [("apiVersion", "v1"), ("kind", "Config")] {
        merged.entry(key.into()).or_insert_with(|| value.into());
    }
    let context = Mapping::from_iter([
        ("cluster".into(), name.into()),
        ("user".into(), name.into()),
    ]);
    for (list, key, value) in [
        ("clusters", "cluster", cluster),
        ("users", "user", user),
        ("contexts", "context", context),
    ] {
        put(&mut merged, list, key, name, value).ok_or_else(yours)?;
    }
    let current = merged.get("current-context").and_then(Value::as_str);
    if current.unwrap_or_default().is_empty() {
        merged.insert("current-context".into(), name.into());
    }
    serde_yaml_ng::to_string(&merged).map_err(|_| yours())
}

fn entry<'m>(config: &'m Mapping, list: &str, name: &str) -> Option<&'m Value> {
    let mut entries = config.get(list)?.as_sequence()?.iter();
    entries.find(|entry| entry.get("name").and_then(Value::as_str) == Some(name))
}

/// `None` where the list is none.
fn put(config: &mut Mapping, list: &str, key: &str, name: &str, value: Mapping) -> Option<()> {
    let entries = config.entry(list.into()).or_insert(Value::Null);
    if entries.is_null() {
        *entries = Value::Sequence(Vec::new());
    }
    let entries = entries.as_sequence_mut()?;
    let entry = Value::Mapping(Mapping::from_iter([
        ("name".into(), name.into()),
        (key.into(), Value::Mapping(value)),
    ]));
    let same = |it: &&mut Value| it.get("name").and_then(Value::as_str) == Some(name);
    match entries.iter_mut().find(same) {
        Some(old) => *old = entry,
        None => entries.push(entry),
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FETCHED: &str = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: Q0E=\n    server: https://127.0.0.1:6443\n  name: default\n\
        contexts:\n- context:\n    cluster: default\n    user: default\n  name: default\ncurrent-context: default\nkind: Config\nusers:\n\
        - name: default\n  user:\n    client-certificate-data: Q1Q=\n    client-key-data: S0VZ\n";
    const SERVER: &str = "https://192.168.1.10:6443";

    fn value(text: &str) -> Value {
        serde_yaml_ng::from_str(text).unwrap()
    }

    #[test]
    fn a_cluster_comes_under_its_name_and_a_second_time_changes_nothing() {
        let merged = merge("", FETCHED, "homelab", SERVER, false).unwrap();
        let config = value(&merged);
        assert_eq!(config["clusters"][0]["name"], "homelab");
        assert_eq!(config["clusters"][0]["cluster"]["server"], SERVER);
        assert_eq!(config["users"][0]["user"]["client-key-data"], "S0VZ");
        assert_eq!(config["contexts"][0]["context"]["user"], "homelab");
        assert_eq!(config["current-context"], "homelab");
        assert_eq!(
            merge(&merged, FETCHED, "homelab", SERVER, false).unwrap(),
            merged
        );
    }

    #[test]
    fn other_clusters_and_the_current_context_stay() {
        let theirs = "clusters:\n- name: work\n  cluster: {server: \"https://work\"}\nusers: null\ncurrent-context: work\nextensions: [x]\n";
        let config = value(&merge(theirs, FETCHED, "homelab", SERVER, false).unwrap());
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://work");
        assert_eq!(config["clusters"][1]["name"], "homelab");
        assert_eq!(config["current-context"], "work");
        assert_eq!(config["extensions"][0], "x");
    }

    #[test]
    fn a_name_that_is_taken_is_not_taken_over() {
        let theirs = "clusters:\n- name: homelab\n  cluster: {server: \"https://elsewhere\"}\n";
        let taken = merge(theirs, FETCHED, "homelab", SERVER, false).unwrap_err();
        assert!(matches!(taken, MergeError::Taken { server, .. } if server == "https://elsewhere"));
        let config = value(&merge(theirs, FETCHED, "homelab", SERVER, true).unwrap());
        assert_eq!(config["clusters"][0]["cluster"]["server"], SERVER);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_a_panic(existing: String, fetched: String) {
            let _ = merge(&existing, FETCHED, "homelab", SERVER, false);
            let _ = merge("", &fetched, "homelab", SERVER, false);
        }
    }
}
