//! Dead containers and sandboxes, cleaned up as lazily as by the kubelet: of each container of a live pod the newest dead
//! one stays, and a sandbox that is the newest of its pod or still has containers stays with it.

use std::collections::{BTreeMap, BTreeSet};

use super::{CONTAINER_NAME, Found, Kubelet, POD_UID};
use crate::cri::{CONTAINER_RUNNING, Container, PodSandbox};
use crate::log;

impl Kubelet {
    /// `known` are the uids of the pods that this node has.
    pub(super) async fn collect_garbage(&self, found: &Found, known: &BTreeSet<String>) {
        let mut removed = BTreeSet::new();
        for container in dead_containers(&found.containers, known) {
            match self.cri.remove_container(&container.id).await {
                Ok(()) => {
                    removed.insert(container.id.clone());
                }
                Err(error) => {
                    let file = "kuberuntime_gc.go:150";
                    let text = format!("containerID={:?} {error:#}", container.id);
                    log::kubelet_error(file, "Failed to remove container", text, "");
                }
            }
        }
        let left: Vec<&Container> = found
            .containers
            .iter()
            .filter(|container| !removed.contains(&container.id))
            .collect();
        for sandbox in dead_sandboxes(&found.sandboxes, &left, known) {
            // In case nobody has done so.
            if !self.stop(sandbox).await {
                continue;
            }
            if let Err(error) = self.cri.remove_sandbox(&sandbox.id).await {
                let pod = sandbox.pod();
                log::kubelet_error(
                    "kuberuntime_gc.go:180",
                    "Failed to remove sandbox",
                    format!("sandboxID={:?} {error:#}", sandbox.id),
                    &format!("{}/{}", pod.namespace, pod.name),
                );
            }
        }
    }
}

fn dead_containers<'a>(all: &'a [Container], known: &BTreeSet<String>) -> Vec<&'a Container> {
    let mut units: BTreeMap<(&str, &str), Vec<&Container>> = BTreeMap::new();
    for container in all {
        let label = |key: &str| container.labels.get(key).map_or("", String::as_str);
        if container.state != CONTAINER_RUNNING {
            let unit = (label(POD_UID), label(CONTAINER_NAME));
            units.entry(unit).or_default().push(container);
        }
    }
    let mut dead = Vec::new();
    for ((uid, _), mut containers) in units {
        containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        let kept = usize::from(known.contains(uid));
        dead.extend(containers.into_iter().skip(kept));
    }
    dead
}

fn dead_sandboxes<'a>(
    all: &'a [PodSandbox],
    containers: &[&Container],
    known: &BTreeSet<String>,
) -> Vec<&'a PodSandbox> {
    let mut pods: BTreeMap<String, Vec<&PodSandbox>> = BTreeMap::new();
    for sandbox in all {
        pods.entry(sandbox.pod().uid).or_default().push(sandbox);
    }
    let mut dead = Vec::new();
    for (uid, mut sandboxes) in pods {
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
        let kept = usize::from(known.contains(&uid));
        dead.extend(sandboxes.into_iter().skip(kept).filter(|sandbox| {
            let used = containers
                .iter()
                .any(|container| container.sandbox == sandbox.id);
            !sandbox.is_ready() && !used
        }));
    }
    dead
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::{PodSandboxMetadata, SANDBOX_NOTREADY};

    fn container(id: &str, uid: &str, sandbox: &str, created_at: i64) -> Container {
        Container {
            id: id.into(),
            sandbox: sandbox.into(),
            created_at,
            state: 2,
            labels: [
                (POD_UID.into(), uid.into()),
                (CONTAINER_NAME.into(), "c".into()),
            ]
            .into(),
            ..Container::default()
        }
    }

    fn sandbox(id: &str, uid: &str, created_at: i64) -> PodSandbox {
        PodSandbox {
            id: id.into(),
            metadata: Some(PodSandboxMetadata {
                uid: uid.into(),
                ..PodSandboxMetadata::default()
            }),
            state: SANDBOX_NOTREADY,
            created_at,
            ..PodSandbox::default()
        }
    }

    #[test]
    fn the_newest_dead_ones_of_a_live_pod_stay() {
        let known: BTreeSet<String> = ["live".to_owned()].into();
        let containers = [
            container("old", "live", "first", 1),
            container("new", "live", "second", 2),
            container("gone", "gone", "third", 3),
        ];
        let dead = dead_containers(&containers, &known);
        let ids: Vec<&str> = dead.iter().map(|container| container.id.as_str()).collect();
        assert_eq!(ids, ["gone", "old"]);

        let sandboxes = [
            sandbox("first", "live", 1),
            sandbox("second", "live", 2),
            sandbox("fourth", "live", 4),
            sandbox("third", "gone", 3),
        ];
        let left = [&containers[1]];
        let dead = dead_sandboxes(&sandboxes, &left, &known);
        let ids: Vec<&str> = dead.iter().map(|sandbox| sandbox.id.as_str()).collect();
        assert_eq!(ids, ["third", "first"]);
    }
}
