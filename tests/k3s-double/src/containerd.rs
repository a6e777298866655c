//! The real containerd as k3s's child: with k3s's paths, and dying with it, while the shims live on.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::cri::Cri;
use crate::{durable, log, place};

/// The only image there is: a static program that waits.
pub const PAUSE: &str = "docker.io/rancher/mirrored-pause:3.6";
/// The hidden command that becomes containerd.
pub const BECOME: &str = "become-containerd";

/// Starts it and waits until it answers. The thread that calls this must live as long as containerd.
pub async fn start() -> Result<(Child, Cri)> {
    durable::write(place::CONTAINERD_CONFIG, config(), 0o600)?;
    fs::create_dir_all(place::CNI_CONFIG)?;
    fs::create_dir_all(place::CONTAINERD_ROOT)?;
    fs::create_dir_all(place::CONTAINERD_STATE)?;
    log::info(format!(
        "Running containerd -c {} -a {} --state {} --root {}",
        place::CONTAINERD_CONFIG,
        place::CONTAINERD_SOCKET,
        place::CONTAINERD_STATE,
        place::CONTAINERD_ROOT
    ));
    let output = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(place::CONTAINERD_LOG)?;
    let mut child = tokio::process::Command::new("/proc/self/exe")
        .arg(BECOME)
        .env("PATH", path())
        .env_remove("NOTIFY_SOCKET")
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot start containerd")?;
    let cri = Cri::new(place::CONTAINERD_SOCKET, Duration::from_secs(10))?;
    let deadline = Instant::now() + Duration::from_secs(300);
    // While it recovers its sandboxes, which may take long, the CRI does not answer.
    while let Err(error) = cri.version().await {
        if let Some(status) = child.try_wait()? {
            bail!(
                "containerd exited: {status}; its log is {}",
                place::CONTAINERD_LOG
            );
        }
        ensure!(
            Instant::now() < deadline,
            "containerd does not answer: {error:#}"
        );
        sleep(Duration::from_millis(200)).await;
    }
    log::info("containerd is now running");
    import_pause(&cri).await?;
    Ok((child, cri))
}

/// Becomes containerd, in a process that its parent takes along when it dies.
pub fn become_containerd() -> Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // It may have died before that.
    ensure!(rustix::process::getppid() == parent, "k3s is gone already");
    let error = Command::new(format!("{}/containerd", place::TOOLS))
        .args([
            "-c",
            place::CONTAINERD_CONFIG,
            "-a",
            place::CONTAINERD_SOCKET,
        ])
        .args([
            "--state",
            place::CONTAINERD_STATE,
            "--root",
            place::CONTAINERD_ROOT,
        ])
        .exec();
    Err(error).context("cannot run containerd")
}

/// k3s's tools come first, in the folder of this very version: the shims that an upgrade leaves alone name it.
pub fn path() -> String {
    let tools = fs::canonicalize(place::TOOLS).unwrap_or_else(|_| place::TOOLS.into());
    let rest = std::env::var("PATH").unwrap_or_else(|_| "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    format!("{}:{rest}", tools.display())
}

/// `ctr` with k3s's socket, in the namespace of Kubernetes.
pub fn ctr() -> Command {
    let mut command = Command::new(format!("{}/ctr", place::TOOLS));
    command
        .env("CONTAINERD_ADDRESS", place::CONTAINERD_SOCKET)
        .env("CONTAINERD_NAMESPACE", "k8s.io")
        .env("PATH", path());
    command
}

/// Images never come from a network.
async fn import_pause(cri: &Cri) -> Result<()> {
    let present = cri
        .images()
        .await?
        .iter()
        .any(|image| image.repo_tags.iter().any(|tag| tag == PAUSE));
    if present {
        return Ok(());
    }
    let file = Path::new(place::CURRENT).join("images/pause.tar");
    log::info(format!("Importing images from {}", file.display()));
    let output = tokio::process::Command::from(ctr())
        .args(["images", "import"])
        .arg(&file)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "cannot import {}: {}",
        file.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Whether systemd makes the pods' cgroups: as with k3s, where it has started this.
fn by_systemd() -> bool {
    std::env::var_os("INVOCATION_ID").is_some()
}

/// The cgroup that pods are in.
pub fn cgroup_parent() -> &'static str {
    if by_systemd() {
        "kubepods.slice"
    } else {
        "/kubepods"
    }
}

fn config() -> String {
    format!(
        r#"# Written by k3s-double at each start.
version = 2

[plugins."io.containerd.internal.v1.opt"]
  path = "{agent}/containerd"

[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "10010"
  sandbox_image = "{PAUSE}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{tools}"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = {systemd}
"#,
        agent = place::AGENT,
        systemd = by_systemd(),
        tools = place::TOOLS,
        cni = place::CNI_CONFIG,
    )
}

/// The network of this node's pods. The file has flannel's name and the network k3s's, so that leases and results lie
/// where k3s has them; the plugin is the bridge that flannel, too, delegates to.
pub fn write_network(subnet: &str) -> Result<()> {
    let network = serde_json::json!({
        "name": "cbr0",
        "cniVersion": "1.0.0",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "hairpinMode": true,
            "forceAddress": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": subnet }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    });
    let file = Path::new(place::CNI_CONFIG).join("10-flannel.conflist");
    let text = serde_json::to_string_pretty(&network)?;
    if fs::read_to_string(&file).is_ok_and(|old| old == text) {
        return Ok(());
    }
    durable::write(file, text, 0o600)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tools_come_first() {
        assert!(super::path().starts_with("/var/lib/rancher/k3s/data/current/bin:"));
    }
}
