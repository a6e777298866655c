//! What servers and agents have in common: a node of the cluster, with containerd and a kubelet.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::bundle::Bundle;
use crate::client::{Client, Failure};
use crate::config::{Config, Role};
use crate::kubelet::Kubelet;
use crate::{certificates, containerd, durable, labels, log, place, preflight, token};

/// The cluster that a node belongs to.
pub struct Membership {
    pub client: Client,
    pub ca: Vec<u8>,
}

/// Tells systemd that it has started.
pub fn notify_ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        log::warn(format!("cannot tell systemd: {error}"));
    }
}

/// Joins, starts containerd and the kubelet, and keeps them until SIGTERM.
pub async fn run(
    config: &Config,
    bundle: &Bundle,
    role: Role,
    membership: Membership,
) -> Result<()> {
    let labels = labels::parse(config.all("node-label"))?;
    preflight::check_interface(config)?;
    let name = name(config)?;
    let address = address(config, &membership)?;
    let password = password()?;
    let object = object(config, role, &name, &address, &labels)?;
    let question = json!({ "node": name, "password": password, "object": object });
    let mut stop = std::pin::pin!(terminated());
    let node = tokio::select! {
        node = join(&membership.client, &question) => node,
        () = &mut stop => return Ok(()),
    };
    certificates::prepare_agent(&membership.ca)?;
    preflight::tune_kernel(config)?;
    if let Some(subnet) = node["spec"]["podCIDR"].as_str() {
        containerd::write_network(subnet)?;
    }
    let (mut child, cri) = tokio::select! {
        started = containerd::start() => started?,
        () = &mut stop => return Ok(()),
    };
    let runtime = cri.version().await?.runtime_version;
    let kubelet = Kubelet::new(cri, membership.client, name, address, bundle.minor());
    kubelet.start(info(&bundle.version, &runtime));
    if role == Role::Agent {
        log::info("k3s agent is up and running");
        notify_ready();
    }
    tokio::select! {
        status = child.wait() => bail!("containerd exited: {}; its log is {}", status?, place::CONTAINERD_LOG),
        () = &mut stop => {}
    }
    end(&mut child).await
}

/// Until somebody wants it to end.
async fn terminated() {
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Ends containerd; its shims, and with them the pods, live on.
async fn end(child: &mut Child) -> Result<()> {
    log::info("Shutting down: pods are left alone");
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    if tokio::time::timeout(Duration::from_secs(5), child.wait())
        .await
        .is_err()
    {
        child.kill().await?;
    }
    Ok(())
}

/// Asks until the server takes this node, which may be for ever (domain.md §4.4).
async fn join(client: &Client, question: &Value) -> Value {
    loop {
        let url = format!("https://{}/v1-k3s/config", client.address);
        let why = match client.post("/v1-k3s/join", question).await {
            Ok(node) => return node,
            Err(error) if error.is(StatusCode::FORBIDDEN) => format!(
                "Node password rejected, duplicate hostname or contents of '{}' may not match server node-passwd entry, \
                 try enabling a unique node name with the --with-node-id flag",
                place::NODE_PASSWORD
            ),
            Err(Failure::Refused { code, .. }) => {
                format!("failed to retrieve configuration from server: {url}: {code}")
            }
            Err(error) => {
                format!("failed to retrieve configuration from server: Get \"{url}\": {error}")
            }
        };
        log::info(format!(
            "Waiting to retrieve agent configuration; server is not ready: {why}"
        ));
        sleep(Duration::from_secs(5)).await;
    }
}

fn name(config: &Config) -> Result<String> {
    Ok(match config.last("node-name") {
        Some(name) => name.to_owned(),
        None => read("/proc/sys/kernel/hostname").context("cannot read the host name")?,
    }
    .to_lowercase())
}

/// The address that others reach it at: the one of the interface that leads to the server.
fn address(config: &Config, membership: &Membership) -> Result<String> {
    if let Some(address) = config.last("node-ip") {
        return Ok(address.split(',').next().unwrap_or(address).to_owned());
    }
    let mut far = membership.client.address;
    if far.ip().is_loopback() {
        far = ([192, 0, 2, 1], 9).into();
    }
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket
        .connect(far)
        .context("no default routes found in \"/proc/net/route\" or \"/proc/net/ipv6_route\"")?;
    Ok(socket.local_addr()?.ip().to_string())
}

/// Random, made once; the server remembers its hash.
fn password() -> Result<String> {
    if let Some(password) = read(place::NODE_PASSWORD) {
        return Ok(password);
    }
    let password = token::random()?;
    durable::write(place::NODE_PASSWORD, format!("{password}\n"), 0o600)?;
    Ok(password)
}

fn object(
    config: &Config,
    role: Role,
    name: &str,
    address: &str,
    own: &[(String, String)],
) -> Result<Value> {
    let mut labels = json!({
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/instance-type": "k3s",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": "k3s",
    });
    if role == Role::Server {
        labels["node-role.kubernetes.io/control-plane"] = json!("true");
        if config.is_on("cluster-init") || config.last("server").is_some() {
            labels["node-role.kubernetes.io/etcd"] = json!("true");
        }
    }
    for (key, value) in own {
        labels[key.as_str()] = json!(value);
    }
    let mut spec = json!({});
    let mut taints = Vec::new();
    for taint in config
        .all("node-taint")
        .iter()
        .flat_map(|all| all.split(','))
    {
        let (key, value, effect) = labels::parse_taint(taint)?;
        let mut taint = json!({ "key": key, "effect": effect });
        if let Some(value) = value {
            taint["value"] = json!(value);
        }
        taints.push(taint);
    }
    if !taints.is_empty() {
        spec["taints"] = json!(taints);
    }
    Ok(json!({
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {
                "k3s.io/hostname": name,
                "k3s.io/internal-ip": address,
                "k3s.io/node-args": format!("[{:?}]", role.name()),
                "node.alpha.kubernetes.io/ttl": "0",
            },
        },
        "spec": spec,
        "status": {},
    }))
}

fn info(version: &str, runtime: &str) -> Value {
    let os = read("/etc/os-release").unwrap_or_default();
    let os = os
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or_default()
        .trim_matches('"');
    json!({
        "kubeletVersion": version,
        "kubeProxyVersion": "",
        "containerRuntimeVersion": format!("containerd://{}", runtime.split(['~', '-']).next().unwrap_or_default()),
        "kernelVersion": read("/proc/sys/kernel/osrelease").unwrap_or_default(),
        "osImage": os,
        "operatingSystem": "linux",
        "architecture": "amd64",
        "bootID": read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
        "machineID": read("/etc/machine-id").unwrap_or_default(),
        "systemUUID": read("/etc/machine-id").unwrap_or_default(),
    })
}

fn read(file: impl AsRef<Path>) -> Option<String> {
    Some(fs::read_to_string(file).ok()?.trim().to_owned())
}
