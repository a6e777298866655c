//! k3s on a node: its unit, version, certificates, secrets and datastore (domain.md §4).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use der::asn1::{AnyRef, GeneralizedTime, UtcTime};
use der::{Decode, Reader, SliceReader, Tag, Tagged};

use super::finding::{Outcome, Verdict, graded};
use super::patient::Patient;
use crate::inventory::{K3sVersion, Node, Role};

/// Seconds after which restarts of k3s are history.
const HOUR: f64 = 3600.0;
/// Restarts in that time above which it is a loop.
const LOOP: u32 = 5;
/// The minor version from which kubelet survives a clock that went back (domain.md §5.1, cause A).
const NO_GHOSTS: u32 = 35;
const DAY: f64 = 86_400.0;
/// Days before its end from which k3s renews a certificate when it starts.
const RENEWED: f64 = 120.0;
/// Days before its end from which a certificate fails.
const SOON: f64 = 30.0;
const GIB: f64 = (1u64 << 30) as f64;
/// Size of sqlite's write-ahead log from which it is not checkpointed any more.
const LONG_LOG: f64 = GIB / 2.0;
const DATABASES: [&str; 2] = [
    "/var/lib/rancher/k3s/server/db/state.db",
    "/var/lib/rancher/k3s/server/db/etcd/member/snap/db",
];
const WRITE_AHEAD_LOG: &str = "/var/lib/rancher/k3s/server/db/state.db-wal";
const TOKEN: &str = "/var/lib/rancher/k3s/server/token";
pub(super) const NODE_PASSWORD: &str = "/etc/rancher/node/password";

/// The unit that k3s is on a node.
pub(super) fn service(node: &Node) -> &'static str {
    match node.role {
        Role::ControlPlane => "k3s.service",
        Role::Worker => "k3s-agent.service",
    }
}

/// A unit as `systemctl show` tells of it.
#[derive(Clone, Copy)]
pub(super) struct Unit<'a>(&'a str);

impl<'a> Unit<'a> {
    pub(super) fn of(patient: &Patient<'a>, name: &str) -> Unit<'a> {
        let id = format!("Id={name}");
        let text = patient.measured.text("doctor k3s-units");
        let block = text
            .split("\n\n")
            .find(|block| block.lines().any(|line| line == id));
        Unit(block.unwrap_or_default())
    }

    pub(super) fn value(self, key: &str) -> &'a str {
        let mut pairs = self.0.lines().filter_map(|line| line.split_once('='));
        pairs
            .find(|(name, _)| *name == key)
            .map_or("", |(_, value)| value)
    }

    /// Whether one of the property's lines names this: systemd has a line for each command.
    pub(super) fn names(self, key: &str, what: &str) -> bool {
        let mut pairs = self.0.lines().filter_map(|line| line.split_once('='));
        pairs.any(|(name, value)| name == key && value.contains(what))
    }

    pub(super) fn is_loaded(self) -> bool {
        self.value("LoadState") == "loaded"
    }

    pub(super) fn is_active(self) -> bool {
        self.value("ActiveState") == "active"
    }

    pub(super) fn is_enabled(self) -> bool {
        self.value("UnitFileState") == "enabled"
    }
}

/// Why there is nothing to say of k3s on this node, if there is not.
pub(super) fn absent(patient: &Patient<'_>) -> Option<Outcome> {
    if !patient.node.k3s.install {
        return Some(Outcome::skipped(
            "the inventory does not install k3s here (k3s.install = false)",
        ));
    }
    if patient.text("k3s-units").is_empty() {
        return Some(Outcome::unknown(
            "systemd does not answer",
            "ask `systemctl status k3s` on the node",
        ));
    }
    let unit = Unit::of(patient, service(patient.node));
    (!unit.is_loaded()).then(|| Outcome::skipped("k3s is not installed here yet"))
}

pub(super) fn unit(patient: &Patient<'_>) -> Outcome {
    let name = service(patient.node);
    let unit = Unit::of(patient, name);
    match absent(patient) {
        Some(skipped) if skipped.verdict == Verdict::Skipped && patient.node.k3s.install => {
            return Outcome::fail(
                format!("there is no {name}"),
                "`selfheal apply` installs k3s",
            );
        }
        Some(other) => return other,
        None => {}
    }
    let restarts: u32 = unit.value("NRestarts").parse().unwrap_or_default();
    let (state, sub, result) = (
        unit.value("ActiveState"),
        unit.value("SubState"),
        unit.value("Result"),
    );
    let evidence =
        format!("{name} is {state} ({sub}), restarts: {restarts}, last result: {result}");
    let log = format!("`sudo journalctl -u {name} -n 50` says why");
    if !patient.text("safe-mode").is_empty() && state != "active" {
        return Outcome::fail(
            format!("{evidence}; the node is in safe mode"),
            format!(
                "when the cause is gone: `selfheal node resume {}`",
                patient.node.name
            ),
        );
    }
    let since = unit
        .value("ActiveEnterTimestampMonotonic")
        .parse::<f64>()
        .unwrap_or_default()
        / 1e6;
    let runs_for = patient.measured.snapshot.facts.uptime.as_secs_f64() - since;
    match state {
        "active" if restarts > LOOP && runs_for < HOUR => Outcome::fail(evidence, log),
        "active" if restarts > 1 && runs_for < HOUR => Outcome::warn(evidence, log),
        "active" if !unit.is_enabled() => Outcome::warn(
            format!("{evidence}, but it is not enabled"),
            "after a reboot it does not start: `selfheal apply`",
        ),
        "active" => Outcome::ok(evidence),
        "activating" if sub != "auto-restart" && restarts <= 1 => Outcome::warn(
            evidence,
            format!("it starts, which takes minutes on a Pi; {log}"),
        ),
        "activating" | "reloading" | "deactivating" | "failed" | "inactive" => {
            Outcome::fail(evidence, log)
        }
        _ => Outcome::unknown(evidence, log),
    }
}

/// The version of the k3s that lies on a node.
fn installed(text: &str) -> Option<K3sVersion> {
    let words = text
        .lines()
        .find_map(|line| line.strip_prefix("k3s version "))?;
    words.split_whitespace().next()?.parse().ok()
}

pub(super) fn version(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    let Some(version) = installed(patient.text("k3s-version")) else {
        return Outcome::unknown(
            "`k3s --version` says nothing",
            "run it on the node; `selfheal apply` puts the program back",
        );
    };
    let wanted = patient.versions.k3s();
    let others = patient
        .all
        .iter()
        .filter(|(node, _)| node.name != patient.node.name && node.k3s.install);
    let others: Vec<(&Node, K3sVersion)> = others
        .filter_map(|(node, measured)| {
            Some((*node, installed(measured.text("doctor k3s-version"))?))
        })
        .collect();
    let upgrade = "set `k3s` in [versions], one minor version at a time, and run `selfheal apply`";
    if version.minor() < NO_GHOSTS {
        return Outcome::fail(
            format!(
                "{version}: a clock that goes back over a reboot makes ghosts before 1.{NO_GHOSTS}"
            ),
            upgrade,
        )
        .asked_for(wanted == version);
    }
    let differs = |other: &&(&Node, K3sVersion)| other.1.minor() != version.minor();
    if let Some((node, other)) = others.iter().find(differs) {
        return Outcome::fail(
            format!("{version} here, {other} on {}", node.name),
            "finish the upgrade: `selfheal apply`; servers first, agents never newer than they",
        );
    }
    if version.minor() != wanted.minor() {
        return Outcome::fail(format!("{version}, the inventory wants {wanted}"), upgrade);
    }
    if version != wanted {
        return Outcome::warn(
            format!("{version}, the inventory wants {wanted}"),
            "`selfheal apply` upgrades it; a newer one stays, so write it into [versions]",
        );
    }
    match others.iter().find(|(_, other)| *other != version) {
        Some((node, other)) => Outcome::warn(
            format!("{version} here, {other} on {}", node.name),
            "`selfheal apply` brings all nodes to one version",
        ),
        None => Outcome::ok(format!("{version}, as the inventory has it")),
    }
}

pub(super) fn certificates(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    let mut soonest: Option<(f64, &str)> = None;
    let mut count = 0;
    for (path, pem) in patient.measured.texts("doctor certificate ") {
        let Some(end) = not_after(pem) else {
            return Outcome::unknown(
                format!("{path} is no certificate that can be read"),
                "k3s makes it anew: move it away and restart k3s",
            );
        };
        count += 1;
        if soonest.is_none_or(|(other, _)| end < other) {
            soonest = Some((end, path));
        }
    }
    let Some((end, path)) = soonest else {
        return Outcome::unknown(
            "no certificate in /var/lib/rancher/k3s",
            "has k3s ever started here?",
        );
    };
    let days = (end - patient.clock()) / DAY;
    let unit = service(patient.node);
    let hint =
        format!("k3s renews them when it starts: `sudo systemctl restart {unit}`; pods stay up");
    let evidence = format!("{count} certificates, the first ends in {days:.0} days ({path})");
    if days < 0.0 {
        Outcome::fail(format!("ended {:.0} days ago: {path}", -days), hint)
    } else if days < SOON {
        Outcome::fail(evidence, hint)
    } else if days <= RENEWED {
        Outcome::warn(evidence, hint)
    } else {
        Outcome::ok(evidence)
    }
}

/// When a certificate ends, in seconds since the epoch.
fn not_after(pem: &str) -> Option<f64> {
    let body: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .map(str::trim)
        .collect();
    let bytes = BASE64_STANDARD.decode(body).ok()?;
    // Certificate { to be signed { [0] version, serial number, algorithm, issuer, validity { not before, not after } } }
    let certificate = parts(AnyRef::from_der(&bytes).ok()?)?;
    let signed = parts(*certificate.first()?)?;
    let version = usize::from(matches!(signed.first()?.tag(), Tag::ContextSpecific { .. }));
    let validity = parts(*signed.get(version + 3)?)?;
    let end = *validity.get(1)?;
    let end = match end.tag() {
        Tag::UtcTime => end.decode_as::<UtcTime>().ok()?.to_unix_duration(),
        _ => end.decode_as::<GeneralizedTime>().ok()?.to_unix_duration(),
    };
    Some(end.as_secs_f64())
}

/// The parts of a sequence (RFC 5280, section 4.1).
fn parts(sequence: AnyRef<'_>) -> Option<Vec<AnyRef<'_>>> {
    if sequence.tag() != Tag::Sequence {
        return None;
    }
    let mut reader = SliceReader::new(sequence.value()).ok()?;
    let mut parts = Vec::new();
    while !reader.is_finished() {
        parts.push(AnyRef::decode(&mut reader).ok()?);
    }
    Some(parts)
}

/// A file of k3s's as `stat` tells of it.
struct Kept<'a> {
    mode: u32,
    size: f64,
    path: &'a str,
}

fn kept<'a>(patient: &Patient<'a>) -> Vec<Kept<'a>> {
    let text = patient.measured.text("doctor k3s-files");
    let kept = text.lines().filter_map(|line| {
        let mut words = line.splitn(4, ' ');
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let size = words.nth(1)?.parse().ok()?;
        Some(Kept {
            mode,
            size,
            path: words.next()?,
        })
    });
    kept.collect()
}

pub(super) fn secrets(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    let name = &patient.node.name;
    let rejoin = format!(
        "a re-flashed node needs its old record gone: `sudo k3s kubectl delete node {name}` on the control plane, then \
         restart k3s here; `selfheal apply` does both"
    );
    let mut log = patient.text("k3s-log").lines();
    if let Some(line) = log.rfind(|line| line.contains("Node password rejected")) {
        return Outcome::fail(line.to_owned(), rejoin);
    }
    let files = kept(patient);
    let is_there = |path: &str| files.iter().any(|file| file.path == path);
    let known =
        super::cluster::View::of(patient).is_some_and(|view| view.node(patient.node).is_some());
    if known && !is_there(NODE_PASSWORD) {
        return Outcome::fail(
            format!("the cluster knows {name}, but {NODE_PASSWORD} is not there"),
            rejoin,
        );
    }
    let open = |bits: u32| {
        let open = files
            .iter()
            .filter(move |file| is_secret(file.path) && file.mode & bits != 0);
        let shown: Vec<String> = open
            .map(|file| format!("{} ({:04o})", file.path, file.mode))
            .collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    };
    let hint = "`sudo chmod 0600` them; who could log in may have read them: then make new tokens";
    if let Some(open) = open(0o007) {
        return Outcome::fail(format!("readable by everybody: {open}"), hint);
    }
    if let Some(open) = open(0o070) {
        return Outcome::warn(format!("readable by a group: {open}"), hint);
    }
    if patient.node.role == Role::ControlPlane && !is_there(TOKEN) {
        return Outcome::warn(
            format!("there is no {TOKEN}"),
            "without it the datastore cannot be restored: restart k3s, and back it up",
        );
    }
    let count = files.iter().filter(|file| is_secret(file.path)).count();
    Outcome::ok(format!("{count} files, root's alone"))
}

fn is_secret(path: &str) -> bool {
    !path.contains("/db/")
}

pub(super) fn datastore(patient: &Patient<'_>) -> Outcome {
    if let Some(skipped) = absent(patient) {
        return skipped;
    }
    if patient.node.role == Role::Worker {
        return Outcome::skipped("a worker has none");
    }
    let files = kept(patient);
    let size = |path: &str| {
        files
            .iter()
            .find(|file| file.path == path)
            .map(|file| file.size)
    };
    let Some((path, bytes)) = DATABASES.iter().find_map(|path| Some((*path, size(path)?))) else {
        return Outcome::unknown(
            "neither state.db nor etcd's db in /var/lib/rancher/k3s/server/db",
            "has k3s ever started here? Is its datastore elsewhere?",
        );
    };
    let log = size(WRITE_AHEAD_LOG).unwrap_or_default();
    let shown = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
    let mut evidence = format!("{path}: {}", shown(bytes));
    if path.ends_with("state.db") {
        evidence += &format!(", its log: {}", shown(log));
    }
    let hint = "what writes so much? Many events and old secrets of Helm do";
    match graded(bytes, GIB, 2.0 * GIB) {
        Verdict::Fail => Outcome::fail(evidence, hint),
        Verdict::Warn => Outcome::warn(evidence, hint),
        _ if log > LONG_LOG => {
            Outcome::warn(evidence, "its log is not taken in any more: restart k3s")
        }
        _ => Outcome::ok(evidence),
    }
}
