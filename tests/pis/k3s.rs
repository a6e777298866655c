//! k3s on a lab Pi: put there by hand, and looked at.

use std::time::{Duration, Instant};

use selfheal_lab::{Pi, release};

/// The k3s at hand, on this Pi as a server. The unit is what k3s's own installer writes (domain.md §4.1).
pub fn install_server(pi: &Pi, config: &str) {
    install(pi, "server", config);
}

/// The same as an agent of a server.
pub fn install_agent(pi: &Pi, server: &Pi) {
    let token = server
        .root("cat /var/lib/rancher/k3s/server/node-token")
        .unwrap();
    let config = format!(
        "server: https://{}:6443\ntoken: {}\nnode-name: {}\nnode-ip: {}\n",
        server.lan_address(),
        token.trim(),
        pi.name(),
        pi.lan_address()
    );
    install(pi, "agent", &config);
}

/// The unit's name.
pub fn unit(role: &str) -> &'static str {
    match role {
        "server" => "k3s",
        _ => "k3s-agent",
    }
}

fn install(pi: &Pi, role: &str, config: &str) {
    let program = release::program(release::VERSION).unwrap();
    let copied = std::process::Command::new("sh")
        .arg("-c")
        .arg("exec \"$@\" <\"$0\"")
        .arg(&program)
        .arg(pi.ssh().get_program())
        .args(pi.ssh().get_args())
        .arg("sudo sh -c 'cat >/usr/local/bin/k3s && chmod 755 /usr/local/bin/k3s'")
        .status()
        .unwrap();
    assert!(copied.success(), "cannot copy {}", program.display());
    let unit = unit(role);
    pi.root(&format!(
        "set -e
        mkdir -p /etc/rancher/k3s
        umask 077
        cat >/etc/rancher/k3s/config.yaml <<'CONFIG'
{config}CONFIG
        umask 022
        cat >/etc/systemd/system/{unit}.service <<'UNIT'
[Unit]
Description=Lightweight Kubernetes
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
KillMode=process
Delegate=yes
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
TimeoutStartSec=0
Restart=always
RestartSec=5s
ExecStartPre=-/sbin/modprobe br_netfilter
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/k3s {role}

[Install]
WantedBy=multi-user.target
UNIT
        systemctl daemon-reload
        systemctl enable -q {unit}
        systemctl start --no-block {unit}
        sync"
    ))
    .unwrap();
}

/// Runs `k3s kubectl` on a server; it has to succeed.
pub fn kubectl(pi: &Pi, arguments: &str) -> String {
    pi.root(&format!("k3s kubectl {arguments}"))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", journal(pi)))
}

/// Puts a pod onto a node, as a deployment of one would.
pub fn create_pod(server: &Pi, name: &str, node: &str) {
    kubectl(
        server,
        &format!(
            "create -f - <<'POD'
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  nodeName: {node}
  containers:
  - name: pause
    image: docker.io/rancher/mirrored-pause:3.6
    imagePullPolicy: Never
POD"
        ),
    );
}

/// Waits for a line of shell that succeeds on the Pi.
pub fn wait(pi: &Pi, limit: Duration, what: &str, script: &str) {
    let deadline = Instant::now() + limit;
    loop {
        let Err(error) = pi.root(script) else { return };
        assert!(
            Instant::now() < deadline,
            "{}: waited in vain for {what}: {error:#}\n{}",
            pi.name(),
            journal(pi)
        );
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Starts a unit of k3s anew, or for the first time, and waits until it and its containerd are up. Minutes on a busy
/// machine, so that nobody waits in `systemctl` itself.
pub fn restart(pi: &Pi, unit: &str) {
    let limit = Duration::from_secs(300);
    let run = format!("$(systemctl show --value -p InvocationID {unit})");
    let script = format!("echo {run}; systemctl restart --no-block {unit}");
    let before = pi.root(&script).unwrap();
    let again = format!(
        "systemctl is-active -q {unit} && [ \"{run}\" != '{}' ]",
        before.trim()
    );
    wait(pi, limit, unit, &again);
    wait(pi, limit, "crictl", "k3s crictl --timeout 30s info");
}

/// Waits until the cluster says that a node is ready. On a busy machine that flickers.
pub fn is_ready(server: &Pi, node: &str) {
    let ready = format!("k3s kubectl wait --for=condition=Ready --timeout=5s node/{node}");
    wait(
        server,
        Duration::from_secs(60),
        &format!("{node} to be ready"),
        &ready,
    );
}

/// Waits until a pod runs.
pub fn wait_for_pod(server: &Pi, name: &str, limit: Duration) {
    wait(
        server,
        limit,
        &format!("pod {name}"),
        &format!("k3s kubectl get pod {name} -o json | grep -q '\"phase\": \"Running\"'"),
    );
}

/// The last words of k3s.
pub fn journal(pi: &Pi) -> String {
    pi.root("journalctl -b -n 40 --no-pager -u k3s -u k3s-agent; tail -n 5 /var/lib/rancher/k3s/agent/containerd/containerd.log")
        .unwrap_or_default()
}

/// A sandbox as crictl tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub name: String,
    pub attempt: u64,
    pub ready: bool,
}

/// All sandboxes of a Pi.
pub fn sandboxes(pi: &Pi) -> Vec<Sandbox> {
    let text = pi.root("k3s crictl --timeout 30s pods -o json").unwrap();
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let sandbox = |item: &serde_json::Value| Sandbox {
        id: item["id"].as_str().unwrap().to_owned(),
        name: item["metadata"]["name"].as_str().unwrap().to_owned(),
        attempt: item["metadata"]["attempt"].as_u64().unwrap_or(0),
        ready: item["state"] == "SANDBOX_READY",
    };
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(sandbox)
        .collect()
}

/// The leases of pod addresses: address and content (the sandbox it belongs to).
pub fn leases(pi: &Pi) -> Vec<(String, String)> {
    let script = "cd /var/lib/cni/networks/cbr0 2>/dev/null || exit 0
        for lease in [0-9]*; do [ -f $lease ] && echo $lease $(head -n 1 $lease | tr -d '\\r'); done; true";
    let text = pi.root(script).unwrap();
    text.lines()
        .map(|line| {
            let (address, owner) = line.split_once(' ').unwrap_or((line, ""));
            (address.to_owned(), owner.to_owned())
        })
        .collect()
}
