//! What brings a node back that froze: the hardware watchdog and panics that reboot. And what keeps it from rebooting for
//! ever: a budget, and safe mode when that is spent (domain.md §2).

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use minijinja::context;

use super::template::{Template, file, landing, verbatim};
use crate::inventory::{Model, Node};
use crate::node::facts::Facts;
use crate::node::ledger::LayerName;
use crate::node::probe::Questions;
use crate::node::snapshot::Snapshot;
use crate::resource::change::Refusal;
use crate::resource::{Resource, Wanted};

const MANAGER: Template = landing!("/etc/systemd/system.conf.d/60-selfheal-watchdog.conf");
const SYSCTL: Template = landing!("/etc/sysctl.d/90-selfheal-panic.conf");
const BOOTS: Template = landing!("/usr/local/libexec/selfheal/boots");
const BOOTS_SERVICE: Template = landing!("/etc/systemd/system/selfheal-boots.service");
const UPTIME_SERVICE: Template = landing!("/etc/systemd/system/selfheal-uptime.service");
const UPTIME_TIMER: Template = landing!("/etc/systemd/system/selfheal-uptime.timer");
const SAFE_MODE_SERVICE: Template = landing!("/etc/systemd/system/selfheal-safe-mode.service");
const SAFE_MODE_TIMER: Template = landing!("/etc/systemd/system/selfheal-safe-mode.timer");
const K3S: Template = landing!("/etc/systemd/system/k3s.service.d/60-selfheal-safe-mode.conf");
const K3S_AGENT: Template =
    landing!("/etc/systemd/system/k3s-agent.service.d/60-selfheal-safe-mode.conf");

const FILES: [Template; 10] = [
    MANAGER,
    SYSCTL,
    BOOTS,
    BOOTS_SERVICE,
    UPTIME_SERVICE,
    UPTIME_TIMER,
    SAFE_MODE_SERVICE,
    SAFE_MODE_TIMER,
    K3S,
    K3S_AGENT,
];

/// Folders that a system may lack.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system.conf.d",
    "/usr/local/libexec",
    "/usr/local/libexec/selfheal",
    "/etc/systemd/system/k3s.service.d",
    "/etc/systemd/system/k3s-agent.service.d",
];

const BOOTS_UNIT: &str = "selfheal-boots.service";
const UPTIME_UNIT: &str = "selfheal-uptime.timer";
const SAFE_MODE_UNIT: &str = "selfheal-safe-mode.timer";

/// Those who want the hardware watchdog for themselves (domain.md §2.2).
const RIVALS: [&str; 2] = ["watchdog.service", "wd_keepalive.service"];

/// The policy of domain.md §2.3, but for what depends on the node. The first two are what k3s's
/// `protect-kernel-defaults` demands.
const SYSCTLS: [(&str, &str); 6] = [
    ("kernel.panic", "10"),
    ("kernel.panic_on_oops", "1"),
    ("kernel.softlockup_panic", "1"),
    // A replica that hangs puts healthy tasks to sleep: a panic would go round all nodes.
    ("kernel.hung_task_panic", "0"),
    ("kernel.hung_task_warnings", "-1"),
    ("kernel.max_rcu_stall_to_panic", "3"),
];
const HUNG_TASK_TIMEOUT: &str = "kernel.hung_task_timeout_secs";
const PANIC_ON_STALL: &str = "kernel.panic_on_rcu_stall";

/// Panics that are off on purpose while the node is in safe mode.
const OFF_IN_SAFE_MODE: [&str; 3] = [
    "kernel.panic_on_oops",
    "kernel.softlockup_panic",
    PANIC_ON_STALL,
];

/// The kernel's number for SD cards and eMMC (`mmcblk`).
const SD_CARD: u32 = 179;

const LAYER: LayerName = LayerName::Watchdog;

/// Everything this layer may want to know.
pub(super) fn questions() -> Questions {
    let paths = FILES.iter().map(|(path, _)| *path).chain(FOLDERS);
    let units = RIVALS
        .into_iter()
        .chain([BOOTS_UNIT, UPTIME_UNIT, SAFE_MODE_UNIT]);
    let sysctls = SYSCTLS.iter().map(|(key, _)| *key);
    Questions {
        files: paths.map(Utf8PathBuf::from).collect(),
        units: units.map(str::to_owned).collect(),
        sysctls: sysctls
            .chain([HUNG_TASK_TIMEOUT, PANIC_ON_STALL])
            .map(str::to_owned)
            .collect(),
        manager: true,
        ..Questions::default()
    }
}

/// The recipe.
pub(super) fn desired(node: &Node, snapshot: &Snapshot) -> Result<Vec<Resource>, Refusal> {
    let mut resources = Vec::new();
    hardware(node, snapshot, &mut resources)?;
    panics(node, snapshot, &mut resources)?;
    budget(node, &mut resources)?;
    Ok(resources)
}

/// What the user should know of a node that is as wanted.
pub(super) fn notes(node: &Node, snapshot: &Snapshot) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(reason) = &snapshot.safe_mode {
        notes.push(format!(
            "in safe mode: {reason}; k3s does not start there, and panics are off on purpose. When the cause is gone: \
             selfheal node resume {}",
            node.name
        ));
    }
    if !node.watchdog.hardware {
        return notes;
    }
    match &snapshot.facts.watchdog {
        None => notes.push(
            "no hardware watchdog: nothing resets this node when its kernel freezes. On a Pi the boot layer switches it on \
             (boot.board_watchdog); where there is none, `watchdog.hardware = false` ends this note"
                .to_owned(),
        ),
        Some(device)
            if device.identity == "Software Watchdog" && node.model != Some(Model::Virtual) =>
        {
            notes.push(
                "the only watchdog is the kernel's own (softdog), which dies with the kernel; on a Pi take `softdog` out \
                 of the modules that are loaded"
                    .to_owned(),
            );
        }
        Some(_) => {}
    }
    notes
}

fn want(wanted: Wanted) -> Resource {
    Resource::new(LAYER, wanted)
}

fn folder(path: &str) -> Resource {
    want(Wanted::Directory(path.into()))
}

fn refuse(what: &str, reason: String, hint: String) -> Refusal {
    Refusal {
        layer: LAYER,
        what: what.to_owned(),
        reason,
        hint,
    }
}

/// systemd feeds the watchdog, nobody else.
fn hardware(
    node: &Node,
    snapshot: &Snapshot,
    resources: &mut Vec<Resource>,
) -> Result<(), Refusal> {
    let settings = &node.watchdog;
    if !settings.hardware {
        return Ok(());
    }
    let stopped = |unit: &str| {
        let mut disabled = node.hardening.disable_services.iter();
        disabled.any(|disabled| disabled.as_str() == unit)
    };
    let runs = |unit: &&&str| {
        let state = snapshot.unit(unit);
        (state.active || state.enabled()) && !stopped(unit)
    };
    if let Some(unit) = RIVALS.iter().find(runs) {
        return Err(refuse(
            unit,
            "it feeds the hardware watchdog, which only one program can; with its own tests it also reboots a Pi that is \
             merely busy"
                .to_owned(),
            format!(
                "take it off the node (`sudo apt-get remove watchdog`) or add \"{unit}\" to hardening.disable_services; \
                 to keep it instead of systemd's, set watchdog.hardware = false"
            ),
        ));
    }
    let timeout = timeout(node, &snapshot.facts)?;
    let shutdown_timeout = settings.shutdown_timeout;
    let wanted = [
        (
            "RuntimeWatchdogUSec",
            std::time::Duration::from_secs(timeout),
        ),
        ("RebootWatchdogUSec", shutdown_timeout.get()),
    ];
    let obeyed = wanted
        .iter()
        .all(|(property, time)| snapshot.manager.get(*property) == Some(time));
    let name = |path: &Utf8Path| path.file_name().map(str::to_owned);
    let after = |path: &&Utf8PathBuf| name(path) > name(MANAGER.0.into());
    if let (false, Some(other)) = (obeyed, snapshot.manager_drop_ins.iter().find(after)) {
        return Err(refuse(
            MANAGER.0,
            format!("{other} goes after it and sets a watchdog time of its own"),
            "take the watchdog lines out of that file; what you want instead can be said in [watchdog]".to_owned(),
        ));
    }
    resources.push(folder("/etc/systemd/system.conf.d"));
    let values = context! { timeout, shutdown_timeout => shutdown_timeout.as_secs() };
    resources.push(file(LAYER, MANAGER, 0o644, values)?);
    resources.extend(wanted.map(|(property, time)| want(Wanted::Systemd(property, time))));
    Ok(())
}

/// Seconds that the hardware waits for systemd. From 6.8 on the kernel stretches a Pi's 15 s as far as it is asked to; a
/// busy SD card can hold systemd up for longer than 14 s, so 60 s it is where that works (domain.md §2.1), as it does
/// with a device that counts further by itself.
fn timeout(node: &Node, facts: &Facts) -> Result<u64, Refusal> {
    let device = facts
        .watchdog
        .as_ref()
        .filter(|device| device.max_timeout > 0);
    match (node.watchdog.timeout, device) {
        (Some(wanted), Some(device)) if wanted.as_secs() > device.max_timeout => Err(refuse(
            "watchdog.timeout",
            format!(
                "the node's watchdog ({}) waits {} s at most, not {wanted}",
                device.identity, device.max_timeout
            ),
            "leave watchdog.timeout out for this node; kernels from 6.8 on can wait longer on a Pi"
                .to_owned(),
        )),
        (Some(wanted), _) => Ok(wanted.as_secs()),
        (None, device) => {
            let longest = device.map(|device| device.max_timeout);
            let stretched = facts.kernel_version() >= Some((6, 8)) || longest > Some(60);
            let usual = if stretched { 60 } else { 14 };
            // Less than the longest: the driver rounds.
            Ok(longest.map_or(usual, |longest| usual.min(longest.max(2) - 1)))
        }
    }
}

fn panics(node: &Node, snapshot: &Snapshot, resources: &mut Vec<Resource>) -> Result<(), Refusal> {
    let facts = &snapshot.facts;
    let on_sd_card = facts.mount("/").is_some_and(|root| root.major == SD_CARD);
    let hung = match node.watchdog.hung_task_timeout {
        Some(wanted) => wanted.as_secs(),
        None if on_sd_card => 240,
        None => 120,
    };
    let mut sysctls: BTreeMap<&str, String> = SYSCTLS
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()))
        .collect();
    sysctls.insert(HUNG_TASK_TIMEOUT, hung.to_string());
    resources.push(file(
        LAYER,
        SYSCTL,
        0o644,
        context! { sysctls => &sysctls },
    )?);
    if let Some(panic) = panic_on_stall(facts) {
        sysctls.insert(PANIC_ON_STALL, u8::from(panic).to_string());
    }
    resources.extend(sysctls.into_iter().map(|(key, value)| {
        let paused = snapshot.safe_mode.is_some() && OFF_IN_SAFE_MODE.contains(&key);
        let as_it_is = snapshot.sysctl(key).filter(|_| paused).map(str::to_owned);
        want(Wanted::Sysctl(key.to_owned(), as_it_is.unwrap_or(value)))
    }));
    Ok(())
}

/// Whether a stalled RCU grace period ends in a panic: only where an expedited one has as long as a normal one. At each
/// boot the script `boots` decides by the same rule, since the kernel may be another then (domain.md §2.3).
fn panic_on_stall(facts: &Facts) -> Option<bool> {
    match facts.rcu_exp_cpu_stall_timeout? {
        0 | 21_000.. => Some(true),
        1..=999 => Some(false),
        _ => None,
    }
}

/// Every reboot by itself is counted (domain.md §2.4).
fn budget(node: &Node, resources: &mut Vec<Resource>) -> Result<(), Refusal> {
    let settings = &node.watchdog;
    resources.extend(FOLDERS[1..].iter().map(|path| folder(path)));
    resources.push(verbatim(LAYER, BOOTS, 0o755));
    resources.extend(
        [
            UPTIME_SERVICE,
            UPTIME_TIMER,
            SAFE_MODE_SERVICE,
            K3S,
            K3S_AGENT,
        ]
        .map(|unit| verbatim(LAYER, unit, 0o644)),
    );
    let allowed = context! {
        unclean_boots => settings.unclean_boots.get(),
        within => settings.within.as_secs(),
    };
    resources.push(file(LAYER, BOOTS_SERVICE, 0o644, allowed)?);
    let limit = context! { safe_mode => settings.safe_mode.as_secs() };
    resources.push(file(LAYER, SAFE_MODE_TIMER, 0o644, limit)?);
    resources.extend([BOOTS_UNIT, UPTIME_UNIT].map(|unit| want(Wanted::Running(unit.to_owned()))));
    resources.push(want(Wanted::Enabled(SAFE_MODE_UNIT.to_owned())));
    Ok(())
}
