//! The cluster's nodes as a server's API shows them: what `kubectl get nodes -o json` says, as far as it matters here.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The annotation in which a node's object says which labels are selfheal's, joined by commas.
pub const OWNED_LABELS: &str = "selfheal/labels";
/// The annotation in which a node's object says which taints are selfheal's, joined by commas.
pub const OWNED_TAINTS: &str = "selfheal/taints";
/// The annotation of a node that selfheal cordoned, and will uncordon.
pub const CORDONED: &str = "selfheal/cordoned";

/// A node's object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeObject {
    /// Its name.
    pub name: String,
    /// Its labels, Kubernetes' own too.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its taints, as kubectl writes them: `key=value:Effect` or `key:Effect`.
    pub taints: Vec<String>,
    /// Whether the kubelet says that it is ready.
    pub ready: bool,
    /// Whether no new pod comes to it.
    pub cordoned: bool,
    /// The version of its kubelet, `v1.36.3+k3s1`.
    pub version: String,
}

impl NodeObject {
    /// The words in one of selfheal's annotations.
    pub fn owned(&self, annotation: &str) -> Vec<&str> {
        let words = self.annotations.get(annotation);
        words
            .map(|words| words.split(',').filter(|word| !word.is_empty()).collect())
            .unwrap_or_default()
    }
}

/// Reads `kubectl get nodes -o json`; `None` where it is none.
pub fn nodes(json: &[u8]) -> Option<Vec<NodeObject>> {
    let list: List = serde_json::from_slice(json).ok()?;
    Some(list.items.into_iter().map(NodeObject::from).collect())
}

#[derive(Deserialize)]
struct List {
    items: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    taints: Vec<Taint>,
    #[serde(default)]
    unschedulable: bool,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
    #[serde(default)]
    value: String,
    effect: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    node_info: NodeInfo,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeInfo {
    #[serde(default)]
    kubelet_version: String,
}

impl From<Object> for NodeObject {
    fn from(object: Object) -> NodeObject {
        let Object {
            metadata,
            spec,
            status,
        } = object;
        let ready = |condition: &Condition| condition.kind == "Ready" && condition.status == "True";
        let shown = |taint: Taint| match taint.value.as_str() {
            "" => format!("{}:{}", taint.key, taint.effect),
            value => format!("{}={value}:{}", taint.key, taint.effect),
        };
        NodeObject {
            name: metadata.name,
            labels: metadata.labels,
            annotations: metadata.annotations,
            taints: spec.taints.into_iter().map(shown).collect(),
            ready: status.conditions.iter().any(ready),
            cordoned: spec.unschedulable,
            version: status.node_info.kubelet_version,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_node_is_read_as_kubectl_shows_it() {
        let json = br#"{"apiVersion":"v1","kind":"List","items":[{
            "metadata":{"name":"ultron","labels":{"disk":"ssd"},"annotations":{"selfheal/labels":"disk,old"}},
            "spec":{"taints":[{"key":"a","value":"b","effect":"NoSchedule"},{"key":"c","effect":"NoExecute"}],"unschedulable":true},
            "status":{"conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"True"}],
                      "nodeInfo":{"kubeletVersion":"v1.36.3+k3s1"}}}]}"#;
        let nodes = nodes(json).unwrap();
        let ultron = &nodes[0];
        assert_eq!(ultron.taints, ["a=b:NoSchedule", "c:NoExecute"]);
        assert!(ultron.ready && ultron.cordoned);
        assert_eq!(ultron.version, "v1.36.3+k3s1");
        assert_eq!(ultron.owned(OWNED_LABELS), ["disk", "old"]);
        assert!(ultron.owned(OWNED_TAINTS).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_a_panic(json: Vec<u8>) {
            let _ = nodes(&json);
        }
    }
}
