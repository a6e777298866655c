//! What can be wrong between nodes, and with the cluster as a whole.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeTable;

use super::{Draft, Place, find};
use crate::inventory::diagnostic::Diagnostic;
use crate::inventory::key::PublicKey;
use crate::inventory::name::shown;
use crate::inventory::node::{Role, lan_address};
use crate::inventory::setting::Problems;
use crate::inventory::version::Versions;

/// Who used a thing first, by that thing.
struct Uses<K>(BTreeMap<K, (String, Range<usize>)>);

impl<K: Ord> Uses<K> {
    /// Who used it before, if anybody did; else this is the first use.
    fn before(
        &mut self,
        thing: K,
        node: &Draft<'_>,
        here: &Range<usize>,
    ) -> Option<(String, Range<usize>)> {
        let first = self.0.get(&thing).cloned();
        if first.is_none() {
            self.0.insert(thing, (shown(node.key), here.clone()));
        }
        first
    }
}

pub(super) fn collisions(document: &DeTable<'_>, nodes: &[Draft<'_>], problems: &mut Problems) {
    let mut hosts = Uses(BTreeMap::new());
    let mut addresses = Uses(BTreeMap::new());
    let mut keys = Uses(BTreeMap::new());
    for draft in nodes {
        let node = Place { document, draft };
        let section = &draft.section;
        let port = section.port.unwrap_or(section.ssh.port);
        let host = node.at(&["host"]);
        let name = section.host.0.as_ref();
        let same_host = name.and_then(|name| hosts.before((name, port), draft, &host));
        if let (Some(name), Some((other, first))) = (name, &same_host) {
            let message = format!("`{name}` port {port} is already the node `{other}`");
            problems.push(
                Diagnostic::error(host.clone(), message).related(first.clone(), "first here"),
            );
        }
        let ip = lan_address(section.address, name).filter(|_| same_host.is_none());
        let here = node.given(&["address"]).unwrap_or(host);
        if let Some((ip, (other, first))) =
            ip.and_then(|ip| Some((ip, addresses.before(ip, draft, &here)?)))
        {
            problems.push(
                Diagnostic::error(
                    here,
                    format!("`{ip}` is already the address of the node `{other}`"),
                )
                .related(first, "first here")
                .help("behind forwarded ports give each node its own `address`"),
            );
        }
        let here = node.at(&["host_key"]);
        let key = section.host_key.as_ref().map(PublicKey::base64);
        if let Some((other, first)) = key.and_then(|key| keys.before(key, draft, &here)) {
            problems.push(
                Diagnostic::warning(
                    here,
                    format!("this is already the host key of the node `{other}`"),
                )
                .related(first, "first here")
                .help("on one of them: `sudo rm /etc/ssh/ssh_host_*; sudo ssh-keygen -A`")
                .note("cards cloned from one another share their keys, and who has one has all"),
            );
        }
    }
}

pub(super) fn control_planes(document: &DeTable<'_>, nodes: &[Draft<'_>], problems: &mut Problems) {
    let tables = document
        .get("nodes")
        .is_some_and(|nodes| nodes.get_ref().is_table());
    if !tables || nodes.iter().any(|node| node.section.role.0.is_none()) {
        return; // which is said already
    }
    let planes: Vec<_> = nodes
        .iter()
        .filter(|node| node.section.role.0 == Some(Role::ControlPlane))
        .collect();
    match (planes.len(), planes.last(), nodes.first()) {
        (_, _, None) => {
            let here = find(document, &["nodes"]).unwrap_or_default();
            problems.push(
                Diagnostic::error(here, "there are no nodes")
                    .help("name at least one: `[nodes.jarvis]` with its host"),
            );
        }
        (0, _, Some(first)) => {
            let here =
                find(document, &["nodes", first.key, "role"]).unwrap_or_else(|| first.span.clone());
            problems.push(
                Diagnostic::error(here, "no node is a control plane")
                    .help("give the strongest Pi `role = \"control-plane\"`"),
            );
        }
        (count, Some(last), _) if count % 2 == 0 => {
            let here =
                find(document, &["nodes", last.key, "role"]).unwrap_or_else(|| last.span.clone());
            problems.push(
                Diagnostic::warning(here, format!("{count} control planes are an even number"))
                    .help(format!("use {} or {}", count - 1, count + 1))
                    .note(format!(
                        "etcd needs more than half of them: {count} survive no more failures than {}",
                        count - 1
                    )),
            );
        }
        _ => {}
    }
}

pub(super) fn versions_that_hurt(
    document: &DeTable<'_>,
    versions: &Versions,
    problems: &mut Problems,
) {
    if let Some(version) = versions.k3s.as_ref().filter(|version| version.minor() < 35) {
        let here = find(document, &["versions", "k3s"]).unwrap_or_default();
        problems.push(
            Diagnostic::warning(here, format!("k3s {version} is older than 1.35"))
                .help("use 1.35 or newer")
                .note("before 1.35 a Pi that boots with an old clock can leave pods that never start (domain.md §5)"),
        );
    }
}
