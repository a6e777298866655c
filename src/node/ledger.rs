//! The ledger on a node: what selfheal owns there, and what was there before.
//!
//! One line an entry, fields separated by tabs, so that a shell script can read it: layer, kind, key, values. It is
//! written in the same exec *before* the things it names, so that a node never holds anything of selfheal's that the
//! ledger does not know.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use camino::Utf8PathBuf;
use serde::Serialize;

/// Where the ledger lies on a node.
pub const PATH: &str = "/var/lib/selfheal/ledger";
/// Below this folder lie the user's originals, under their own paths.
pub const ORIGINALS: &str = "/var/lib/selfheal/original";

const HEADER: &str = "# selfheal's ledger: what it owns on this node (layer, kind, key, values)\n";

/// The layers, in the order in which a node goes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerName {
    /// The operating system: names, packages, sshd, logs, swap, clock, services, modules, sysctls, firewall.
    Hardening,
    /// Kernel command line.
    Boot,
    /// Hardware watchdog, panics, reboot budget and safe mode.
    Watchdog,
    /// k3s, and what brings it back after a power cut.
    K3s,
    /// What Longhorn wants of a node.
    Longhorn,
}

impl LayerName {
    /// All layers in sequence.
    pub const ALL: [LayerName; 5] = [
        LayerName::Hardening,
        LayerName::Boot,
        LayerName::Watchdog,
        LayerName::K3s,
        LayerName::Longhorn,
    ];

    /// The name that `--only`, `--skip` and the ledger use.
    pub fn as_str(self) -> &'static str {
        match self {
            LayerName::Hardening => "hardening",
            LayerName::Boot => "boot",
            LayerName::Watchdog => "watchdog",
            LayerName::K3s => "k3s",
            LayerName::Longhorn => "longhorn",
        }
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for LayerName {
    type Err = String;

    fn from_str(text: &str) -> Result<LayerName, String> {
        LayerName::ALL
            .into_iter()
            .find(|layer| layer.as_str() == text)
            .ok_or_else(|| {
                let names: Vec<_> = LayerName::ALL.iter().map(|layer| layer.as_str()).collect();
                format!(
                    "no layer is called '{text}'; the layers are {}",
                    names.join(", ")
                )
            })
    }
}

/// What kind of thing is owned; with its name it identifies the thing on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A whole file.
    File,
    /// A marked part of a file of the user's.
    Edit,
    /// A folder.
    Directory,
    /// A sysctl's runtime value.
    Sysctl,
    /// A setting of systemd itself, as it is in force; what is owned is the file that says it.
    Systemd,
    /// A systemd unit's enablement and state.
    Unit,
    /// A Debian package.
    Package,
    /// A hold on a Debian package.
    Hold,
    /// A loaded kernel module.
    Module,
    /// The host name.
    Hostname,
    /// Swap devices and files in use.
    Swap,
    /// The kernel command line; what is owned of it are [`Kind::BootToken`]s and [`Kind::BootTokenRemoved`]s.
    CommandLine,
    /// A token of the kernel command line.
    BootToken,
    /// A token that was taken off the kernel command line.
    BootTokenRemoved,
    /// selfheal's part of config.txt.
    BootConfig,
    /// A file of a release of k3s.
    Asset,
    /// A file that holds a token.
    Secret,
    /// The object of a node that was flashed anew; never in a ledger.
    StaleNode,
    /// A node's object in Kubernetes, which says itself what of it is selfheal's; never in a ledger.
    NodeObject,
    /// What k3s keeps of a cluster on a node; never in a ledger.
    ClusterData,
    /// What a node showed once and does not show again after it was acted upon.
    Evidence,
}

impl Kind {
    const ALL: [(Kind, &str); 21] = [
        (Kind::File, "file"),
        (Kind::Directory, "directory"),
        (Kind::Edit, "edit"),
        (Kind::Sysctl, "sysctl"),
        (Kind::Systemd, "systemd"),
        (Kind::Unit, "unit"),
        (Kind::Package, "package"),
        (Kind::Hold, "hold"),
        (Kind::Module, "module"),
        (Kind::Hostname, "hostname"),
        (Kind::Swap, "swap"),
        (Kind::CommandLine, "command-line"),
        (Kind::BootToken, "boot-token"),
        (Kind::BootTokenRemoved, "boot-token-removed"),
        (Kind::BootConfig, "boot-config"),
        (Kind::Asset, "asset"),
        (Kind::Secret, "secret"),
        (Kind::StaleNode, "stale-node"),
        (Kind::NodeObject, "node-object"),
        (Kind::ClusterData, "cluster-data"),
        (Kind::Evidence, "evidence"),
    ];

    /// Whether a thing of this kind stands in a boot file: those are undone all at once, by writing the file anew.
    pub fn is_boot(self) -> bool {
        matches!(
            self,
            Kind::BootToken | Kind::BootTokenRemoved | Kind::BootConfig
        )
    }

    /// The word in the ledger and in plans.
    pub fn as_str(self) -> &'static str {
        Kind::ALL
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// One thing on a node: its kind and its name (a path, a sysctl key, a unit, …).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Id {
    /// Its kind.
    pub kind: Kind,
    /// Its name among those of its kind.
    pub name: String,
}

impl Id {
    /// The thing of this kind and name.
    pub fn new(kind: Kind, name: impl Into<String>) -> Id {
        Id {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Hostname | Kind::Swap => formatter.write_str(&self.name),
            kind => write!(formatter, "{kind} {}", self.name),
        }
    }
}

/// How the thing was before selfheal: what an undo goes back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Before {
    /// It was not there.
    Nothing,
    /// A file of the user's, kept below [`ORIGINALS`].
    Original,
    /// A value: a sysctl, a host name.
    Value(String),
    /// A unit's state.
    Unit {
        /// It was enabled.
        enabled: bool,
        /// It was running.
        active: bool,
    },
}

/// An entry of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The layer that wanted it.
    pub layer: LayerName,
    /// What was there before.
    pub before: Before,
    /// For files: the sha256 of what selfheal wrote.
    pub sha256: Option<String>,
}

/// What selfheal owns on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    entries: BTreeMap<Id, Entry>,
    /// Lines a newer selfheal wrote: kept as they are.
    foreign: Vec<String>,
}

impl Ledger {
    /// Reads a ledger; lines that mean nothing to this version are kept for one that understands them.
    pub fn parse(text: &str) -> Ledger {
        let mut ledger = Ledger::default();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            match entry(line) {
                Some((id, entry)) => drop(ledger.entries.insert(id, entry)),
                None => ledger.foreign.push(line.to_owned()),
            }
        }
        ledger
    }

    /// The entry for `id`, if selfheal owns it.
    pub fn get(&self, id: &Id) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Everything owned.
    pub fn iter(&self) -> impl Iterator<Item = (&Id, &Entry)> {
        self.entries.iter()
    }

    /// Records that selfheal owns `id`. What was there before the *first* time stays on record.
    pub fn own(&mut self, id: Id, mut entry: Entry) {
        if let Some(old) = self.entries.get(&id) {
            entry.before = old.before.clone();
        }
        self.entries.insert(id, entry);
    }

    /// Records that selfheal no longer owns `id`.
    pub fn release(&mut self, id: &Id) {
        self.entries.remove(id);
    }

    /// Whether nothing is owned.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.foreign.is_empty()
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(HEADER)?;
        for (id, entry) in &self.entries {
            let before = match &entry.before {
                Before::Nothing => "nothing".to_owned(),
                Before::Original => "original".to_owned(),
                Before::Value(value) => format!("value\t{value}"),
                Before::Unit { enabled, active } => format!("unit\t{enabled}\t{active}"),
            };
            let sha256 = entry.sha256.as_deref().unwrap_or("-");
            writeln!(
                formatter,
                "{}\t{}\t{}\t{sha256}\t{before}",
                entry.layer, id.kind, id.name
            )?;
        }
        self.foreign
            .iter()
            .try_for_each(|line| writeln!(formatter, "{line}"))
    }
}

fn entry(line: &str) -> Option<(Id, Entry)> {
    let mut fields = line.split('\t');
    let layer = fields.next()?.parse().ok()?;
    let kind = fields.next()?;
    let kind = Kind::ALL.iter().find(|(_, name)| *name == kind)?.0;
    let id = Id::new(kind, fields.next()?);
    let sha256 = fields.next().filter(|hash| *hash != "-").map(str::to_owned);
    let before = match fields.next()? {
        "nothing" => Before::Nothing,
        "original" => Before::Original,
        "value" => Before::Value(fields.next()?.to_owned()),
        "unit" => Before::Unit {
            enabled: fields.next()?.parse().ok()?,
            active: fields.next()?.parse().ok()?,
        },
        _ => return None,
    };
    fields.next().is_none().then_some((
        id,
        Entry {
            layer,
            before,
            sha256,
        },
    ))
}

/// Where the user's original of `path` is kept.
pub fn original_of(path: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{ORIGINALS}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut ledger = Ledger::default();
        let own = |ledger: &mut Ledger, kind, name: &str, before| {
            let entry = Entry {
                layer: LayerName::Hardening,
                before,
                sha256: Some("abc".into()),
            };
            ledger.own(Id::new(kind, name), entry);
        };
        own(&mut ledger, Kind::File, "/etc/hosts", Before::Original);
        own(
            &mut ledger,
            Kind::Sysctl,
            "kernel.panic",
            Before::Value("0".into()),
        );
        own(
            &mut ledger,
            Kind::Unit,
            "cups.service",
            Before::Unit {
                enabled: true,
                active: false,
            },
        );
        assert_eq!(Ledger::parse(&ledger.to_string()), ledger);
    }

    #[test]
    fn the_first_before_stays() {
        let id = Id::new(Kind::Sysctl, "kernel.panic");
        let entry = |value: &str| Entry {
            layer: LayerName::Hardening,
            before: Before::Value(value.into()),
            sha256: None,
        };
        let mut ledger = Ledger::default();
        ledger.own(id.clone(), entry("0"));
        ledger.own(id.clone(), entry("10"));
        assert_eq!(ledger.get(&id).unwrap().before, Before::Value("0".into()));
    }

    #[test]
    fn lines_of_a_newer_version_are_kept() {
        let text = format!("{HEADER}k3s\tbinary\t/usr/local/bin/k3s\tx\ty\n");
        assert_eq!(Ledger::parse(&text).to_string(), text);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text: String) {
            let once = Ledger::parse(&text).to_string();
            prop_assert_eq!(Ledger::parse(&once).to_string(), once);
        }
    }
}
