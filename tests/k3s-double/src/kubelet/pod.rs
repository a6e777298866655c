//! One pod, brought to what the API says of it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use super::{CONTAINER_NAME, Found, Kubelet, POD_NAME, POD_NAMESPACE, POD_UID, attempt, uid};
use crate::api::objects::{name, namespace, now};
use crate::containerd::{self, PAUSE};
use crate::cri::{
    CONTAINER_RUNNING, ContainerConfig, ContainerMetadata, CreateContainerRequest, Empty,
    ImageSpec, LinuxPodSandboxConfig, PodSandbox, PodSandboxConfig, PodSandboxMetadata,
};
use crate::place;

/// Ended containers count as such after so many seconds.
const GRACE: i64 = 2;

impl Kubelet {
    pub(super) async fn sync(&self, pod: &Value, found: &Found) -> Result<()> {
        let sandboxes = found.sandboxes_of(uid(pod));
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            return self.end(pod, &sandboxes, found).await;
        }
        fs::create_dir_all(Path::new(place::PODS).join(uid(pod)).join("volumes"))?;
        let sandbox = match attempt::needed(self.minor, &sandboxes) {
            None => {
                let ready = sandboxes.iter().find(|sandbox| sandbox.is_ready());
                let ready = ready.context("a pod without a sandbox")?;
                (ready.id.clone(), ready.pod().attempt)
            }
            Some(attempt) => {
                self.stop_all(pod, &sandboxes).await?;
                (self.run_sandbox(pod, attempt).await?, attempt)
            }
        };
        let restarts = self.run_containers(pod, &sandbox, found).await?;
        self.report(pod, &sandbox.0, &restarts).await
    }

    /// The dead sandboxes of a pod are stopped before there is a new one. One that cannot be blocks the pod, for ever if
    /// need be: that is what a ghost does (lab.md §4).
    async fn stop_all(&self, pod: &Value, sandboxes: &[PodSandbox]) -> Result<()> {
        for sandbox in sandboxes {
            if let Err(error) = self.cri.stop_sandbox(&sandbox.id).await {
                self.event(
                    pod,
                    "FailedKillPod",
                    &format!("error killing pod: {error:#}"),
                )
                .await;
                return Err(anyhow!(
                    "failed to \"KillPodSandbox\" for \"{}\" with KillPodSandboxError: {:?}",
                    uid(pod),
                    format!("{error:#}")
                ));
            }
        }
        Ok(())
    }

    async fn run_sandbox(&self, pod: &Value, attempt: u32) -> Result<String> {
        match self.cri.run_sandbox(sandbox_config(pod, attempt)).await {
            Ok(id) => Ok(id),
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {error:#}");
                self.event(pod, "FailedCreatePodSandBox", &message).await;
                Err(anyhow!(
                    "failed to \"CreatePodSandbox\" for \"{}_{}({})\" with CreatePodSandboxError: {:?}",
                    name(pod),
                    namespace(pod),
                    uid(pod),
                    format!("{error:#}")
                ))
            }
        }
    }

    /// Runs the containers that do not run; returns how often each was restarted, by its name.
    async fn run_containers(
        &self,
        pod: &Value,
        (sandbox, attempt): &(String, u32),
        found: &Found,
    ) -> Result<Vec<(String, u32)>> {
        let containers = found.containers_of(uid(pod));
        let mut restarts = Vec::new();
        for spec in pod["spec"]["containers"].as_array().into_iter().flatten() {
            let own = spec["name"].as_str().unwrap_or("pause");
            let known = || {
                let all = containers.iter();
                all.filter(|container| {
                    container
                        .labels
                        .get(CONTAINER_NAME)
                        .is_some_and(|of| of == own)
                })
            };
            let count = |container: &crate::cri::Container| {
                container.metadata.clone().unwrap_or_default().attempt
            };
            let running = known().find(|container| {
                container.state == CONTAINER_RUNNING && container.sandbox == *sandbox
            });
            if let Some(running) = running {
                restarts.push((own.to_owned(), count(running)));
                continue;
            }
            let next = known().map(count).max().map_or(0, |latest| latest + 1);
            let mut labels = labels(pod);
            labels.insert(CONTAINER_NAME.to_owned(), own.to_owned());
            let config = ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: own.to_owned(),
                    attempt: next,
                }),
                image: Some(ImageSpec {
                    image: PAUSE.to_owned(),
                }),
                labels,
                log_path: format!("{own}/{next}.log"),
                linux: Some(Empty {}),
            };
            let question = CreateContainerRequest {
                sandbox: sandbox.clone(),
                config: Some(config),
                sandbox_config: Some(sandbox_config(pod, *attempt)),
            };
            let started = async {
                let id = self.cri.create_container(question).await?;
                self.cri.start_container(&id).await
            };
            started.await.with_context(|| {
                format!("failed to \"StartContainer\" for {own:?} with CreateContainerError")
            })?;
            restarts.push((own.to_owned(), next));
        }
        Ok(restarts)
    }

    async fn report(&self, pod: &Value, sandbox: &str, restarts: &[(String, u32)]) -> Result<()> {
        // A new sandbox means new containers, so that the counts tell of it.
        let running = pod["status"]["phase"] == "Running";
        let same = pod["status"]["containerStatuses"]
            .as_array()
            .is_some_and(|statuses| {
                statuses.len() == restarts.len()
                    && statuses
                        .iter()
                        .zip(restarts)
                        .all(|(status, (name, count))| {
                            status["name"] == name.as_str() && status["restartCount"] == *count
                        })
            });
        if running && same {
            return Ok(());
        }
        let ip = self.cri.sandbox_ip(sandbox).await?;
        let since = now();
        let containers: Vec<Value> = restarts
            .iter()
            .map(|(name, count)| {
                json!({
                    "name": name, "ready": true, "started": true, "restartCount": count, "image": PAUSE,
                    "state": { "running": { "startedAt": since } },
                })
            })
            .collect();
        let conditions: Vec<Value> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
            .iter()
            .map(|kind| json!({ "type": kind, "status": "True", "lastTransitionTime": since }))
            .collect();
        let status = json!({ "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }], "hostIP": self.address,
            "startTime": pod["status"]["startTime"].as_str().unwrap_or(&since),
            "conditions": conditions, "containerStatuses": containers,
        } });
        self.client.patch(&path(pod), &status).await?;
        Ok(())
    }

    /// Ends a pod that was deleted, and says so.
    async fn end(&self, pod: &Value, sandboxes: &[PodSandbox], found: &Found) -> Result<()> {
        for container in found.containers_of(uid(pod)) {
            if container.state == CONTAINER_RUNNING {
                self.cri.stop_container(&container.id, GRACE).await?;
            }
        }
        self.stop_all(pod, sandboxes).await?;
        for sandbox in sandboxes {
            self.cri.remove_sandbox(&sandbox.id).await?;
        }
        let folder = Path::new(place::PODS).join(uid(pod));
        let removed = fs::remove_dir_all(&folder);
        ensure!(
            removed.is_ok() || !folder.exists(),
            "cannot remove {}",
            folder.display()
        );
        self.client
            .delete(&format!("{}?gracePeriodSeconds=0", path(pod)))
            .await?;
        Ok(())
    }
}

fn path(pod: &Value) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", namespace(pod), name(pod))
}

fn labels(pod: &Value) -> HashMap<String, String> {
    [
        (POD_NAME, name(pod)),
        (POD_NAMESPACE, namespace(pod)),
        (POD_UID, uid(pod)),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn sandbox_config(pod: &Value, attempt: u32) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name(pod).to_owned(),
            uid: uid(pod).to_owned(),
            namespace: namespace(pod).to_owned(),
            attempt,
        }),
        hostname: name(pod).to_owned(),
        log_directory: format!(
            "/var/log/pods/{}_{}_{}",
            namespace(pod),
            name(pod),
            uid(pod)
        ),
        labels: labels(pod),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: containerd::cgroup_parent().to_owned(),
        }),
    }
}
