//! `kubectl drain`.

use std::time::Duration;

use anyhow::{Result, bail};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Kubectl, resource, wait};
use crate::api::objects::{name, namespace};
use crate::client::Failure;

impl Kubectl<'_> {
    pub(super) async fn drain(&self, words: &[String]) -> Result<()> {
        let [node] = words else {
            bail!("error: USAGE: drain NODE [flags]");
        };
        let kind = resource("node")?;
        let node = node.trim_start_matches("node/");
        let found = self.client.get(&self.path(kind, "", node)).await?;
        self.set_cordon(&found, true).await?;

        let list = self
            .client
            .get(&format!("/api/v1/pods?fieldSelector=spec.nodeName={node}"))
            .await?;
        let mut pods = Vec::new();
        let mut problems = Vec::new();
        let mut ignored = Vec::new();
        for pod in list["items"].as_array().into_iter().flatten() {
            let title = format!("{}/{}", namespace(pod), name(pod));
            match obstacle(pod, |flag| self.arguments.is_on(&[flag])) {
                Obstacle::None => pods.push(pod.clone()),
                Obstacle::Ignored => ignored.push(title),
                Obstacle::Refused(why) => problems.push(format!("cannot delete {why}: {title}")),
            }
        }
        if !problems.is_empty() {
            bail!(
                "error: unable to drain node {node:?} due to error: [{}], continuing command...\nThere are pending nodes to be \
                 drained:\n {node}\n{}",
                problems.join(", "),
                problems.join("\n")
            );
        }
        if !ignored.is_empty() {
            eprintln!(
                "Warning: ignoring DaemonSet-managed Pods: {}",
                ignored.join(", ")
            );
        }
        let limit = self
            .arguments
            .value(&["timeout"])
            .map(wait::duration)
            .transpose()?;
        let deadline = limit
            .filter(|limit| !limit.is_zero())
            .map(|limit| (Instant::now() + limit, limit));
        if let Err(why) = self.evict(&pods, deadline).await? {
            eprintln!(
                "There are pending nodes to be drained:\n {node}\nerror: unable to drain node {node:?} due to error: {why}, \
                 continuing command..."
            );
            bail!("{why}");
        }
        println!("node/{node} drained");
        Ok(())
    }

    /// Evicts them all and waits until they are gone; or why not.
    async fn evict(
        &self,
        pods: &[Value],
        deadline: Option<(Instant, Duration)>,
    ) -> Result<Result<(), String>> {
        let kind = resource("pod")?;
        let mut evicted = vec![false; pods.len()];
        for pod in pods {
            println!("evicting pod {}/{}", namespace(pod), name(pod));
        }
        loop {
            let mut left = None;
            for (pod, evicted) in pods.iter().zip(&mut evicted) {
                if !*evicted {
                    let path = format!("{}/eviction", self.path_of(kind, pod));
                    match self.client.post(&path, &json!({})).await {
                        Ok(_) => *evicted = true,
                        Err(failure) if failure.is(StatusCode::NOT_FOUND) => *evicted = true,
                        Err(Failure::Refused { code, message, .. })
                            if code == StatusCode::TOO_MANY_REQUESTS =>
                        {
                            eprintln!(
                                "error when evicting pods/{:?} -n {:?} (will retry after 5s): {message}",
                                name(pod),
                                namespace(pod)
                            );
                        }
                        Err(failure) => return Err(failure.into()),
                    }
                }
                if self.exists(kind, pod).await? {
                    left = Some(pod);
                } else if *evicted {
                    continue;
                }
            }
            let Some(pod) = left else {
                return Ok(Ok(()));
            };
            if let Some((deadline, limit)) = deadline
                && Instant::now() > deadline
            {
                return Ok(Err(format!(
                    "error when evicting pods/{:?} -n {:?}: global timeout reached: {}s",
                    name(pod),
                    namespace(pod),
                    limit.as_secs()
                )));
            }
            let pause = if evicted.iter().all(|done| *done) {
                300
            } else {
                5000
            };
            sleep(Duration::from_millis(pause)).await;
        }
    }
}

enum Obstacle {
    None,
    /// It stays, which is no reason not to go on.
    Ignored,
    Refused(&'static str),
}

fn obstacle(pod: &Value, is_on: impl Fn(&str) -> bool) -> Obstacle {
    let owner = &pod["metadata"]["ownerReferences"][0]["kind"];
    let of_daemon_set =
        owner == "DaemonSet" || pod["metadata"]["annotations"]["selfheal.test/daemonset"] == "true";
    if of_daemon_set {
        return match is_on("ignore-daemonsets") {
            true => Obstacle::Ignored,
            false => {
                Obstacle::Refused("DaemonSet-managed Pods (use --ignore-daemonsets to ignore)")
            }
        };
    }
    let volumes = pod["spec"]["volumes"].as_array();
    let local = volumes
        .into_iter()
        .flatten()
        .any(|volume| volume["emptyDir"].is_object());
    if local && !is_on("delete-emptydir-data") {
        return Obstacle::Refused(
            "Pods with local storage (use --delete-emptydir-data to override)",
        );
    }
    if owner.is_null() && !is_on("force") {
        return Obstacle::Refused("Pods that declare no controller (use --force to override)");
    }
    Obstacle::None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_lost_stands_in_the_way() {
        let owned = json!({ "metadata": { "ownerReferences": [{ "kind": "ReplicaSet" }] } });
        assert!(matches!(obstacle(&owned, |_| false), Obstacle::None));
        assert!(matches!(
            obstacle(&json!({}), |_| false),
            Obstacle::Refused(_)
        ));
        assert!(matches!(
            obstacle(&json!({}), |flag| flag == "force"),
            Obstacle::None
        ));
        let daemon =
            json!({ "metadata": { "annotations": { "selfheal.test/daemonset": "true" } } });
        assert!(matches!(obstacle(&daemon, |_| false), Obstacle::Refused(_)));
        assert!(matches!(obstacle(&daemon, |_| true), Obstacle::Ignored));
        let mut local = owned.clone();
        local["spec"] = json!({ "volumes": [{ "name": "a", "emptyDir": {} }] });
        assert!(matches!(obstacle(&local, |_| false), Obstacle::Refused(_)));
        assert!(matches!(
            obstacle(&local, |flag| flag == "delete-emptydir-data"),
            Obstacle::None
        ));
    }
}
