//! Settings of one node that contradict each other.

use super::{Place, find};
use crate::inventory::boot::{BootConfig, BootToken};
use crate::inventory::diagnostic::Diagnostic;
use crate::inventory::hardening::{RootLogin, Storage};
use crate::inventory::name::shown;
use crate::inventory::node::Os;
use crate::inventory::select::matches;
use crate::inventory::setting::Problems;
use crate::node::boot::Standing;

pub(super) fn access(node: &Place<'_>, problems: &mut Problems) {
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

pub(super) fn sshd(node: &Place<'_>, problems: &mut Problems) {
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

pub(super) fn firewall(node: &Place<'_>, problems: &mut Problems) {
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

pub(super) fn services(node: &Place<'_>, problems: &mut Problems) {
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
const PROTECTED: [(&str, &str); 2] = [("vm.overcommit_memory", "1"), ("vm.panic_on_oom", "0")];

/// What Kubernetes' network cannot do without.
const NEEDED: [(&str, &str); 2] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
];

pub(super) fn sysctls(node: &Place<'_>, problems: &mut Problems) {
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
        }
    }
}

pub(super) fn boot(node: &Place<'_>, problems: &mut Problems) {
    let boot = &node.draft.section.boot;
    let unknown = |here, message| {
        Diagnostic::error(here, message)
            .help("set `untested = true` beside it if you do")
            .note("nothing can undo what keeps the kernel from booting")
    };
    let untested =
        |token: &BootToken| !boot.untested && token.token().standing() == Standing::Untested;
    for (index, token) in boot.add.iter().enumerate() {
        let here = || node.item(&["boot", "add"], &token.to_string());
        match token.token().standing() {
            Standing::Odd(values) => problems.push(
                Diagnostic::error(
                    here(),
                    format!("`{token}` has a value that makes no sense on a Pi"),
                )
                .help(format!("the value is {values}")),
            ),
            Standing::Harmful(why) => problems.push(
                Diagnostic::error(
                    here(),
                    format!("`{token}` is not added to the command line: {why}"),
                )
                .help("leave it out"),
            ),
            _ if untested(token) => {
                problems.push(unknown(
                    here(),
                    format!("selfheal does not know what `{token}` does to a Pi"),
                ));
            }
            _ => {}
        }
        let key = token.token().key();
        if boot
            .add
            .iter()
            .take(index)
            .any(|other| other.token().key() == key)
        {
            problems.push(
                Diagnostic::error(here(), format!("`{key}` is added twice"))
                    .help("keep one of them"),
            );
        }
    }
    for token in &boot.remove {
        let here = || node.item(&["boot", "remove"], &token.to_string());
        if untested(token) {
            problems.push(unknown(
                here(),
                format!("selfheal does not know what a Pi does without `{token}`"),
            ));
        }
        if boot
            .add
            .iter()
            .any(|other| other.token().means(token.token()))
        {
            problems.push(
                Diagnostic::error(here(), format!("`{token}` is added and removed"))
                    .help("keep one of them"),
            );
        }
    }
    for (index, line) in boot.config.iter().enumerate() {
        let here = || node.item(&["boot", "config"], &line.to_string());
        if !boot.untested && !line.line().is_known() {
            problems.push(unknown(
                here(),
                format!("selfheal does not know what `{line}` does to a Pi"),
            ));
        }
        let key = line.line().key();
        let repeats = |other: &BootConfig| {
            other == line
                || other.line().key() == key && !matches!(key, "dtparam" | "dtoverlay" | "gpio")
        };
        if boot.config.iter().take(index).any(repeats) {
            problems.push(
                Diagnostic::error(here(), format!("`{key}` is set twice")).help("keep one of them"),
            );
        }
    }
    if let (false, Some(here)) = (boot.memory_cgroup, node.given(&["boot", "memory_cgroup"])) {
        problems.push(
            Diagnostic::warning(here, "without the memory cgroup k3s does not start").note(
                "the firmware of a Pi switches it off; selfheal adds it only where it is missing",
            ),
        );
    }
}
