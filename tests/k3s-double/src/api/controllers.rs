//! What the control plane does by itself: it notices nodes that are silent, schedules pods, keeps deployments and
//! daemon sets at their number, and forgets the pods of nodes that are gone.

use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::objects::{self, name, namespace, now};
use super::{Api, Shared, join};
use crate::{log, token};

/// A node that has not been heard of for so long is not ready: Kubernetes's `node-monitor-grace-period`.
const SILENCE: Duration = Duration::from_secs(50);
/// k3s's own pods come some seconds after the API.
const SYSTEM: &[&str] = &["coredns", "local-path-provisioner", "metrics-server"];
const SYSTEM_AFTER: Duration = Duration::from_secs(3);

/// Runs them for ever.
pub async fn run(api: Shared, disabled: Vec<String>) {
    let start = Instant::now();
    loop {
        let turn = turn(
            &mut api.borrow_mut(),
            start.elapsed() > SYSTEM_AFTER,
            &disabled,
        );
        if let Err(error) = turn {
            log::error(format!("controllers: {error:#}"));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Starts them in this thread.
pub fn start(api: &Shared, disabled: Vec<String>) {
    tokio::task::spawn_local(run(Rc::clone(api), disabled));
}

fn turn(api: &mut Api, system: bool, disabled: &[String]) -> Result<()> {
    watch_nodes(api)?;
    if system {
        for name in SYSTEM {
            let off = disabled.iter().any(|disabled| {
                disabled == name
                    || (*name == "local-path-provisioner" && disabled == "local-storage")
            });
            let there = api
                .objects
                .get("deployments", "kube-system", name)
                .is_some();
            if off && there {
                api.objects.remove("deployments", "kube-system", name)?;
            } else if !off && !there {
                api.objects.create("deployments", system_deployment(name))?;
            }
        }
    }
    forget_pods(api)?;
    keep_deployments(api)?;
    keep_daemon_sets(api)?;
    schedule(api)
}

fn owned(api: &Api, resource: &str) -> Vec<Value> {
    api.objects
        .list(resource, None)
        .into_iter()
        .cloned()
        .collect()
}

fn watch_nodes(api: &mut Api) -> Result<()> {
    for mut node in owned(api, "nodes") {
        let heard = api.heard.get(name(&node));
        let silent = heard.is_none_or(|heard| heard.elapsed() > SILENCE);
        if silent {
            let message = "Kubelet stopped posting node status.";
            join::set_condition(&mut node, "Ready", "Unknown", "NodeStatusUnknown", message);
        }
        let unschedulable = node["spec"]["unschedulable"] == true;
        let ready = is_ready(&node);
        set_taint(
            &mut node,
            "node.kubernetes.io/unschedulable",
            "NoSchedule",
            unschedulable,
        );
        set_taint(
            &mut node,
            "node.kubernetes.io/not-ready",
            "NoSchedule",
            !silent && !ready,
        );
        set_taint(
            &mut node,
            "node.kubernetes.io/unreachable",
            "NoSchedule",
            silent,
        );
        api.objects.update("nodes", node)?;
    }
    Ok(())
}

pub fn is_ready(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn set_taint(node: &mut Value, key: &str, effect: &str, wanted: bool) {
    let mut taints = node["spec"]["taints"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let there = taints
        .iter()
        .any(|taint| taint["key"] == key && taint["effect"] == effect);
    if there == wanted {
        return;
    }
    taints.retain(|taint| taint["key"] != key || taint["effect"] != effect);
    if wanted {
        taints.push(json!({ "key": key, "effect": effect, "timeAdded": now() }));
    }
    match taints.is_empty() {
        true => {
            if let Some(spec) = node["spec"].as_object_mut() {
                spec.remove("taints");
            }
        }
        false => node["spec"]["taints"] = json!(taints),
    }
}

fn system_deployment(name: &str) -> Value {
    let labels = json!({ "k8s-app": name });
    json!({
        "kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": { "name": name, "namespace": "kube-system", "labels": labels },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "tolerations": [
                        { "key": "CriticalAddonsOnly", "operator": "Exists" },
                        { "key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule" },
                    ],
                    "containers": [{ "name": name, "image": crate::containerd::PAUSE }],
                },
            },
        },
    })
}

/// The pods of nodes that do not exist, and those of owners that do not.
fn forget_pods(api: &mut Api) -> Result<()> {
    for pod in owned(api, "pods") {
        let node = pod["spec"]["nodeName"].as_str();
        let lost = node.is_some_and(|node| api.objects.get("nodes", "", node).is_none());
        if lost {
            api.objects.remove("pods", namespace(&pod), name(&pod))?;
            continue;
        }
        let owner = &pod["metadata"]["ownerReferences"][0];
        let resource = match owner["kind"].as_str() {
            Some("ReplicaSet") => "deployments",
            Some("DaemonSet") => "daemonsets",
            _ => continue,
        };
        // A double has no replica sets: their names are those of deployments and a hash.
        let owner = owner["name"].as_str().unwrap_or_default();
        let owner = owner.strip_suffix(HASH).unwrap_or(owner);
        if api.objects.get(resource, namespace(&pod), owner).is_none() {
            mark_deleted(api, pod)?;
        }
    }
    Ok(())
}

const HASH: &str = "-5d78c9869d";

fn mark_deleted(api: &mut Api, mut pod: Value) -> Result<()> {
    if pod["spec"]["nodeName"].is_null() {
        api.objects.remove("pods", namespace(&pod), name(&pod))?;
    } else if pod["metadata"]["deletionTimestamp"].is_null() {
        pod["metadata"]["deletionTimestamp"] = json!(now());
        api.objects.update("pods", pod)?;
    }
    Ok(())
}

/// The pods of an owner that are not on their way out.
fn pods_of(api: &Api, owner: &Value) -> Vec<Value> {
    let uid = &owner["metadata"]["uid"];
    let mut pods = owned(api, "pods");
    pods.retain(|pod| {
        pod["metadata"]["ownerReferences"][0]["uid"] == *uid
            && pod["metadata"]["deletionTimestamp"].is_null()
    });
    pods
}

fn keep_deployments(api: &mut Api) -> Result<()> {
    for mut deployment in owned(api, "deployments") {
        let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
        let pods = pods_of(api, &deployment);
        let there = pods.len() as u64;
        for _ in there..wanted {
            let own = name(&deployment);
            let pod_name = format!("{own}{HASH}-{}", suffix()?);
            let pod = pod_from(
                &deployment,
                &pod_name,
                "ReplicaSet",
                &format!("{own}{HASH}"),
                None,
            );
            api.objects.create("pods", pod)?;
        }
        for pod in pods.iter().skip(usize::try_from(wanted)?) {
            mark_deleted(api, pod.clone())?;
        }
        let ready = pods.iter().filter(|pod| is_pod_ready(pod)).count();
        deployment["status"] = json!({
            "replicas": there, "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": there,
        });
        api.objects.update("deployments", deployment)?;
    }
    Ok(())
}

fn keep_daemon_sets(api: &mut Api) -> Result<()> {
    for set in owned(api, "daemonsets") {
        let pods = pods_of(api, &set);
        for node in owned(api, "nodes") {
            let node = name(&node);
            if !pods.iter().any(|pod| pod["spec"]["nodeName"] == node) {
                let own = name(&set);
                let pod_name = format!("{own}-{}", suffix()?);
                let pod = pod_from(&set, &pod_name, "DaemonSet", own, Some(node));
                api.objects.create("pods", pod)?;
            }
        }
    }
    Ok(())
}

fn pod_from(owner: &Value, name: &str, kind: &str, owner_name: &str, node: Option<&str>) -> Value {
    let template = &owner["spec"]["template"];
    let mut pod = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": template["metadata"],
        "spec": template["spec"],
        "status": { "phase": "Pending", "qosClass": "BestEffort" },
    });
    if !pod["metadata"].is_object() {
        pod["metadata"] = json!({});
    }
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = owner["metadata"]["namespace"].clone();
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": kind, "name": owner_name, "uid": owner["metadata"]["uid"], "controller": true,
    }]);
    if let Some(node) = node {
        pod["spec"]["nodeName"] = json!(node);
    }
    pod
}

/// As Kubernetes names pods: five letters at the end.
fn suffix() -> Result<String> {
    Ok(token::random()?.chars().take(5).collect())
}

fn is_pod_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Pods without a node go to the node that is ready, takes them, and has the fewest.
fn schedule(api: &mut Api) -> Result<()> {
    for mut pod in owned(api, "pods") {
        if !pod["spec"]["nodeName"].is_null() || !pod["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        let load = |node: &&Value| {
            let pods = api.objects.list("pods", None);
            let node = objects::name(node);
            pods.iter()
                .filter(|pod| pod["spec"]["nodeName"] == node)
                .count()
        };
        let nodes = api.objects.list("nodes", None);
        let fitting = nodes
            .into_iter()
            .filter(|node| is_ready(node) && tolerates(&pod, node));
        let Some(node) = fitting.min_by_key(load).map(|node| name(node).to_owned()) else {
            continue;
        };
        pod["spec"]["nodeName"] = json!(node);
        api.objects.update("pods", pod)?;
    }
    Ok(())
}

fn tolerates(pod: &Value, node: &Value) -> bool {
    let tolerations = pod["spec"]["tolerations"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let taints = node["spec"]["taints"].as_array();
    taints.into_iter().flatten().all(|taint| {
        taint["effect"] == "PreferNoSchedule"
            || tolerations
                .iter()
                .any(|toleration| matches(toleration, taint))
    })
}

fn matches(toleration: &Value, taint: &Value) -> bool {
    let effect = toleration["effect"].is_null() || toleration["effect"] == taint["effect"];
    let exists = toleration["operator"] == "Exists";
    let key = (exists && toleration["key"].is_null()) || toleration["key"] == taint["key"];
    let value = |of: &Value| of["value"].as_str().unwrap_or_default().to_owned();
    effect && key && (exists || value(toleration) == value(taint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taint_keeps_off_the_pods_that_do_not_tolerate_it() {
        let node = json!({ "spec": { "taints": [
            { "key": "dedicated", "value": "db", "effect": "NoSchedule" },
            { "key": "slow", "effect": "PreferNoSchedule" },
        ] } });
        let pod = |tolerations: Value| json!({ "spec": { "tolerations": tolerations } });
        assert!(!tolerates(&json!({}), &node));
        assert!(tolerates(
            &pod(json!([{ "key": "dedicated", "value": "db" }])),
            &node
        ));
        assert!(!tolerates(
            &pod(json!([{ "key": "dedicated", "value": "web" }])),
            &node
        ));
        assert!(tolerates(&pod(json!([{ "operator": "Exists" }])), &node));
        assert!(!tolerates(
            &pod(json!([{ "operator": "Exists", "effect": "NoExecute" }])),
            &node
        ));
        assert!(tolerates(&json!({}), &json!({ "spec": {} })));
    }

    #[test]
    fn a_cordoned_node_gets_the_taint_of_kubernetes_and_loses_it() {
        let mut node = json!({ "spec": {} });
        set_taint(
            &mut node,
            "node.kubernetes.io/unschedulable",
            "NoSchedule",
            true,
        );
        set_taint(
            &mut node,
            "node.kubernetes.io/unschedulable",
            "NoSchedule",
            true,
        );
        assert_eq!(node["spec"]["taints"].as_array().unwrap().len(), 1);
        set_taint(
            &mut node,
            "node.kubernetes.io/unschedulable",
            "NoSchedule",
            false,
        );
        assert_eq!(node, json!({ "spec": {} }));
    }
}
