//! Where k3s keeps its things on a node.

pub const CONFIG: &str = "/etc/rancher/k3s/config.yaml";
pub const KUBECONFIG: &str = "/etc/rancher/k3s/k3s.yaml";
pub const NODE_PASSWORD: &str = "/etc/rancher/node/password";

pub const DATA: &str = "/var/lib/rancher/k3s/data";
pub const CURRENT: &str = "/var/lib/rancher/k3s/data/current";
pub const TOOLS: &str = "/var/lib/rancher/k3s/data/current/bin";

pub const SERVER: &str = "/var/lib/rancher/k3s/server";
pub const TLS: &str = "/var/lib/rancher/k3s/server/tls";
pub const STATE: &str = "/var/lib/rancher/k3s/server/db/state.db";
pub const SNAPSHOTS: &str = "/var/lib/rancher/k3s/server/db/snapshots";

pub const AGENT: &str = "/var/lib/rancher/k3s/agent";
pub const CONTAINERD_CONFIG: &str = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml";
pub const CONTAINERD_ROOT: &str = "/var/lib/rancher/k3s/agent/containerd";
pub const CONTAINERD_STATE: &str = "/run/k3s/containerd";
pub const CONTAINERD_SOCKET: &str = "/run/k3s/containerd/containerd.sock";
pub const CONTAINERD_LOG: &str = "/var/lib/rancher/k3s/agent/containerd/containerd.log";
pub const CNI_CONFIG: &str = "/var/lib/rancher/k3s/agent/etc/cni/net.d";

pub const PODS: &str = "/var/lib/kubelet/pods";

/// The port of the API and of the nodes that join.
pub const PORT: u16 = 6443;
