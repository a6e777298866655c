//! The operating system of a node: names, packages, logs, swap, clock, services, modules, kernel parameters, and who
//! may log in (domain.md §3).

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use minijinja::context;

use super::template::{Template, file, landing, verbatim};
use crate::inventory::{
    Hardening, Inventory, Node, PortRule, PublicKey, Role, Sshd, Storage, Swap, Upgrades,
};
use crate::node::ledger::LayerName;
use crate::node::probe::Questions;
use crate::node::snapshot::{FileState, Snapshot};
use crate::resource::change::Refusal;
use crate::resource::{FIREWALL_UNIT, Resource, Wanted, edit};

const SSHD: Template = landing!("/etc/ssh/sshd_config.d/00-selfheal.conf");
const SYSCTL: Template = landing!("/etc/sysctl.d/90-selfheal.conf");
const JOURNALD: Template = landing!("/etc/systemd/journald.conf.d/60-selfheal.conf");
const TIMESYNCD: Template = landing!("/etc/systemd/timesyncd.conf.d/60-selfheal.conf");
const MODULES: Template = landing!("/etc/modules-load.d/90-selfheal.conf");
const UPGRADES: Template = landing!("/etc/apt/apt.conf.d/90-selfheal-upgrades.conf");
const CLOUD: Template = landing!("/etc/cloud/cloud.cfg.d/99-selfheal-hostname.cfg");
const RPI_SWAP: Template = landing!("/etc/rpi/swap.conf.d/60-selfheal.conf");
const DEAD_MAN: Template = landing!("/usr/local/libexec/selfheal/deadman");
const DEAD_MAN_SERVICE: Template = landing!("/etc/systemd/system/selfheal-deadman.service");
const DEAD_MAN_BOOT: Template = landing!("/etc/systemd/system/selfheal-deadman-boot.service");
const DEAD_MAN_TIMER: Template = landing!("/etc/systemd/system/selfheal-deadman.timer");
const FIREWALL: Template = landing!("/etc/selfheal/firewall.nft");
const FIREWALL_SERVICE: Template = landing!("/etc/systemd/system/selfheal-firewall.service");

const FILES: [Template; 14] = [
    SSHD,
    SYSCTL,
    JOURNALD,
    TIMESYNCD,
    MODULES,
    UPGRADES,
    CLOUD,
    RPI_SWAP,
    DEAD_MAN,
    DEAD_MAN_SERVICE,
    DEAD_MAN_BOOT,
    DEAD_MAN_TIMER,
    FIREWALL,
    FIREWALL_SERVICE,
];

/// Folders that some systems lack.
const FOLDERS: [&str; 7] = [
    "/etc/selfheal",
    "/usr/local/libexec",
    "/usr/local/libexec/selfheal",
    "/etc/systemd/journald.conf.d",
    "/etc/systemd/timesyncd.conf.d",
    "/etc/rpi/swap.conf.d",
    "/var/log/journal",
];

/// Kernel and firmware packages, of which a node has some: Ubuntu's, then Raspberry Pi OS's (domain.md §3.3).
const KERNELS: [&str; 6] = [
    "linux-raspi",
    "linux-image-raspi",
    "linux-headers-raspi",
    "linux-image-rpi-v8",
    "linux-image-rpi-2712",
    "raspi-firmware",
];

/// What keeps time; one is enough.
const TIME_KEEPERS: [&str; 4] = ["systemd-timesyncd", "chrony", "ntpsec", "ntp"];

/// k3s's own pod and service networks (domain.md §3.2).
const CLUSTER_NETWORKS: [&str; 2] = ["10.42.0.0/16", "10.43.0.0/16"];

/// What k3s and a stable node want of the kernel (domain.md §3.6); the last four are exactly what
/// `protect-kernel-defaults` checks.
const SYSCTLS: [(&str, &str); 8] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("fs.inotify.max_user_instances", "1024"),
    ("fs.inotify.max_user_watches", "524288"),
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
];

const LAYER: LayerName = LayerName::Hardening;

/// Everything this layer may want to know.
pub(super) fn questions(_: &Inventory, node: &Node) -> Questions {
    let settings = &node.hardening;
    let paths = FILES.iter().map(|(path, _)| *path).chain(FOLDERS);
    let paths = paths
        .chain(["/etc/hosts", "/etc/hostname", "/etc/fstab", "/etc/rpi"])
        .map(Utf8PathBuf::from);
    let mut packages: Vec<String> = KERNELS
        .iter()
        .chain(&TIME_KEEPERS)
        .map(ToString::to_string)
        .collect();
    packages.extend(["unattended-upgrades".to_owned(), "nftables".to_owned()]);
    packages.extend(
        settings
            .packages
            .iter()
            .chain(&settings.hold)
            .map(ToString::to_string),
    );
    let mut units: Vec<String> = settings
        .disable_services
        .iter()
        .map(ToString::to_string)
        .collect();
    units.extend(UNITS.map(str::to_owned));
    Questions {
        files: paths.collect(),
        units: units.into_iter().collect(),
        packages: packages.into_iter().collect(),
        sysctls: sysctls(settings).into_keys().collect(),
        modules: settings.modules.iter().map(ToString::to_string).collect(),
        users: [node.user.to_string()].into(),
        sshd: true,
        stranger: false,
    }
}

const UNITS: [&str; 5] = [
    "systemd-timesyncd.service",
    "dphys-swapfile.service",
    "selfheal-deadman-boot.service",
    "selfheal-deadman.timer",
    FIREWALL_UNIT,
];

/// The recipe.
pub(super) fn desired(
    inventory: &Inventory,
    node: &Node,
    snapshot: &Snapshot,
) -> Result<Vec<Resource>, Refusal> {
    let settings = &node.hardening;
    let mut resources = Vec::new();
    names(inventory, node, snapshot, &mut resources)?;
    packages(settings, snapshot, &mut resources)?;
    journal(settings, &mut resources)?;
    swap(settings, snapshot, &mut resources)?;
    clock(settings, snapshot, &mut resources)?;
    kernel(settings, &mut resources)?;
    resources.extend(
        settings
            .disable_services
            .iter()
            .map(|unit| want(Wanted::Stopped(unit.to_string()))),
    );
    dead_man(&mut resources);
    login(node, snapshot, &mut resources)?;
    firewall(inventory, node, snapshot, &mut resources)?;
    Ok(resources)
}

fn want(wanted: Wanted) -> Resource {
    Resource::new(LAYER, wanted)
}

/// k3s needs unique host names, and nodes that find one another without mDNS (domain.md §3.6).
fn names(
    inventory: &Inventory,
    node: &Node,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    let settings = &node.hardening;
    let mut block = Vec::new();
    if settings.hostname {
        resources.push(want(Wanted::Hostname(node.name.to_string())));
        block.push(format!("127.0.1.1\t{}", node.name));
        if snapshot.facts.cloud_init {
            resources.push(verbatim(LAYER, CLOUD, 0o644));
        }
    }
    if settings.hosts {
        let fixed = |node: &Node| {
            node.lan_address()
                .map(|address| format!("{address}\t{}", node.name))
        };
        block.extend(inventory.nodes.iter().filter_map(fixed));
    }
    if !block.is_empty() {
        let own_name =
            |line: &str| settings.hostname && line.split_whitespace().next() == Some("127.0.1.1");
        edited("/etc/hosts", snapshot, own_name, &block, resources);
    }
    Ok(())
}

fn packages(
    settings: &Hardening,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    if settings.automatic_upgrades == Upgrades::Security {
        resources.push(want(Wanted::Package("unattended-upgrades".into())));
        resources.push(verbatim(LAYER, UPGRADES, 0o644));
    }
    resources.extend(
        settings
            .packages
            .iter()
            .map(|name| want(Wanted::Package(name.to_string()))),
    );
    // A kernel comes when its owner wants it, not at four in the morning on all nodes at once.
    let kernels = KERNELS
        .iter()
        .filter(|name| settings.hold_kernel && snapshot.package(name).is_some());
    resources.extend(kernels.map(|name| want(Wanted::Hold((*name).to_owned()))));
    resources.extend(
        settings
            .hold
            .iter()
            .map(|name| want(Wanted::Hold(name.to_string()))),
    );
    Ok(())
}

/// Raspberry Pi OS keeps the journal in memory: a watchdog's reboot would erase its own evidence (domain.md §3.5).
fn journal(settings: &Hardening, resources: &mut Vec<Resource>) -> Result<(), Refusal> {
    let journald = &settings.journald;
    if journald.storage == Storage::Keep {
        return Ok(());
    }
    resources.push(folder("/etc/systemd/journald.conf.d"));
    if journald.storage == Storage::Persistent {
        resources.push(folder("/var/log/journal"));
    }
    let values = context! {
        storage => journald.storage.as_str(),
        max_use => journald.max_use.to_string(),
        runtime_max_use => journald.runtime_max_use.to_string(),
        max_retention => journald.max_retention.to_string(),
        sync_interval => journald.sync_interval.to_string(),
    };
    resources.push(file(LAYER, JOURNALD, 0o644, values)?);
    Ok(())
}

/// Swap does not stop k3s, it thrashes the card and delays evictions; each system has its own way to bring it back
/// (domain.md §3.4).
fn swap(
    settings: &Hardening,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    if settings.swap == Swap::Keep {
        return Ok(());
    }
    resources.push(want(Wanted::Stopped("dphys-swapfile.service".into())));
    if *snapshot.file("/etc/rpi".into()) == FileState::Directory {
        resources.push(folder("/etc/rpi/swap.conf.d"));
        resources.push(verbatim(LAYER, RPI_SWAP, 0o644));
    }
    let is_swap =
        |line: &str| !line.starts_with('#') && line.split_whitespace().nth(2) == Some("swap");
    edited("/etc/fstab", snapshot, is_swap, &[], resources);
    resources.push(want(Wanted::NoSwap));
    Ok(())
}

/// A Pi without a clock battery boots into the past; k3s before its time sync makes ghosts (domain.md §3.5, §5).
fn clock(
    settings: &Hardening,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    if !settings.time_sync
        || TIME_KEEPERS[1..]
            .iter()
            .any(|name| snapshot.package(name).is_some())
    {
        return Ok(());
    }
    resources.push(want(Wanted::Package("systemd-timesyncd".into())));
    if !settings.ntp_servers.is_empty() {
        let servers: Vec<String> = settings
            .ntp_servers
            .iter()
            .map(ToString::to_string)
            .collect();
        resources.push(folder("/etc/systemd/timesyncd.conf.d"));
        resources.push(file(
            LAYER,
            TIMESYNCD,
            0o644,
            context! { servers => servers.join(" ") },
        )?);
    }
    resources.push(want(Wanted::Running("systemd-timesyncd.service".into())));
    Ok(())
}

fn kernel(settings: &Hardening, resources: &mut Vec<Resource>) -> Result<(), Refusal> {
    let modules: Vec<String> = settings.modules.iter().map(ToString::to_string).collect();
    if !modules.is_empty() {
        resources.push(file(
            LAYER,
            MODULES,
            0o644,
            context! { modules => &modules },
        )?);
        resources.extend(modules.into_iter().map(|name| want(Wanted::Module(name))));
    }
    let sysctls = sysctls(settings);
    resources.push(file(
        LAYER,
        SYSCTL,
        0o644,
        context! { sysctls => &sysctls },
    )?);
    resources.extend(
        sysctls
            .into_iter()
            .map(|(key, value)| want(Wanted::Sysctl(key, value))),
    );
    Ok(())
}

/// The user's values go over selfheal's own.
fn sysctls(settings: &Hardening) -> BTreeMap<String, String> {
    let own = SYSCTLS
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    own.chain(
        settings
            .sysctls
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string())),
    )
    .collect()
}

/// The switch that undoes a change that locked everybody out. It is there before the first such change.
fn dead_man(resources: &mut Vec<Resource>) {
    resources.push(folder("/usr/local/libexec"));
    resources.push(folder("/usr/local/libexec/selfheal"));
    resources.push(verbatim(LAYER, DEAD_MAN, 0o755));
    resources.extend(
        [DEAD_MAN_SERVICE, DEAD_MAN_BOOT, DEAD_MAN_TIMER].map(|unit| verbatim(LAYER, unit, 0o644)),
    );
    for unit in ["selfheal-deadman-boot.service", "selfheal-deadman.timer"] {
        resources.push(want(Wanted::Enabled(unit.into())));
    }
}

/// Who may log in. Keys first, then sshd, whose first value wins over cloud-init's drop-in (domain.md §3.1).
fn login(node: &Node, snapshot: &Snapshot, resources: &mut Vec<Resource>) -> Result<(), Refusal> {
    let settings = &node.hardening;
    if let (Some(home), false) = (
        snapshot.home(node.user.as_str()),
        settings.authorized_keys.is_empty(),
    ) {
        let path = home.join(".ssh/authorized_keys");
        let current = edit::undo(snapshot.content(&path).unwrap_or_default());
        let there = String::from_utf8_lossy(&current).into_owned();
        let missing = |key: &&PublicKey| !there.contains(key.base64());
        let block: Vec<String> = settings
            .authorized_keys
            .iter()
            .filter(missing)
            .map(ToString::to_string)
            .collect();
        let content = edit::edit(
            snapshot.content(&path).unwrap_or_default(),
            |_| false,
            &block,
        );
        resources.push(want(Wanted::Edit {
            path,
            content,
            mode: 0o600,
            owner: node.user.to_string(),
        }));
    }
    let sshd = &settings.sshd;
    let yes_no = |on: bool| if on { "yes" } else { "no" };
    let values = context! {
        password_authentication => yes_no(sshd.password_authentication),
        permit_root_login => sshd.permit_root_login.as_str(),
        max_auth_tries => sshd.max_auth_tries.get(),
        login_grace_time => sshd.login_grace_time.as_secs(),
        client_alive_interval => sshd.client_alive_interval.as_secs(),
        client_alive_count_max => sshd.client_alive_count_max.get(),
        x11_forwarding => yes_no(sshd.x11_forwarding),
        settings => settings_lines(sshd),
    };
    let drop_in = file(LAYER, SSHD, 0o600, values)?;
    obeyed(&drop_in, settings, snapshot)?;
    resources.push(drop_in);
    Ok(())
}

fn settings_lines(sshd: &Sshd) -> Vec<String> {
    let lines = sshd
        .settings
        .iter()
        .flat_map(|(keyword, values)| values.iter().map(move |value| format!("{keyword} {value}")));
    lines.collect()
}

/// A drop-in that is as it should be, but that sshd does not obey, cannot be helped by writing it again.
fn obeyed(drop_in: &Resource, settings: &Hardening, snapshot: &Snapshot) -> Result<(), Refusal> {
    let Wanted::File { path, content, .. } = &drop_in.wanted else {
        return Ok(());
    };
    if snapshot.content(path) != Some(content) || snapshot.sshd.is_empty() {
        return Ok(());
    }
    let says = |line: &String| {
        let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
        snapshot
            .sshd
            .get(keyword)
            .is_some_and(|values| values.iter().any(|other| other == value))
    };
    match sshd_must_say(settings).iter().find(|line| !says(line)) {
        None => Ok(()),
        Some(line) => Err(Refusal {
            layer: LAYER,
            what: path.to_string(),
            reason: format!("sshd does not obey \"{line}\", though this file says so"),
            hint: "look for a file in /etc/ssh/sshd_config.d that sorts before it, and for settings above the Include \
                   line of /etc/ssh/sshd_config"
                .to_owned(),
        }),
    }
}

/// What `sshd -T` must say once the drop-in is in force.
pub fn sshd_must_say(settings: &Hardening) -> Vec<String> {
    let sshd = &settings.sshd;
    let yes_no = |on: bool| if on { "yes" } else { "no" };
    vec![
        "pubkeyauthentication yes".to_owned(),
        format!(
            "passwordauthentication {}",
            yes_no(sshd.password_authentication)
        ),
        format!(
            "kbdinteractiveauthentication {}",
            yes_no(sshd.password_authentication)
        ),
        format!("maxauthtries {}", sshd.max_auth_tries.get()),
        format!("x11forwarding {}", yes_no(sshd.x11_forwarding)),
    ]
}

/// An own table, never a `flush ruleset`: the chains of kube-proxy and flannel stay (domain.md §3.2).
fn firewall(
    inventory: &Inventory,
    node: &Node,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    let firewall = &node.hardening.firewall;
    if !firewall.enabled {
        return Ok(());
    }
    let nodes: Vec<String> = inventory
        .nodes
        .iter()
        .filter_map(Node::lan_address)
        .map(|ip| ip.to_string())
        .collect();
    let hole = |rule: &PortRule| {
        let port = match (rule.first, rule.last) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        context! { port, protocol => rule.protocol.as_str(), from => Vec::<String>::new(), why => "inventory" }
    };
    let values = context! {
        admins => firewall.admin.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ssh_ports => snapshot.sshd.get("port").cloned().unwrap_or_else(|| vec!["22".to_owned()]),
        nodes,
        cluster => CLUSTER_NETWORKS,
        server => node.role == Role::ControlPlane,
        etcd => inventory.control_planes().count() > 1,
        wireguard => false,
        allow => firewall.allow.iter().map(hole).collect::<Vec<_>>(),
    };
    resources.push(want(Wanted::Package("nftables".into())));
    resources.push(folder("/etc/selfheal"));
    resources.push(verbatim(LAYER, FIREWALL_SERVICE, 0o644));
    resources.push(file(LAYER, FIREWALL, 0o644, values)?);
    resources.push(want(Wanted::Running(FIREWALL_UNIT.into())));
    Ok(())
}

fn folder(path: &str) -> Resource {
    want(Wanted::Directory(path.into()))
}

/// An edit of a file of the user's, where there is such a file.
fn edited(
    path: &str,
    snapshot: &Snapshot,
    disable: impl Fn(&str) -> bool,
    block: &[String],
    resources: &mut Vec<Resource>,
) {
    if let Some(current) = snapshot.content(path.into()) {
        let content = edit::edit(current, disable, block);
        resources.push(want(Wanted::Edit {
            path: path.into(),
            content,
            mode: 0o644,
            owner: "root".into(),
        }));
    }
}
