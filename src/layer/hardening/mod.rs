//! The operating system of a node: names, packages, logs, swap, clock, services, modules, kernel parameters, and in
//! [`access`] who may log in (domain.md §3).

mod access;

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use minijinja::context;

use super::template::{Template, file, landing, verbatim};
use crate::inventory::{Hardening, Inventory, Node, Storage, Swap, Upgrades};
use crate::node::file::FileState;
use crate::node::ledger::LayerName;
use crate::node::probe::Questions;
use crate::node::snapshot::Snapshot;
use crate::resource::change::Refusal;
use crate::resource::{Resource, Wanted, edit};

pub use access::sshd_must_say;

const SYSCTL: Template = landing!("/etc/sysctl.d/90-selfheal.conf");
const JOURNALD: Template = landing!("/etc/systemd/journald.conf.d/60-selfheal.conf");
const TIMESYNCD: Template = landing!("/etc/systemd/timesyncd.conf.d/60-selfheal.conf");
const MODULES: Template = landing!("/etc/modules-load.d/90-selfheal.conf");
const UPGRADES: Template = landing!("/etc/apt/apt.conf.d/90-selfheal-upgrades.conf");
const CLOUD: Template = landing!("/etc/cloud/cloud.cfg.d/99-selfheal-hostname.cfg");
const RPI_SWAP: Template = landing!("/etc/rpi/swap.conf.d/60-selfheal.conf");

const FILES: [Template; 7] = [
    SYSCTL, JOURNALD, TIMESYNCD, MODULES, UPGRADES, CLOUD, RPI_SWAP,
];

/// Folders that some systems lack.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/journald.conf.d",
    "/etc/systemd/timesyncd.conf.d",
    "/etc/rpi/swap.conf.d",
    "/var/log/journal",
];

/// Kernel and firmware packages, of which a node has some: Ubuntu's, then Raspberry Pi OS's (domain.md §3.3), then
/// Debian's. Those that it has are held: these names draw in each new version, so no other has to be.
const KERNELS: [&str; 8] = [
    "linux-raspi",
    "linux-image-raspi",
    "linux-headers-raspi",
    "linux-image-rpi-v8",
    "linux-image-rpi-2712",
    "raspi-firmware",
    "linux-image-arm64",
    "linux-image-amd64",
];

/// What keeps time; one is enough.
const TIME_KEEPERS: [&str; 4] = ["systemd-timesyncd", "chrony", "ntpsec", "ntp"];

/// What k3s and a stable node want of the kernel (domain.md §3.6). The last two, and those of panics in the watchdog
/// layer, are exactly what `protect-kernel-defaults` checks.
const SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv4.ip_forward", "1"),
    ("net.bridge.bridge-nf-call-iptables", "1"),
    ("fs.inotify.max_user_instances", "1024"),
    ("fs.inotify.max_user_watches", "524288"),
    ("vm.overcommit_memory", "1"),
    ("vm.panic_on_oom", "0"),
];

const LAYER: LayerName = LayerName::Hardening;

/// Everything this layer may want to know.
pub(super) fn questions(_: &Inventory, node: &Node) -> Questions {
    let settings = &node.hardening;
    let templates = FILES.iter().chain(&access::FILES).map(|(path, _)| *path);
    let paths = templates.chain(FOLDERS).chain(access::FOLDERS);
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
    units.extend(UNITS.iter().chain(&access::UNITS).map(ToString::to_string));
    Questions {
        files: paths.collect(),
        units: units.into_iter().collect(),
        packages: packages.into_iter().collect(),
        sysctls: sysctls(settings).into_keys().collect(),
        modules: settings.modules.iter().map(ToString::to_string).collect(),
        users: [node.user.to_string()].into(),
        sshd: true,
        ..Questions::default()
    }
}

const UNITS: [&str; 2] = ["systemd-timesyncd.service", "dphys-swapfile.service"];

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
    access::dead_man(&mut resources);
    access::login(node, snapshot, &mut resources)?;
    access::firewall(inventory, node, snapshot, &mut resources)?;
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
