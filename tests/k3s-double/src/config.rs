//! How it is configured: `config.yaml`, `config.yaml.d/*.yaml`, then the command line; as k3s does (domain.md §4.3).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_yaml_ng::Value;

use crate::log;

/// Settings by their names without dashes, each with all its values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    values: BTreeMap<String, Vec<String>>,
}

/// Those of servers and agents that k3s knows, most of which change nothing here.
const ANY: &str = "config token token-file node-name with-node-id node-label node-taint node-ip node-external-ip \
    node-internal-dns node-external-dns resolv-conf flannel-iface flannel-conf flannel-cni-conf kubelet-arg kube-proxy-arg \
    protect-kernel-defaults data-dir private-registry pause-image snapshotter container-runtime-endpoint \
    image-service-endpoint default-runtime disable-default-registry-endpoint nonroot-devices selinux lb-server-port \
    image-credential-provider-bin-dir image-credential-provider-config airgap-extra-registry vpn-auth vpn-auth-file \
    enable-pprof rootless prefer-bundled-bin debug v vmodule log alsologtostderr server";
/// Those of servers only.
const SERVER: &str = "agent-token agent-token-file tls-san tls-san-security disable disable-helm-controller \
    disable-cloud-controller disable-kube-proxy disable-network-policy disable-scheduler disable-etcd disable-apiserver \
    disable-controller-manager disable-agent cluster-init cluster-reset cluster-reset-restore-path cluster-cidr \
    service-cidr service-node-port-range cluster-dns cluster-domain flannel-backend flannel-ipv6-masq \
    flannel-external-ip egress-selector-mode servicelb-namespace write-kubeconfig write-kubeconfig-mode \
    write-kubeconfig-group write-kubeconfig-name helm-job-image bind-address advertise-address advertise-port \
    https-listen-port supervisor-metrics embedded-registry secrets-encryption secrets-encryption-provider \
    kube-apiserver-arg kube-scheduler-arg kube-controller-manager-arg kube-cloud-controller-manager-arg etcd-arg \
    kine-tls datastore-endpoint datastore-cafile datastore-certfile datastore-keyfile etcd-expose-metrics \
    etcd-disable-snapshots etcd-snapshot-name etcd-snapshot-schedule-cron etcd-snapshot-retention etcd-snapshot-dir \
    etcd-snapshot-compress etcd-s3 default-local-storage-path system-default-registry multus";

/// What is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Server,
    Agent,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
        }
    }

    fn knows(self, key: &str) -> bool {
        let known = |list: &str| list.split_whitespace().any(|name| name == key);
        known(ANY) || (self == Self::Server && known(SERVER))
    }
}

impl Config {
    /// Reads everything; `arguments` are those behind `server` or `agent`.
    pub fn read(role: Role, file: &Path, arguments: &[String]) -> Result<Self> {
        let given = from_arguments(role, arguments)?;
        let file = given.path("config").unwrap_or_else(|| file.to_owned());
        let mut config = Self::default();
        for file in files(&file)? {
            let text = fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            config
                .add_file(role, &text)
                .with_context(|| format!("cannot read {}", file.display()))?;
        }
        config.values.extend(given.values);
        Ok(config)
    }

    fn add_file(&mut self, role: Role, text: &str) -> Result<()> {
        let settings: Option<BTreeMap<String, Value>> = serde_yaml_ng::from_str(text)?;
        for (key, value) in settings.unwrap_or_default() {
            let (key, appends) = match key.strip_suffix('+') {
                Some(key) => (key.to_owned(), true),
                None => (key, false),
            };
            if !role.knows(&key) {
                log::warn(format!(
                    "Unknown flag --{key} found in config.yaml, skipping\n"
                ));
                continue;
            }
            let values = texts(&value).with_context(|| format!("value of {key}"))?;
            let all = self.values.entry(key).or_default();
            if !appends {
                all.clear();
            }
            all.extend(values);
        }
        Ok(())
    }

    /// All values of a setting.
    pub fn all(&self, key: &str) -> &[String] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    /// Its last value, which wins.
    pub fn last(&self, key: &str) -> Option<&str> {
        self.all(key).last().map(String::as_str)
    }

    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.last(key).map(PathBuf::from)
    }

    pub fn is_on(&self, key: &str) -> bool {
        self.last(key).is_some_and(|value| value != "false")
    }

    /// A secret that is given as such or by a file (`token`, `token-file`).
    pub fn secret(&self, key: &str) -> Result<Option<String>> {
        if let Some(secret) = self.last(key) {
            return Ok(Some(secret.trim().to_owned()));
        }
        let Some(file) = self.path(&format!("{key}-file")) else {
            return Ok(None);
        };
        let secret = fs::read_to_string(&file)
            .with_context(|| format!("open {}", file.display()))?
            .trim()
            .to_owned();
        if secret.is_empty() {
            bail!("{} is empty", file.display());
        }
        Ok(Some(secret))
    }
}

/// The file itself, where it is there, and what lies in its folder of drop-ins.
fn files(file: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    if file.exists() {
        all.push(file.to_owned());
    }
    let mut folder = file.as_os_str().to_owned();
    folder.push(".d");
    let mut more = Vec::new();
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries {
            let path = entry?.path();
            if matches!(
                path.extension().and_then(|e| e.to_str()),
                Some("yaml" | "yml")
            ) {
                more.push(path);
            }
        }
    }
    more.sort();
    all.extend(more);
    Ok(all)
}

fn from_arguments(role: Role, arguments: &[String]) -> Result<Config> {
    let mut config = Config::default();
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix("--").or(argument.strip_prefix('-')) else {
            bail!("unexpected argument {argument}");
        };
        let (key, value) = match flag.split_once('=') {
            Some((key, value)) => (key, value.to_owned()),
            None => {
                let next = rest.next_if(|next| !next.starts_with('-'));
                (flag, next.cloned().unwrap_or_else(|| "true".to_owned()))
            }
        };
        if !role.knows(key) {
            bail!("flag provided but not defined: -{key}");
        }
        config.values.entry(key.to_owned()).or_default().push(value);
    }
    Ok(config)
}

fn texts(value: &Value) -> Result<Vec<String>> {
    Ok(match value {
        Value::Null => vec![String::new()],
        Value::Bool(value) => vec![value.to_string()],
        Value::Number(value) => vec![value.to_string()],
        Value::String(value) => vec![value.clone()],
        Value::Sequence(values) => values
            .iter()
            .map(texts)
            .collect::<Result<Vec<_>>>()?
            .concat(),
        Value::Mapping(_) | Value::Tagged(_) => bail!("neither text, number nor list"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(files: &[(&str, &str)], arguments: &[&str]) -> Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("config.yaml.d")).unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        Config::read(Role::Server, &folder.path().join("config.yaml"), &arguments)
    }

    #[test]
    fn the_last_value_wins_and_a_plus_appends() {
        let config = config(
            &[
                (
                    "config.yaml",
                    "node-ip: 10.0.0.1\ntls-san: [a, b]\nnode-label: [x=1]\ncluster-init: true\n",
                ),
                ("config.yaml.d/20.yaml", "node-label+:\n- z=3\ntls-san: c\n"),
                ("config.yaml.d/10.yml", "node-label+: y=2\n"),
                ("config.yaml.d/30.txt", "node-ip: 10.0.0.9\n"),
            ],
            &["--node-ip=10.0.0.2", "--debug", "--disable", "traefik"],
        )
        .unwrap();
        assert_eq!(config.all("node-label"), ["x=1", "y=2", "z=3"]);
        assert_eq!(config.all("tls-san"), ["c"]);
        assert_eq!(config.last("node-ip"), Some("10.0.0.2"));
        assert_eq!(config.last("disable"), Some("traefik"));
        assert!(config.is_on("cluster-init") && config.is_on("debug"));
    }

    #[test]
    fn an_unknown_key_of_a_file_is_skipped_and_an_unknown_flag_is_refused() {
        let config_with = |key: &str| config(&[("config.yaml", &format!("{key}: 1\n"))], &[]);
        assert_eq!(config_with("nodeip").unwrap(), Config::default());
        assert!(config(&[], &["--nodeip=1"]).is_err());
        assert!(config(&[("config.yaml", "node-ip: {a: 1}\n")], &[]).is_err());
        assert!(config(&[("config.yaml", "node-ip: [\n")], &[]).is_err());
    }

    #[test]
    fn a_secret_may_lie_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let text = format!("token-file: {}\n", file.display());
        let given = config(&[("config.yaml", &text)], &[]).unwrap();
        assert!(given.secret("token").is_err());
        fs::write(&file, "secret\n").unwrap();
        assert_eq!(given.secret("token").unwrap().as_deref(), Some("secret"));
        assert_eq!(given.secret("agent-token").unwrap(), None);
        fs::write(&file, "\n").unwrap();
        assert!(given.secret("token").is_err());
    }
}
