//! `[k3s]`: how Kubernetes gets onto a node, and the taints of `[nodes.NAME]`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use camino::Utf8Path;

use super::address::HostAddress;
use super::define::{choice, section, serialized_as_shown, text};
use super::diagnostic::Wrong;
use super::label::{LabelKey, LabelValue};
use super::name::shown;
use super::quantity::{HOUR, MINUTE, Period};
use super::secret::Secret;
use super::setting::Text;
use super::ssh::LocalPath;
use crate::artifact::{Sha256, Source};

section! {
    /// k3s: for all nodes in `[k3s]`, for one in `[nodes.NAME.k3s]`. Which version is in `[versions]`. What is not said
    /// here can stand in files of your own in `/etc/rancher/k3s/config.yaml.d` on the node.
    pub struct K3s {
        /// Whether selfheal installs it. Switching this off does not take it off a node again.
        install: bool = true,
        /// Where it comes from: `releases`, the address of a mirror, or a folder of this computer. The last two are laid
        /// out like the releases: `TAG/k3s-arm64` and `TAG/sha256sum-arm64.txt`.
        source: K3sSource = K3sSource::Releases,
        /// The sha256 that the program has to have, by architecture, besides the release's own list.
        sha256: BTreeMap<K3sArch, ProgramPin> = BTreeMap::new(),
        /// Whether the images of k3s's own pods come along, so that they start without a registry.
        airgap_images: bool = false,
        /// The token with which servers join. Where it is not said, the first server makes one up. Only read when that
        /// server is installed.
        token: Option<Secret> = None,
        /// The token with which workers join; as `token`.
        agent_token: Option<Secret> = None,
        /// More names and addresses under which the API server answers.
        tls_san: Vec<HostAddress> = Vec::new(),
        /// The network interface between the nodes. Where it is not said: the one that has the node's address.
        interface: Option<InterfaceName> = None,
        /// Parts of k3s that are not wanted. Switching one off removes what it installed.
        disable: Vec<K3sComponent> = Vec::new(),
        /// How long pods may take to leave a node before it is rebooted or upgraded.
        drain_timeout: Period<30, HOUR> = Period::clamped(5 * MINUTE),
        /// How long k3s may take to start, its node to get ready, and its own pods to run.
        start_timeout: Period<MINUTE, HOUR> = Period::clamped(15 * MINUTE),
    }
}

impl K3s {
    /// Lets relative paths start at the inventory's folder.
    pub(crate) fn under(self, folder: &Utf8Path) -> Self {
        let source = match self.source {
            K3sSource::Folder(path) => K3sSource::Folder(path.under(folder)),
            other => other,
        };
        Self {
            source,
            token: self.token.map(|secret| secret.under(folder)),
            agent_token: self.agent_token.map(|secret| secret.under(folder)),
            ..self
        }
    }
}

choice! {
    /// A part of k3s that can be left out.
    pub enum K3sComponent: "a part of k3s that can be left out" {
        /// The cluster's own DNS.
        Coredns = "coredns",
        /// Load balancers of services on the nodes' own ports.
        Servicelb = "servicelb",
        /// The ingress.
        Traefik = "traefik",
        /// Volumes in a folder of the node.
        LocalStorage = "local-storage",
        /// What `kubectl top` and autoscalers ask.
        MetricsServer = "metrics-server",
    }
}

choice! {
    /// An architecture that k3s is built for.
    pub enum K3sArch: "an architecture of k3s" {
        /// 64-bit ARM: every supported Pi.
        Arm64 = "arm64",
        /// 32-bit ARM.
        Arm = "arm",
        /// 64-bit x86: virtual Pis.
        Amd64 = "amd64",
    }
}

/// Where k3s comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum K3sSource {
    /// k3s's public releases.
    Releases,
    /// A mirror of them.
    Mirror(Source),
    /// A folder of this computer.
    Folder(LocalPath),
}

impl fmt::Display for K3sSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Releases => f.pad("releases"),
            Self::Mirror(mirror) => f.pad(&mirror.to_string()),
            Self::Folder(path) => path.fmt(f),
        }
    }
}

serialized_as_shown!(K3sSource);

impl FromStr for K3sSource {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text == "releases" {
            return Ok(Self::Releases);
        }
        if !text.contains("://") {
            return text.parse().map(Self::Folder);
        }
        let mirror = Source::mirror(text).map_err(|wrong| Wrong::new(wrong.to_string()));
        mirror.map(Self::Mirror).map_err(|wrong| {
            wrong.help("like `https://mirror.lan/k3s`, which has `TAG/k3s-arm64` below it")
        })
    }
}

impl Text for K3sSource {
    const EXPECTED: &'static str = "`releases`, the address of a mirror or a folder";
}

/// The sha256 that the program has to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramPin(Sha256);

impl ProgramPin {
    /// The hash.
    pub fn sha256(&self) -> &Sha256 {
        &self.0
    }
}

impl fmt::Display for ProgramPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

serialized_as_shown!(ProgramPin);

impl FromStr for ProgramPin {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        text.parse().map(Self).map_err(|_| {
            Wrong::new(format!("`{}` is no sha256", shown(text)))
                .help("write its 64 hex digits, as the release's `sha256sum-arm64.txt` has them")
        })
    }
}

impl Text for ProgramPin {
    const EXPECTED: &'static str = "a sha256 (64 hex digits)";
    const PATTERN: Option<&'static str> = Some("^[0-9A-Fa-f]{64}$");
}

text! {
    /// A network interface: `eth0`.
    pub struct InterfaceName: "a network interface", Some("^[A-Za-z0-9._@:-]{1,15}$"), interface;
}

fn interface(text: &str) -> Result<String, Wrong> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._@:-".contains(&byte);
    if (1..=15).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(
        Wrong::new(format!("`{}` is no network interface", shown(text)))
            .help("like `eth0`; `ip link` on the node names them"),
    )
}

/// What keeps pods off a node: `key[=value]:effect`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Taint {
    /// Its key.
    pub key: LabelKey,
    /// Its value; often empty.
    pub value: LabelValue,
    /// What becomes of pods that do not tolerate it.
    pub effect: TaintEffect,
}

choice! {
    /// What becomes of pods that do not tolerate a taint.
    pub enum TaintEffect: "an effect of a taint" {
        /// None comes.
        NoSchedule = "NoSchedule",
        /// None comes if there is another node.
        PreferNoSchedule = "PreferNoSchedule",
        /// None comes, and those that are there go.
        NoExecute = "NoExecute",
    }
}

impl fmt::Display for Taint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}:{}", self.key, self.effect),
            value => write!(f, "{}={value}:{}", self.key, self.effect),
        }
    }
}

serialized_as_shown!(Taint);

impl FromStr for Taint {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let Some((pair, effect)) = text.rsplit_once(':') else {
            let wrong = Wrong::new(format!(
                "`{}` is no taint: its effect is missing",
                shown(text)
            ));
            return Err(wrong.help("like `dedicated=storage:NoSchedule`"));
        };
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok(Self {
            key: key.parse()?,
            value: value.parse()?,
            effect: effect.parse()?,
        })
    }
}

impl Text for Taint {
    const EXPECTED: &'static str = "a taint";
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_the_releases_a_mirror_or_a_folder() {
        let parse = |text: &str| text.parse::<K3sSource>();
        assert_eq!(parse("releases").unwrap(), K3sSource::Releases);
        let mirror = K3sSource::Mirror(Source::Mirror("https://mirror.lan/k3s".into()));
        assert_eq!(parse("https://mirror.lan/k3s/").unwrap(), mirror);
        assert!(matches!(
            parse("downloads/k3s").unwrap(),
            K3sSource::Folder(_)
        ));
        for text in [
            "ftp://a/b",
            "https://",
            "https://u:p@a/x",
            "http://a b/",
            "",
        ] {
            parse(text).unwrap_err();
        }
    }

    #[test]
    fn taints_are_those_of_kubernetes() {
        for text in ["dedicated=storage:NoSchedule", "slow:PreferNoSchedule"] {
            assert_eq!(text.parse::<Taint>().unwrap().to_string(), text);
        }
        for text in [
            "a",
            "a=b",
            "a:Never",
            ":NoSchedule",
            "a b:NoExecute",
            "node.kubernetes.io/x:NoExecute",
        ] {
            text.parse::<Taint>().unwrap_err();
        }
    }

    #[test]
    fn a_hash_has_64_digits() {
        let hash = "A1".repeat(32);
        assert_eq!(
            hash.parse::<ProgramPin>().unwrap().to_string(),
            hash.to_lowercase()
        );
        "a1".parse::<ProgramPin>().unwrap_err();
    }
}
