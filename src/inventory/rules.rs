//! What single settings cannot tell: nodes that collide, settings that contradict each other.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::DeTable;

use super::diagnostic::Diagnostic;
use super::hardening::{RootLogin, Storage};
use super::key::PublicKey;
use super::name::{NodeName, shown};
use super::node::{NodeSection, Os, Role, lan_address};
use super::select::matches;
use super::setting::Problems;
use super::version::Versions;

/// A node as far as it could be read.
pub(crate) struct Draft<'d> {
    /// Its key in the document, which may be no valid name.
    pub(crate) key: &'d str,
    /// Where that key is.
    pub(crate) span: Range<usize>,
    pub(crate) name: Option<NodeName>,
    pub(crate) section: NodeSection,
}

/// Checks the inventory as a whole.
pub(crate) fn check(
    document: &DeTable<'_>,
    versions: &Versions,
    nodes: &[Draft<'_>],
    problems: &mut Problems,
) {
    collisions(document, nodes, problems);
    if !problems.incomplete {
        control_planes(document, nodes, problems);
    }
    versions_that_hurt(document, versions, problems);
    for draft in nodes {
        let node = Place { document, draft };
        access(&node, problems);
        sshd(&node, problems);
        firewall(&node, problems);
        services(&node, problems);
        sysctls(&node, problems);
        boot(&node, problems);
    }
}

/// A node and the document it stands in, to find where a setting of it was given.
struct Place<'d> {
    document: &'d DeTable<'d>,
    draft: &'d Draft<'d>,
}

impl Place<'_> {
    /// Where the setting is given that holds for the node: its own, or the one for all nodes.
    fn given(&self, path: &[&str]) -> Option<Range<usize>> {
        self.own(path).or_else(|| find(self.document, path))
    }

    /// Where the setting is given, unless that is for all nodes and the node has one of `others` of its own: then the
    /// node is the exception, and the setting is right for the rest.
    fn given_unless_own(&self, path: &[&str], others: &[&[&str]]) -> Option<Range<usize>> {
        let exception = others.iter().any(|other| self.own(other).is_some());
        self.own(path)
            .or_else(|| find(self.document, path).filter(|_| !exception))
    }

    fn own(&self, path: &[&str]) -> Option<Range<usize>> {
        let own: Vec<&str> = ["nodes", self.draft.key]
            .into_iter()
            .chain(path.iter().copied())
            .collect();
        find(self.document, &own)
    }

    /// Where it is given, or else the node's name.
    fn at(&self, path: &[&str]) -> Range<usize> {
        self.given(path).unwrap_or_else(|| self.draft.span.clone())
    }

    /// The item of a list that is given there.
    fn item(&self, path: &[&str], text: &str) -> Range<usize> {
        let own: Vec<&str> = ["nodes", self.draft.key]
            .into_iter()
            .chain(path.iter().copied())
            .collect();
        let list = value(self.document, &own).or_else(|| value(self.document, path));
        let items = list.and_then(|list| list.get_ref().as_array());
        let item = items.and_then(|items| {
            items
                .iter()
                .find(|item| item.get_ref().as_str() == Some(text))
        });
        item.map_or_else(|| self.at(path), toml::Spanned::span)
    }
}

fn value<'d>(table: &'d DeTable<'d>, path: &[&str]) -> Option<&'d super::setting::Found<'d>> {
    let (first, rest) = path.split_first()?;
    let found = table.get(*first)?;
    if rest.is_empty() {
        Some(found)
    } else {
        value(found.get_ref().as_table()?, rest)
    }
}

fn find(table: &DeTable<'_>, path: &[&str]) -> Option<Range<usize>> {
    value(table, path).map(toml::Spanned::span)
}

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

fn collisions(document: &DeTable<'_>, nodes: &[Draft<'_>], problems: &mut Problems) {
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

fn control_planes(document: &DeTable<'_>, nodes: &[Draft<'_>], problems: &mut Problems) {
    if !document.contains_key("nodes") || nodes.iter().any(|node| node.section.role.0.is_none()) {
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

fn versions_that_hurt(document: &DeTable<'_>, versions: &Versions, problems: &mut Problems) {
    if let Some(version) = versions.k3s.as_ref().filter(|version| version.minor() < 35) {
        let here = find(document, &["versions", "k3s"]).unwrap_or_default();
        problems.push(
            Diagnostic::warning(here, format!("k3s {version} is older than 1.35"))
                .help("use 1.35 or newer")
                .note("before 1.35 a Pi that boots with an old clock can leave pods that never start (domain.md §5)"),
        );
    }
}

fn access(node: &Place<'_>, problems: &mut Problems) {
    let section = &node.draft.section;
    let ssh = &section.ssh;
    for (key, outer) in [
        ("port", section.port.is_some()),
        ("user", section.user.is_some()),
    ] {
        let inner = find(node.document, &["nodes", node.draft.key, "ssh", key]);
        if let (true, Some(inner)) = (outer, inner) {
            problems.push(
                Diagnostic::error(inner, format!("`{key}` is given twice for this node"))
                    .related(node.at(&[key]), "here too")
                    .help("keep one of them"),
            );
        }
    }
    if let (false, Some(_)) = (ssh.jump.is_empty(), ssh.proxy_command.command()) {
        problems.push(
            Diagnostic::error(node.at(&["ssh", "proxy_command"]), "a proxy command and a jump host exclude each other")
                .related(node.at(&["ssh", "jump"]), "the jump host")
                .help("leave one out; for one node `jump = []` or `proxy_command = \"none\"` takes back the other"),
        );
    }
    if ssh.exec_timeout.get() > ssh.run_timeout.get() {
        problems.push(
            Diagnostic::error(
                node.at(&["ssh", "exec_timeout"]),
                format!(
                    "one command may take {}, but the whole run only {}",
                    ssh.exec_timeout, ssh.run_timeout
                ),
            )
            .help("let `run_timeout` be the longer one"),
        );
    }
    let dead_man = section.hardening.dead_man;
    if ssh.connect_timeout.get() * 2 > dead_man.get() {
        let blamed = node
            .given(&["hardening", "dead_man"])
            .unwrap_or_else(|| node.at(&["ssh", "connect_timeout"]));
        problems.push(
            Diagnostic::error(
                blamed,
                format!(
                    "the dead man's switch waits {dead_man}, and connecting may take {}",
                    ssh.connect_timeout
                ),
            )
            .help("let `hardening.dead_man` be at least twice `ssh.connect_timeout`")
            .note("a good change would be undone before selfheal is back"),
        );
    }
    let user = section.user.as_ref().unwrap_or(&ssh.user);
    let password = node.given_unless_own(&["ssh", "sudo_password"], &[&["user"], &["ssh", "user"]]);
    if let (true, Some(here)) = (user.as_str() == "root", password) {
        problems.push(Diagnostic::warning(
            here,
            "root needs no sudo, so this password is never asked for",
        ));
    }
    if section.os == Some(Os::Ubuntu2510) {
        problems.push(
            Diagnostic::warning(
                node.at(&["os"]),
                "Ubuntu 25.10 has had no updates since July 2026",
            )
            .help("use 24.04 or 26.04"),
        );
    }
}

fn sshd(node: &Place<'_>, problems: &mut Problems) {
    let section = &node.draft.section;
    let sshd = &section.hardening.sshd;
    let user = section.user.as_ref().unwrap_or(&section.ssh.user).as_str();
    let root_in = matches!(
        sshd.permit_root_login,
        RootLogin::Yes | RootLogin::ProhibitPassword
    );
    if user == "root" && !root_in {
        problems.push(
            Diagnostic::error(
                node.at(&["hardening", "sshd", "permit_root_login"]),
                format!(
                    "`{}` locks out the user `root`, whom selfheal logs in as",
                    sshd.permit_root_login
                ),
            )
            .help("use `prohibit-password`, or log in as a user who may use sudo"),
        );
    }
    for (keyword, values) in &sshd.settings {
        let listed = values
            .iter()
            .flat_map(str::split_ascii_whitespace)
            .any(|pattern| {
                matches(
                    pattern.split_once('@').map_or(pattern, |(name, _)| name),
                    user,
                )
            });
        let locked_out =
            (keyword.is("AllowUsers") && !listed) || (keyword.is("DenyUsers") && listed);
        if locked_out {
            problems.push(
                Diagnostic::warning(
                    node.at(&["hardening", "sshd", "settings", keyword.as_str()]),
                    format!("`{keyword}` seems to lock out `{user}`, whom selfheal logs in as"),
                )
                .note("the dead man's switch would undo it"),
            );
        }
    }
}

fn firewall(node: &Place<'_>, problems: &mut Problems) {
    let firewall = &node.draft.section.hardening.firewall;
    let at = |key| node.at(&["hardening", "firewall", key]);
    if firewall.enabled && firewall.admin.is_empty() {
        problems.push(
            Diagnostic::error(at("enabled"), "this firewall lets nobody in")
                .help("name the network you log in from: `admin = [\"192.168.1.0/24\"]`"),
        );
    }
    let said = node.given(&["hardening", "firewall", "enabled"]).is_some();
    let filled = !(firewall.admin.is_empty() && firewall.allow.is_empty());
    if !said && filled {
        let given = if firewall.admin.is_empty() {
            "allow"
        } else {
            "admin"
        };
        problems.push(
            Diagnostic::warning(
                at(given),
                "this does nothing while the firewall is not enabled",
            )
            .help("add `enabled = true` to `[hardening.firewall]`"),
        );
    }
}

/// Units without which nobody reaches the node any more.
const VITAL: [&str; 9] = [
    "ssh.service",
    "ssh.socket",
    "sshd.service",
    "dbus.service",
    "networking.service",
    "NetworkManager.service",
    "systemd-networkd.service",
    "dhcpcd.service",
    "systemd-logind.service",
];

/// Units that keep the clock.
const CLOCKS: [&str; 4] = [
    "systemd-timesyncd.service",
    "chrony.service",
    "chronyd.service",
    "ntpsec.service",
];

fn services(node: &Place<'_>, problems: &mut Problems) {
    let hardening = &node.draft.section.hardening;
    let path = ["hardening", "disable_services"];
    for unit in &hardening.disable_services {
        let written = [unit.as_str(), unit.as_str().trim_end_matches(".service")];
        let here = || {
            let whole = node.item(&path, written[0]);
            if whole == node.at(&path) {
                node.item(&path, written[1])
            } else {
                whole
            }
        };
        if VITAL.contains(&unit.as_str()) {
            problems.push(
                Diagnostic::error(
                    here(),
                    format!("without `{unit}` nobody reaches the node any more"),
                )
                .help("leave it out"),
            );
        } else if unit.as_str() == "wpa_supplicant.service" {
            problems.push(
                Diagnostic::warning(here(), "without `wpa_supplicant.service` there is no Wi-Fi")
                    .note("right for a node on a cable; one on Wi-Fi would be lost"),
            );
        } else if hardening.time_sync && CLOCKS.contains(&unit.as_str()) {
            problems.push(
                Diagnostic::error(
                    here(),
                    format!("`{unit}` keeps the clock, which `time_sync` asks for"),
                )
                .help("leave it out, or set `time_sync = false`"),
            );
        }
    }
    if let (false, false) = (hardening.time_sync, hardening.ntp_servers.is_empty()) {
        problems.push(
            Diagnostic::error(
                node.at(&["hardening", "ntp_servers"]),
                "time servers without `time_sync`",
            )
            .related(node.at(&["hardening", "time_sync"]), "switched off here")
            .help("leave one of them out"),
        );
    }
    let journald = &hardening.journald;
    let (max_use, storage) = (
        ["hardening", "journald", "max_use"],
        ["hardening", "journald", "storage"],
    );
    if let (Storage::Volatile, Some(here)) = (
        journald.storage,
        node.given_unless_own(&max_use, &[&storage]),
    ) {
        problems.push(
            Diagnostic::warning(
                here,
                "`max_use` does nothing while the journal is in memory",
            )
            .help("`runtime_max_use` is its limit there"),
        );
    }
}

/// What k3s's `protect-kernel-defaults` insists on: the kubelet exits on any other value (domain.md §3.6).
const PROTECTED: [(&str, &str); 4] = [
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
];

/// What Kubernetes' network cannot do without.
const NEEDED: [(&str, &str); 2] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
];

fn sysctls(node: &Place<'_>, problems: &mut Problems) {
    for (key, value) in &node.draft.section.hardening.sysctls {
        let wants = |list: &[(&str, &'static str)]| {
            list.iter()
                .find(|(known, right)| *known == key.as_str() && *right != value.as_str())
                .map(|(_, right)| *right)
        };
        let here = || {
            let dots = node.given(&["hardening", "sysctls", key.as_str()]);
            dots.unwrap_or_else(|| node.at(&["hardening", "sysctls", &key.path()]))
        };
        if let Some(right) = wants(&NEEDED) {
            problems.push(
                Diagnostic::error(
                    here(),
                    format!("Kubernetes' network needs `{key}` to be {right}"),
                )
                .help(format!("leave it out; selfheal sets {right}")),
            );
        } else if let Some(right) = wants(&PROTECTED) {
            problems.push(
                Diagnostic::warning(
                    here(),
                    format!("the kubelet exits on `{key} = {}`", shown(value.as_str())),
                )
                .help(format!("leave it out; selfheal sets {right}"))
                .note("with `protect-kernel-defaults` it insists on its own values"),
            );
        } else if key.as_str() == "kernel.panic_on_rcu_stall" && value.as_str() != "0" {
            problems.push(
                Diagnostic::warning(here(), "this can make a Pi reboot over and over")
                    .help("leave it out; selfheal sets it where it is safe")
                    .note("it fires on stalls of 20 ms too where the kernel's expedited timeout is that short"),
            );
        }
    }
}

fn boot(node: &Place<'_>, problems: &mut Problems) {
    let boot = &node.draft.section.boot;
    let path = ["boot", "add"];
    let mut keys: Vec<(&str, Option<&str>)> = Vec::new();
    for token in &boot.add {
        let here = || node.item(&path, token.as_str());
        if !boot.untested && !token.is_known() {
            problems.push(
                Diagnostic::error(
                    here(),
                    format!("selfheal does not know what `{token}` does to a Pi"),
                )
                .help("set `untested = true` beside it if you do")
                .note("nothing can undo a parameter that keeps the kernel from booting"),
            );
        }
        if let Some((key, _)) = keys.iter().find(|(key, _)| *key == token.key()) {
            problems.push(
                Diagnostic::error(here(), format!("`{key}` is added twice"))
                    .help("keep one of them"),
            );
        }
        keys.push((token.key(), token.value()));
    }
    if let (false, Some(here)) = (boot.memory_cgroup, node.given(&["boot", "memory_cgroup"])) {
        problems.push(
            Diagnostic::warning(here, "without the memory cgroup k3s does not start").note(
                "the firmware of a Pi switches it off; selfheal adds it only where it is missing",
            ),
        );
    }
}
