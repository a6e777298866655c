//! `k3s crictl`: the verbs that selfheal uses, with crictl's output.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::cri::{CONTAINER_RUNNING, Container, Cri, Image, PodSandbox};
use crate::kubectl::arguments::Arguments;
use crate::kubectl::get::print_columns;
use crate::{log, place};

const VALUES: &[&str] = &[
    "timeout",
    "t",
    "runtime-endpoint",
    "r",
    "image-endpoint",
    "i",
    "config",
    "c",
    "state",
    "s",
    "output",
    "o",
    "id",
    "name",
    "namespace",
    "pod",
    "p",
    "label",
    "last",
    "n",
];

pub async fn run(arguments: &[String]) -> Result<ExitCode> {
    match verb(&Arguments::parse(arguments, VALUES)?).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            log::say("fatal", format!("{error:#}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn verb(arguments: &Arguments) -> Result<()> {
    let limit = arguments
        .value(&["timeout", "t"])
        .map_or(Ok(2.0), seconds)?;
    let cri = Cri::new(place::CONTAINERD_SOCKET, Duration::from_secs_f64(limit))?;
    let (verb, names) = arguments
        .words
        .split_first()
        .context("crictl: which verb?")?;
    match verb.as_str() {
        "version" => {
            let version = cri.version().await?;
            println!(
                "Version:  {}\nRuntimeName:  {}\nRuntimeVersion:  {}\nRuntimeApiVersion:  {}",
                version.version,
                version.runtime_name,
                version.runtime_version,
                version.runtime_api_version
            );
        }
        "info" => {
            let conditions = cri
                .conditions()
                .await
                .context("getting status of runtime")?;
            let conditions: Vec<Value> = conditions
                .iter()
                .map(|condition| {
                    json!({
                        "message": condition.message, "reason": condition.reason, "status": condition.status,
                        "type": condition.kind,
                    })
                })
                .collect();
            print(&json!({ "status": { "conditions": conditions } }))?;
        }
        "pods" => pods(&cri, arguments).await?,
        "ps" => containers(&cri, arguments).await?,
        "images" | "image" | "img" => images(&cri, arguments).await?,
        "stopp" => {
            for id in names {
                cri.stop_sandbox(id)
                    .await
                    .with_context(|| format!("stopping the pod sandbox {id:?}"))?;
                println!("Stopped sandbox {id}");
            }
        }
        "rmp" => remove_pods(&cri, arguments, names).await?,
        "stop" => {
            for id in names {
                cri.stop_container(id, 0)
                    .await
                    .with_context(|| format!("stopping the container {id:?}"))?;
                println!("{id}");
            }
        }
        "rm" => {
            for id in names {
                if arguments.is_on(&["force", "f"]) {
                    cri.stop_container(id, 0).await?;
                }
                cri.remove_container(id)
                    .await
                    .with_context(|| format!("removing container {id:?}"))?;
                println!("{id}");
            }
        }
        _ => bail!("the double's crictl has no verb {verb:?}"),
    }
    Ok(())
}

fn seconds(text: &str) -> Result<f64> {
    let whole = text.strip_suffix("ms").map(|text| (text, 0.001));
    let whole = whole.or_else(|| text.strip_suffix('s').map(|text| (text, 1.0)));
    let whole = whole.or_else(|| text.strip_suffix('m').map(|text| (text, 60.0)));
    let (number, factor) = whole.unwrap_or((text, 1.0));
    let number: f64 = number
        .parse()
        .map_err(|_| anyhow!("invalid duration {text:?}"))?;
    Ok(number * factor)
}

fn print(value: &Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

async fn remove_pods(cri: &Cri, arguments: &Arguments, names: &[String]) -> Result<()> {
    let force = arguments.is_on(&["force", "f"]);
    let sandboxes = cri.sandboxes().await?;
    let names: Vec<String> = if arguments.is_on(&["all", "a"]) {
        sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect()
    } else {
        names.to_vec()
    };
    let mut failed = None;
    for id in names {
        let sandbox = sandboxes.iter().find(|sandbox| sandbox.id.starts_with(&id));
        // crictl asks first: what is ready is not removed unless by force.
        let removed = match sandbox {
            Some(sandbox) if sandbox.is_ready() && !force => Err(anyhow!(
                "pod sandbox {id:?} is running, please stop it first"
            )),
            Some(sandbox) if force => match cri.stop_sandbox(&sandbox.id).await {
                Ok(()) => cri.remove_sandbox(&id).await,
                Err(error) => Err(error).context("stopping the pod sandbox failed"),
            },
            _ => cri.remove_sandbox(&id).await,
        };
        match removed {
            Ok(()) => println!("Removed sandbox {id}"),
            Err(error) => failed = Some(error.context(format!("removing the pod sandbox {id:?}"))),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn sandbox_json(sandbox: &PodSandbox) -> Value {
    let pod = sandbox.pod();
    json!({
        "id": sandbox.id,
        "metadata": { "name": pod.name, "uid": pod.uid, "namespace": pod.namespace, "attempt": pod.attempt },
        "state": if sandbox.is_ready() { "SANDBOX_READY" } else { "SANDBOX_NOTREADY" },
        "createdAt": sandbox.created_at.to_string(),
        "labels": sandbox.labels,
        "annotations": sandbox.annotations,
        "runtimeHandler": sandbox.runtime_handler,
    })
}

async fn pods(cri: &Cri, arguments: &Arguments) -> Result<()> {
    let mut all = cri.sandboxes().await.context("listing pod sandboxes")?;
    all.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
    if let Some(state) = arguments.value(&["state", "s"]) {
        let ready = match state.to_lowercase().as_str() {
            "ready" => true,
            "notready" => false,
            _ => bail!("--state should be ready or notready"),
        };
        all.retain(|sandbox| sandbox.is_ready() == ready);
    }
    if let Some(id) = arguments.value(&["id"]) {
        all.retain(|sandbox| sandbox.id.starts_with(id));
    }
    if let Some(name) = arguments.value(&["name"]) {
        all.retain(|sandbox| sandbox.pod().name.contains(name));
    }
    if let Some(namespace) = arguments.value(&["namespace"]) {
        all.retain(|sandbox| sandbox.pod().namespace == namespace);
    }
    if arguments.is_on(&["quiet", "q"]) {
        all.iter().for_each(|sandbox| println!("{}", sandbox.id));
    } else if arguments.value(&["output", "o"]) == Some("json") {
        let items: Vec<Value> = all.iter().map(sandbox_json).collect();
        print(&json!({ "items": items }))?;
    } else {
        let mut lines = vec![head("POD ID,CREATED,STATE,NAME,NAMESPACE,ATTEMPT,RUNTIME")];
        for sandbox in all {
            let pod = sandbox.pod();
            let state = if sandbox.is_ready() {
                "Ready"
            } else {
                "NotReady"
            };
            lines.push(vec![
                sandbox.id.get(..13).unwrap_or(&sandbox.id).to_owned(),
                ago(sandbox.created_at),
                state.to_owned(),
                pod.name,
                pod.namespace,
                pod.attempt.to_string(),
                "(default)".to_owned(),
            ]);
        }
        print_columns(&lines);
    }
    Ok(())
}

fn head(names: &str) -> Vec<String> {
    names.split(',').map(str::to_owned).collect()
}

fn ago(nanoseconds: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    match now - nanoseconds / 1_000_000_000 {
        seconds if seconds < 120 => format!("{seconds} seconds ago"),
        seconds if seconds < 7200 => format!("{} minutes ago", seconds / 60),
        seconds if seconds < 172_800 => format!("{} hours ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

fn container_state(container: &Container) -> &'static str {
    match container.state {
        0 => "CONTAINER_CREATED",
        CONTAINER_RUNNING => "CONTAINER_RUNNING",
        2 => "CONTAINER_EXITED",
        _ => "CONTAINER_UNKNOWN",
    }
}

async fn containers(cri: &Cri, arguments: &Arguments) -> Result<()> {
    let mut all = cri.containers().await.context("listing containers")?;
    all.sort_by_key(|container| std::cmp::Reverse(container.created_at));
    let id = arguments.value(&["id"]);
    if !arguments.is_on(&["all", "a"]) {
        all.retain(|container| container.state == CONTAINER_RUNNING);
    }
    if let Some(id) = id {
        all.retain(|container| container.id.starts_with(id));
    }
    if let Some(pod) = arguments.value(&["pod", "p"]) {
        all.retain(|container| container.sandbox.starts_with(pod));
    }
    let short = |id: &str| match arguments.is_on(&["no-trunc"]) {
        true => id.to_owned(),
        false => id.get(..13).unwrap_or(id).to_owned(),
    };
    if arguments.is_on(&["quiet", "q"]) {
        // crictl cuts nothing short here.
        all.iter()
            .for_each(|container| println!("{}", container.id));
    } else if arguments.value(&["output", "o"]) == Some("json") {
        let items: Vec<Value> = all
            .iter()
            .map(|container| {
                let metadata = container.metadata.clone().unwrap_or_default();
                json!({
                    "id": container.id, "podSandboxId": container.sandbox, "state": container_state(container),
                    "metadata": { "name": metadata.name, "attempt": metadata.attempt },
                    "image": { "image": container.image.clone().unwrap_or_default().image },
                    "imageRef": container.image_ref, "createdAt": container.created_at.to_string(),
                    "labels": container.labels, "annotations": container.annotations,
                })
            })
            .collect();
        print(&json!({ "containers": items }))?;
    } else {
        let mut lines = vec![head("CONTAINER,IMAGE,CREATED,STATE,NAME,ATTEMPT,POD ID")];
        for container in all {
            let metadata = container.metadata.clone().unwrap_or_default();
            let state = container_state(&container).trim_start_matches("CONTAINER_");
            let image = container.image_ref.trim_start_matches("sha256:");
            lines.push(vec![
                short(&container.id),
                image.get(..13).unwrap_or(image).to_owned(),
                ago(container.created_at),
                state.to_owned(),
                metadata.name,
                metadata.attempt.to_string(),
                short(&container.sandbox),
            ]);
        }
        print_columns(&lines);
    }
    Ok(())
}

async fn images(cri: &Cri, arguments: &Arguments) -> Result<()> {
    let all = cri.images().await.context("listing images")?;
    let shown = |image: &Image| {
        json!({
            "id": image.id, "repoTags": image.repo_tags, "repoDigests": image.repo_digests,
            "size": image.size.to_string(),
        })
    };
    if arguments.is_on(&["quiet", "q"]) {
        all.iter().for_each(|image| println!("{}", image.id));
    } else if arguments.value(&["output", "o"]) == Some("json") {
        print(&json!({ "images": all.iter().map(shown).collect::<Vec<_>>() }))?;
    } else {
        println!(
            "IMAGE                                   TAG                 IMAGE ID            SIZE"
        );
        for image in &all {
            let tag = image.repo_tags.first().map_or("<none>", String::as_str);
            let (name, tag) = tag.rsplit_once(':').unwrap_or((tag, "<none>"));
            let id = image.id.trim_start_matches("sha256:");
            println!(
                "{name:<40}{tag:<20}{:<20}{}",
                id.get(..13).unwrap_or(id),
                image.size
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn time_outs_are_those_of_go() {
        assert_eq!(seconds("30s").unwrap(), 30.0);
        assert_eq!(seconds("1m").unwrap(), 60.0);
        assert_eq!(seconds("500ms").unwrap(), 0.5);
        assert!(seconds("soon").is_err());
    }
}
