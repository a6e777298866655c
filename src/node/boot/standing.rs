//! How far a token may be trusted on a machine that nobody is standing next to (domain.md §1.4): the one list of the
//! parameters that selfheal knows, for the editor and for the inventory alike.

use std::fmt;

use super::token::Token;

/// How far a token may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Known to boot on the boards and systems that selfheal supports.
    Known,
    /// Its key is known, but not with such a value.
    Odd(&'static Values),
    /// A key of the inventory's `[boot]` decides it, this one: nobody adds or removes it besides.
    Setting(&'static str),
    /// It boots, and harms what selfheal is for; with the reason. It may be removed, never added.
    Harmful(&'static str),
    /// Nothing is known about it: only with `boot.untested = true`.
    Untested,
    /// Decides whether the Pi boots and can be reached at all, with the reason: never set, changed or removed.
    Untouchable(&'static str),
}

/// The values with which a key is known.
#[derive(Debug, PartialEq, Eq)]
pub enum Values {
    /// A bare word.
    None,
    /// A whole number between these two.
    Between(u32, u32),
    /// One of these.
    Words(&'static [&'static str]),
    /// `VID:PID:flags`, with commas between several.
    Quirks,
    /// Two letters, a country.
    Country,
}

const ROOT: &str = "it decides how the root file system is found";
const INIT: &str = "it decides what is started, and a node that starts something else takes no SSH";
const BOARD: &str = "it decides what the board has to work with";
const LOOK: &str = "it is how the node is looked at when nothing else works";
const CGROUP: &str = "k3s needs cgroup v2 with the memory controller";

/// Keys as [`Token::key`] gives them, in any case.
const UNTOUCHABLE: &[(&str, &[&str])] = &[
    (
        ROOT,
        &[
            "root",
            "rootfstype",
            "rootflags",
            "rootwait",
            "rootdelay",
            "ro",
            "rw",
            "resume",
            "noresume",
            "boot",
            "overlayroot",
            "cryptdevice",
            "nfsroot",
            "nfsaddrs",
            "nbdroot",
            "ip",
            "fixrtc",
        ],
    ),
    (
        INIT,
        &[
            "init",
            "rdinit",
            "initrd",
            "noinitrd",
            "break",
            "single",
            "s",
            "emergency",
            "rescue",
            "1",
            "2",
            "3",
            "4",
            "5",
            "cloud_init",
            "ds",
        ],
    ),
    (LOOK, &["console"]),
    (
        BOARD,
        &["mem", "memmap", "maxcpus", "nr_cpus", "nosmp", "reboot"],
    ),
    ("it brings in parameters from elsewhere", &["bootconfig"]),
];

/// Whole families of the same sort.
const UNTOUCHABLE_FAMILIES: &[(&str, &str)] = &[
    ("systemd.", INIT),
    ("rd.", INIT),
    ("vc_mem.", BOARD),
    ("smsc95xx.", BOARD),
];

const SETTINGS: &[(&str, &str)] = &[
    ("panic", "panic_timeout"),
    ("psi", "psi"),
    ("cgroup_memory", "memory_cgroup"),
    ("cgroup_enable", "memory_cgroup"),
];

const HARMFUL: &[(&str, &str)] = &[
    ("cgroup_disable", CGROUP),
    ("cgroup_no_v1", CGROUP),
    (
        "rcupdate.rcu_expedited",
        "it makes RCU stalls worse (domain.md §1.4)",
    ),
];

/// What is known to boot, with the values that make sense on a Pi.
const KNOWN: &[(&str, Values)] = &[
    (
        "rcupdate.rcu_exp_cpu_stall_timeout",
        Values::Between(1000, 21_000),
    ),
    ("rcupdate.rcu_cpu_stall_timeout", Values::Between(3, 300)),
    ("rcupdate.rcu_normal", Values::Between(0, 1)),
    ("rcupdate.rcu_normal_after_boot", Values::Between(0, 1)),
    (
        "nvme_core.default_ps_max_latency_us",
        Values::Between(0, 1_000_000),
    ),
    ("pcie_aspm", Values::Words(&["off"])),
    ("usb_storage.quirks", Values::Quirks),
    ("fsck.repair", Values::Words(&["yes", "preen"])),
    ("fsck.mode", Values::Words(&["auto", "force", "skip"])),
    ("loglevel", Values::Between(0, 7)),
    ("quiet", Values::None),
    ("splash", Values::None),
    ("plymouth.ignore_serial_consoles", Values::None),
    ("cfg80211.ieee80211_regdom", Values::Country),
];

pub(super) fn standing(token: &Token) -> Standing {
    let key = token.key();
    // What follows `--`, and what begins like an option, goes to init.
    if key.starts_with('_') {
        return Standing::Untouchable(INIT);
    }
    for (why, keys) in UNTOUCHABLE {
        if keys.iter().any(|name| key.eq_ignore_ascii_case(name)) {
            return Standing::Untouchable(why);
        }
    }
    if let Some((_, why)) = UNTOUCHABLE_FAMILIES.iter().find(|(family, _)| {
        let start = key.get(..family.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(family))
    }) {
        return Standing::Untouchable(why);
    }
    if let Some((_, setting)) = SETTINGS.iter().find(|(name, _)| *name == key) {
        return Standing::Setting(setting);
    }
    if let Some((_, why)) = HARMFUL.iter().find(|(name, _)| *name == key) {
        return Standing::Harmful(why);
    }
    match KNOWN.iter().find(|(name, _)| *name == key) {
        Some((_, values)) if values.take(token.value()) => Standing::Known,
        Some((_, values)) => Standing::Odd(values),
        None => Standing::Untested,
    }
}

impl Values {
    fn take(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (Self::None, value) => value.is_none(),
            (Self::Between(min, max), Some(value)) => {
                value.bytes().all(|byte| byte.is_ascii_digit())
                    && value.parse::<u32>().is_ok_and(|number| (min..=max).contains(&&number))
            }
            (Self::Words(words), Some(value)) => words.contains(&value),
            (Self::Quirks, Some(value)) => value.split(',').all(|quirk| {
                let parts: Vec<&str> = quirk.split(':').collect();
                let id = |id: &str| id.len() == 4 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
                matches!(parts.as_slice(), [vendor, product, flags]
                    if id(vendor) && id(product) && !flags.is_empty() && flags.bytes().all(|b| b.is_ascii_lowercase()))
            }),
            (Self::Country, Some(value)) => value.len() == 2 && value.bytes().all(|byte| byte.is_ascii_uppercase()),
            (_, None) => false,
        }
    }
}

/// The values as a sentence names them: "the value is …".
impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none at all"),
            Self::Between(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Words(words) => write!(f, "`{}`", words.join("` or `")),
            Self::Quirks => f.write_str("like `152d:0578:u`"),
            Self::Country => f.write_str("a country, like `DE`"),
        }
    }
}
