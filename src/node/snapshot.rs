//! A node as it was at the moment of the probe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::cluster::{self, NodeObject};
use super::facts::Facts;
use super::file::{Content, FileState, RegularFile, SecretFile};
use super::ledger::Ledger;
use super::reply::{self, Frame, ReplyError};

/// A systemd unit's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitState {
    /// The unit file exists.
    pub loaded: bool,
    /// `UnitFileState`: `enabled`, `disabled`, `static`, `masked`, … or empty.
    pub file_state: String,
    /// The unit is active, or on its way.
    pub active: bool,
}

impl UnitState {
    /// Whether it starts by itself at boot.
    pub fn enabled(&self) -> bool {
        self.file_state == "enabled"
    }
}

/// A Debian package's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageState {
    /// The installed version.
    pub version: String,
    /// It is held back from upgrades.
    pub held: bool,
}

/// Who holds a node, from its lease in /run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The run that holds it.
    pub token: String,
    /// When it ends, in seconds of the node's uptime.
    pub expires: u64,
    /// Who and since when, for people.
    pub holder: String,
}

/// A reboot that had to be forced, as the node noted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForcedDown {
    /// The boot that would not end.
    pub boot_id: String,
    /// The command that ended it.
    pub by: String,
}

/// A block device with something on it, as blkid names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    /// Its device, such as `/dev/sda1`.
    pub device: String,
    /// The UUID of its file system, in lower case.
    pub uuid: String,
    /// What is on it, such as `ext4`.
    pub kind: String,
}

/// Everything a probe learned.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What the node is.
    pub facts: Facts,
    /// What selfheal owns there.
    pub ledger: Ledger,
    /// Units that wait for a restart since an interrupted run: lines of `reload|restart UNIT`.
    pub pending_restarts: Vec<String>,
    /// The lease, if one is written.
    pub lease: Option<Lease>,
    /// Whether a dead man's switch of an interrupted run is armed.
    pub dead_man_armed: bool,
    /// Boot files that were written since the node booted, so that they wait for its next boot.
    pub reboot_pending: BTreeSet<Utf8PathBuf>,
    /// What the dead man's switch last did, if it ever acted.
    pub dead_man_last: Option<String>,
    /// Why the node is in safe mode, if it is.
    pub safe_mode: Option<String>,
    /// systemd's own settings as they are in force: the watchdogs' times.
    pub manager: BTreeMap<String, Duration>,
    /// Drop-ins of systemd itself that speak of watchdogs.
    pub manager_drop_ins: Vec<Utf8PathBuf>,
    /// The boot that did not go down for its reboot by itself, and what had to be done about it.
    pub forced_down: Option<ForcedDown>,
    /// The file systems of all disks.
    pub disks: Vec<Disk>,
    /// What selfheal's state folder holds, by name.
    pub state: BTreeSet<String>,
    /// `v1.36.3+k3s1`, where k3s is.
    pub k3s_version: Option<String>,
    /// The cluster's nodes, if an API server runs here and answers.
    pub cluster: Option<Vec<NodeObject>>,
    /// `sshd -T`, keywords in lower case; several lines of one keyword are all there.
    pub sshd: BTreeMap<String, Vec<String>>,
    files: BTreeMap<Utf8PathBuf, FileState>,
    secrets: BTreeMap<Utf8PathBuf, SecretFile>,
    units: BTreeMap<String, UnitState>,
    packages: BTreeMap<String, PackageState>,
    sysctls: BTreeMap<String, String>,
    modules: BTreeSet<String>,
    homes: BTreeMap<String, Utf8PathBuf>,
}

impl Snapshot {
    /// Reads a probe's reply.
    ///
    /// # Errors
    /// [`ReplyError`] when the reply is not whole, or systemd gave no answer.
    pub fn parse(reply: &[u8], nonce: &str) -> Result<Snapshot, ReplyError> {
        let mut snapshot = Snapshot::default();
        for frame in reply::frames(reply, nonce)? {
            if (frame.name, frame.argument) == ("silent", "systemd") {
                return Err(ReplyError::SilentSystemd);
            }
            snapshot.take(&frame);
        }
        Ok(snapshot)
    }

    fn take(&mut self, frame: &Frame<'_>) {
        let text = || String::from_utf8_lossy(frame.content);
        match frame.name {
            "file" => {
                let state = FileState::parse(frame.content);
                self.files.insert(frame.argument.into(), state);
            }
            "sysctl" if !frame.content.is_empty() => {
                let value = text().split_whitespace().collect::<Vec<_>>().join(" ");
                self.sysctls.insert(frame.argument.to_owned(), value);
            }
            "module" if !frame.content.is_empty() => {
                self.modules.insert(frame.argument.to_owned());
            }
            "home" if !frame.content.is_empty() => {
                self.homes
                    .insert(frame.argument.to_owned(), text().trim().into());
            }
            "secret" => {
                if let Some(secret) = SecretFile::parse(&text()) {
                    self.secrets.insert(frame.argument.into(), secret);
                }
            }
            "k3s-version" => {
                let text = text();
                let mut words = text.split_whitespace();
                self.k3s_version = words.find(|word| word.contains("+k3s")).map(str::to_owned);
            }
            "cluster-nodes" => self.cluster = cluster::nodes(frame.content),
            "units" => text().split("\n\n").for_each(|block| self.take_unit(block)),
            "packages" => text().lines().for_each(|line| self.take_package(line)),
            "sshd" => {
                for (keyword, value) in text().lines().filter_map(|line| line.split_once(' ')) {
                    self.sshd
                        .entry(keyword.to_ascii_lowercase())
                        .or_default()
                        .push(value.to_owned());
                }
            }
            "manager" => self.take_manager(&text()),
            "disks" => self.disks = text().split("\n\n").filter_map(disk).collect(),
            "safe-mode" if !frame.content.is_empty() => {
                let reason = text().lines().next().unwrap_or_default().to_owned();
                self.safe_mode = Some(reason);
            }
            "ledger" => self.ledger = Ledger::parse(&text()),
            "lease" => self.lease = lease(&text()),
            "pending-restart" => {
                self.pending_restarts = text().lines().map(str::to_owned).collect()
            }
            "dead-man" => self.dead_man_armed = !frame.content.is_empty(),
            "reboot-pending" => {
                self.reboot_pending = text().lines().map(Utf8PathBuf::from).collect();
            }
            "forced-down" => {
                self.forced_down = text().lines().next().and_then(|line| {
                    let (boot_id, by) = line.split_once(' ')?;
                    Some(ForcedDown {
                        boot_id: boot_id.to_owned(),
                        by: by.to_owned(),
                    })
                });
            }
            "state" => self.state = text().lines().map(str::to_owned).collect(),
            "dead-man-last" => self.dead_man_last = text().lines().next().map(str::to_owned),
            _ => self.facts.take(frame),
        }
    }

    fn take_unit(&mut self, block: &str) {
        let value = |key: &str| {
            block
                .lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value)
        };
        if let Some(name) = value("Id") {
            let state = UnitState {
                loaded: !matches!(value("LoadState"), Some("not-found") | None),
                file_state: value("UnitFileState").unwrap_or_default().to_owned(),
                active: matches!(
                    value("ActiveState"),
                    Some("active" | "activating" | "reloading")
                ),
            };
            self.units.insert(name.to_owned(), state);
        }
    }

    /// Times come as people read them: `1min 30s`, or `infinity`.
    fn take_manager(&mut self, text: &str) {
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let time = match value {
                "infinity" => Some(Duration::MAX),
                value => humantime::parse_duration(value).ok(),
            };
            match (key, time) {
                ("drop-in", _) => self.manager_drop_ins.push(value.into()),
                (key, Some(time)) => drop(self.manager.insert(key.to_owned(), time)),
                (_, None) => {}
            }
        }
    }

    fn take_package(&mut self, line: &str) {
        if let [name, wanted, "installed", version] =
            line.split_whitespace().collect::<Vec<_>>()[..]
        {
            let state = PackageState {
                version: version.to_owned(),
                held: wanted == "hold",
            };
            self.packages.insert(name.to_owned(), state);
        }
    }

    /// What is at `path`; a path that was not asked about counts as absent.
    pub fn file(&self, path: &Utf8Path) -> &FileState {
        self.files.get(path).unwrap_or(&FileState::Absent)
    }

    /// The whole content at `path`, when it is a regular file of moderate size.
    pub fn content(&self, path: &Utf8Path) -> Option<&[u8]> {
        match self.file(path) {
            FileState::Regular(RegularFile {
                content: Content::Whole(content),
                ..
            }) => Some(content),
            _ => None,
        }
    }

    /// What is known of the secret at `path`, if it is there.
    pub fn secret(&self, path: &Utf8Path) -> Option<&SecretFile> {
        self.secrets.get(path)
    }

    /// A unit's state; one that was not asked about or does not exist is not loaded.
    pub fn unit(&self, name: &str) -> UnitState {
        self.units.get(name).cloned().unwrap_or_default()
    }

    /// An installed package.
    pub fn package(&self, name: &str) -> Option<&PackageState> {
        self.packages.get(name)
    }

    /// A sysctl's runtime value, blanks folded; `None` where the kernel has no such key.
    pub fn sysctl(&self, key: &str) -> Option<&str> {
        self.sysctls.get(key).map(String::as_str)
    }

    /// Whether a kernel module is loaded or built in.
    pub fn module(&self, name: &str) -> bool {
        self.modules.contains(&name.replace('-', "_"))
    }

    /// A user's home folder.
    pub fn home(&self, user: &str) -> Option<&Utf8Path> {
        self.homes.get(user).map(Utf8PathBuf::as_path)
    }
}

/// Lines of `KEY=value`, as `blkid -o export` has them.
fn disk(block: &str) -> Option<Disk> {
    let value = |key: &str| {
        let mut pairs = block.lines().filter_map(|line| line.split_once('='));
        pairs
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.to_owned())
    };
    Some(Disk {
        device: value("DEVNAME")?,
        uuid: value("UUID").unwrap_or_default().to_ascii_lowercase(),
        kind: value("TYPE").unwrap_or_default(),
    })
}

/// `TOKEN EXPIRES HOLDER…`
fn lease(text: &str) -> Option<Lease> {
    let mut words = text.lines().next()?.splitn(3, ' ');
    let token = words.next()?.to_owned();
    let expires = words.next()?.parse().ok()?;
    Some(Lease {
        token,
        expires,
        holder: words.next().unwrap_or("another run").to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_systemd_are_read_as_it_writes_them() {
        let mut snapshot = Snapshot::default();
        snapshot.take(&Frame {
            name: "manager",
            argument: "",
            content: b"RuntimeWatchdogUSec=1min 30s\nRebootWatchdogUSec=infinity\nX=0\ndrop-in=/etc/a.conf\n",
        });
        let seconds = |key: &str| snapshot.manager[key].as_secs();
        assert_eq!((seconds("RuntimeWatchdogUSec"), seconds("X")), (90, 0));
        assert_eq!(snapshot.manager["RebootWatchdogUSec"], Duration::MAX);
        assert_eq!(snapshot.manager_drop_ins, ["/etc/a.conf"]);
    }

    #[test]
    fn a_systemd_that_does_not_answer_is_no_node_without_units() {
        let reply = b"\n@n begin\n\n@n units\n\n@n silent systemd\n\n@n end\n";
        assert_eq!(
            Snapshot::parse(reply, "n").unwrap_err(),
            ReplyError::SilentSystemd
        );
    }

    #[test]
    fn units_and_packages_are_read_in_bulk() {
        let mut snapshot = Snapshot::default();
        let units =
            b"Id=ssh.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\n\
            Id=no.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\n";
        snapshot.take(&Frame {
            name: "units",
            argument: "",
            content: units,
        });
        snapshot.take(&Frame {
            name: "packages",
            argument: "",
            content: b"curl hold installed 7.88\nno deinstall config-files 1\n",
        });
        assert!(snapshot.unit("ssh.service").enabled() && snapshot.unit("ssh.service").active);
        assert!(!snapshot.unit("no.service").loaded);
        assert!(snapshot.package("curl").unwrap().held);
        assert!(snapshot.package("no").is_none());
    }
}
