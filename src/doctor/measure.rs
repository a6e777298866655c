//! The measurements on a node: the one script that makes them all, and what comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::inventory::{Inventory, Model, Node, Role};
use crate::node::probe::CONTENT_LIMIT;
use crate::node::quote;
use crate::node::reply::{self, ReplyError};
use crate::node::snapshot::Snapshot;
use crate::resource::boot;

/// How long a measurement may go on when no other comes to its end (domain.md §10). A node that is slow because it is
/// busy is not one that hangs.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long all measurements may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How many other nodes one node tries to reach.
const PEERS: usize = 8;
/// The modules that k3s does not work without (domain.md §3.6).
pub const MODULES: [&str; 3] = ["overlay", "br_netfilter", "vxlan"];
/// The ports that nodes need of one another: the API server's, on control planes, and the kubelet's (domain.md §3.2).
const API_PORT: u16 = 6443;
const KUBELET_PORT: u16 = 10250;

const PROBE: &str = include_str!("../../templates/session/probe.sh");
const DOCTOR: &str = include_str!("../../templates/session/doctor.sh");

/// A measurement: a child of its own on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// The node's clock; first, because its answer is timed.
    Clock,
    /// The probe's facts.
    Facts,
    /// Files of the boot partition.
    BootFiles,
    /// The ledger, and the hashes of the files in it.
    ManagedFiles,
    /// /proc and /sys: sysctls, pressure, watchdog, file system errors.
    Kernel,
    /// Tasks in uninterruptible sleep.
    Tasks,
    /// The kernel's log of this boot.
    Log,
    /// The logs of the boot before.
    LogBefore,
    /// Where the journal is and how far back it goes.
    Journal,
    /// systemd's settings and units.
    Systemd,
    /// dpkg's architecture and packages.
    Debian,
    /// `sshd -T`.
    SshdSettings,
    /// Room on local file systems.
    Space,
    /// Temperature and throttling.
    Board,
    /// Whether the clock is synchronised.
    TimeSync,
    /// Addresses and /etc/hosts.
    Network,
    /// Whether other nodes' ports answer.
    Peers,
    /// fstab, ufw, nftables.
    Settings,
    /// The kernel's tick rate.
    TickRate,
    /// Kernels that lie there, and whether a reboot is asked for.
    Kernels,
    /// What is written down of earlier boots.
    Records,
    /// Kernel modules.
    KernelModules,
    /// NVMe drives.
    NvmeHealth,
    /// What the kernel's log of a day says of disks.
    StorageLog,
    /// The units of k3s, and those that Longhorn needs.
    K3sUnits,
    /// k3s's version.
    K3sVersion,
    /// Sizes and modes of k3s's files.
    K3sFiles,
    /// What k3s logged in the last minutes.
    K3sLog,
    /// k3s's certificates.
    Certificates,
    /// Whether the API is ready, and how fast it says so.
    Api,
    /// The nodes and pods that the API knows.
    Cluster,
    /// The guard before k3s.
    Guard,
    /// What the reaper finds.
    Ghosts,
    /// Addresses of pods, and the sandboxes they belong to.
    Leases,
}

impl Measure {
    /// All of them, in the order in which they start.
    pub const ALL: [Measure; 34] = [
        Measure::Clock,
        Measure::Facts,
        Measure::BootFiles,
        Measure::ManagedFiles,
        Measure::Kernel,
        Measure::Tasks,
        Measure::Log,
        Measure::LogBefore,
        Measure::Journal,
        Measure::Systemd,
        Measure::Debian,
        Measure::SshdSettings,
        Measure::Space,
        Measure::Board,
        Measure::TimeSync,
        Measure::Network,
        Measure::Peers,
        Measure::Settings,
        Measure::TickRate,
        Measure::Kernels,
        Measure::Records,
        Measure::KernelModules,
        Measure::NvmeHealth,
        Measure::StorageLog,
        Measure::K3sUnits,
        Measure::K3sVersion,
        Measure::K3sFiles,
        Measure::K3sLog,
        Measure::Certificates,
        Measure::Api,
        Measure::Cluster,
        Measure::Guard,
        Measure::Ghosts,
        Measure::Leases,
    ];

    /// The name of its function in the script.
    pub fn as_str(self) -> &'static str {
        match self {
            Measure::Clock => "clock",
            Measure::Facts => "facts",
            Measure::BootFiles => "boot_files",
            Measure::ManagedFiles => "managed_files",
            Measure::Kernel => "kernel",
            Measure::Tasks => "tasks",
            Measure::Log => "log",
            Measure::LogBefore => "log_before",
            Measure::Journal => "journal",
            Measure::Systemd => "systemd",
            Measure::Debian => "debian",
            Measure::SshdSettings => "sshd_settings",
            Measure::Space => "space",
            Measure::Board => "board",
            Measure::TimeSync => "time_sync",
            Measure::Network => "network",
            Measure::Peers => "peers",
            Measure::Settings => "settings",
            Measure::TickRate => "tick_rate",
            Measure::Kernels => "kernels",
            Measure::Records => "records",
            Measure::KernelModules => "kernel_modules",
            Measure::NvmeHealth => "nvme_health",
            Measure::StorageLog => "storage_log",
            Measure::K3sUnits => "k3s_units",
            Measure::K3sVersion => "k3s_version",
            Measure::K3sFiles => "k3s_files",
            Measure::K3sLog => "k3s_log",
            Measure::Certificates => "certificates",
            Measure::Api => "api",
            Measure::Cluster => "cluster",
            Measure::Guard => "guard",
            Measure::Ghosts => "ghosts",
            Measure::Leases => "leases",
        }
    }
}

/// What the script needs to know of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// How long a measurement may go on when no other comes to its end.
    pub deadline: Duration,
    /// Whether the node has no board to ask.
    pub is_virtual: bool,
    /// Modules to look for.
    pub modules: Vec<String>,
    /// Addresses and ports of other nodes.
    pub peers: Vec<(String, u16)>,
}

impl Order {
    /// What to measure on `node`, with the neighbours that are examined, too.
    pub fn new(inventory: &Inventory, node: &Node, examined: &[Node]) -> Order {
        let mut modules: Vec<String> = MODULES.map(str::to_owned).into();
        let wanted = node.hardening.modules.iter().map(ToString::to_string);
        modules.extend(wanted.filter(|name| !MODULES.contains(&name.as_str())));
        let others = inventory
            .nodes
            .iter()
            .filter(|other| other.name != node.name && examined.contains(other));
        let peers = others.take(PEERS).flat_map(|other| {
            let ports = match other.role {
                Role::ControlPlane => &[KUBELET_PORT, API_PORT][..],
                Role::Worker => &[KUBELET_PORT][..],
            };
            let address = other.lan_address().map(|address| address.to_string());
            address
                .into_iter()
                .flat_map(|address| ports.iter().map(move |port| (address.clone(), *port)))
        });
        Order {
            deadline: DEADLINE,
            is_virtual: node.model == Some(Model::Virtual),
            modules,
            peers: peers.collect(),
        }
    }

    /// The script. `nonce` marks the lines of the reply and must be hard to guess.
    ///
    /// The script is one compound command: a shell that receives only a part of it runs nothing.
    pub fn script(&self, nonce: &str) -> String {
        let boot_paths = boot::questions().map(|path| path.to_string()).collect();
        let peers = self.peers.iter().map(|(ip, port)| format!("{ip},{port}"));
        let list = |words: Vec<String>| quote(&words.join(" "));
        format!(
            "{{\nexport LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
             nonce={nonce} deadline={deadline} limit={limit} virtual={is_virtual} content_limit={CONTENT_LIMIT}\n\
             files_asked= units= packages= children= boot_paths={boot_paths} module_names={modules}\n\
             peer_ports={peers} measurements={measurements}\n\
             {PROBE}\n{DOCTOR}\nexamine </dev/null\nexit 0\n}}\n",
            deadline = self.deadline.as_secs(),
            limit = LIMIT.as_secs(),
            is_virtual = if self.is_virtual { "yes" } else { "" },
            boot_paths = list(boot_paths),
            modules = list(self.modules.clone()),
            peers = list(peers.collect()),
            measurements = list(
                Measure::ALL
                    .map(|measure| measure.as_str().to_owned())
                    .into()
            ),
        )
    }
}

/// What the measurements of one node came to.
#[derive(Debug, Clone, Default)]
pub struct Measured {
    /// What the probe's words tell.
    pub snapshot: Snapshot,
    /// The node's clock against that of this computer, in seconds: the smallest and the largest value it can have.
    /// The node is ahead where it is positive.
    pub offset: Option<(f64, f64)>,
    frames: BTreeMap<String, String>,
    done: BTreeSet<&'static str>,
}

impl Measured {
    /// Reads the reply. `asked` and `answered` are this computer's clock, in seconds since the epoch, when the script
    /// was sent and when the first line of [`Measure::Clock`] was here.
    ///
    /// # Errors
    /// [`ReplyError`] when the reply is not whole.
    pub fn parse(
        bytes: &[u8],
        nonce: &str,
        asked: f64,
        answered: Option<f64>,
    ) -> Result<Measured, ReplyError> {
        let mut texts: BTreeMap<&str, String> = BTreeMap::new();
        let mut done = BTreeSet::new();
        for frame in reply::frames(bytes, nonce)? {
            match frame.name {
                "part" => {
                    let (name, part) = frame.argument.split_once(' ').unwrap_or_default();
                    texts.entry(name).or_default().push_str(part);
                }
                "done" => {
                    let name = Measure::ALL.iter().map(|measure| measure.as_str());
                    done.extend(name.filter(|name| *name == frame.argument));
                }
                _ => {}
            }
        }
        let mut whole = format!("\n@{nonce} begin\n");
        for (name, text) in &texts {
            if done.contains(name) {
                whole.push_str(&text.replace('\u{1}', "\n"));
            }
        }
        whole.push_str(&format!("\n@{nonce} end\n"));
        let mut measured = Measured {
            snapshot: Snapshot::parse(whole.as_bytes(), nonce)?,
            done,
            ..Measured::default()
        };
        for frame in reply::frames(whole.as_bytes(), nonce)? {
            let key = format!("{} {}", frame.name, frame.argument);
            let text = String::from_utf8_lossy(frame.content).trim_end().to_owned();
            measured.frames.insert(key, text);
        }
        let clock: Option<f64> = measured.text("doctor clock").trim().parse().ok();
        measured.offset = clock
            .zip(answered)
            .map(|(clock, answered)| (clock - answered, clock - asked));
        Ok(measured)
    }

    /// Whether this measurement came to its end in time.
    pub fn has(&self, measure: Measure) -> bool {
        self.done.contains(measure.as_str())
    }

    /// The content of a frame, such as `doctor log`.
    pub fn frame(&self, frame: &str) -> Option<&str> {
        self.frames.get(frame).map(String::as_str)
    }

    /// The content of a frame; empty when there is none.
    pub fn text(&self, frame: &str) -> &str {
        self.frame(frame).unwrap_or_default()
    }

    /// The names and contents of the frames that begin so.
    pub fn texts<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.frames
            .iter()
            .filter_map(move |(name, text)| Some((name.strip_prefix(prefix)?, text.as_str())))
    }
}
