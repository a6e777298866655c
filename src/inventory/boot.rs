//! `[boot]`: the kernel command line of a node.

use std::fmt;
use std::str::FromStr;

use super::define::{section, serialized_as_shown};
use super::diagnostic::Wrong;
use super::name::shown;
use super::quantity::{HOUR, MINUTE, Period};
use super::setting::Text;

section! {
    /// The kernel command line: for all nodes in `[boot]`, for one in `[nodes.NAME.boot]`.
    pub struct Boot {
        /// Whether to switch the memory cgroup on where the firmware switched it off. k3s does not start without it.
        memory_cgroup: bool = true,
        /// Whether to switch pressure stall information on where it is off.
        psi: bool = true,
        /// How long after a kernel panic the node reboots by itself (`panic=`).
        panic_timeout: Period<1, { 5 * MINUTE }> = Period::clamped(10),
        /// More parameters. What is not known to be harmless needs `untested = true`.
        add: Vec<BootToken> = Vec::new(),
        /// Whether `add` may hold parameters that selfheal does not know. Nothing can undo a kernel that does not boot.
        untested: bool = false,
        /// How long a node may take to come back from a reboot.
        reboot_timeout: Period<MINUTE, HOUR> = Period::clamped(10 * MINUTE),
    }
}

/// One parameter of the kernel command line, `name` or `name=value`, none of those that decide what boots.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootToken(String);

/// Parameters that are never added, with the reason.
const NEVER: [(&str, &str); 34] = [
    ("root", ROOT),
    ("rootfstype", ROOT),
    ("rootflags", ROOT),
    ("rootwait", ROOT),
    ("rootdelay", ROOT),
    ("nfsroot", ROOT),
    ("ro", ROOT),
    ("rw", ROOT),
    ("fixrtc", ROOT),
    ("resume", ROOT),
    ("init", INIT),
    ("rdinit", INIT),
    ("initrd", INIT),
    ("noinitrd", INIT),
    ("break", INIT),
    ("rd.break", INIT),
    ("systemd.unit", INIT),
    ("rd.systemd.unit", INIT),
    ("systemd.mask", INIT),
    ("systemd.wants", INIT),
    ("single", INIT),
    ("emergency", INIT),
    ("rescue", INIT),
    (
        "console",
        "it is how the node is looked at when nothing else works",
    ),
    ("systemd.unified_cgroup_hierarchy", CGROUP),
    ("systemd.legacy_systemd_cgroup_controller", CGROUP),
    ("cgroup_no_v1", CGROUP),
    ("cgroup_disable", CGROUP),
    (
        "rcupdate.rcu_expedited",
        "it makes RCU stalls worse (domain.md §1.4)",
    ),
    ("panic", "`panic_timeout` sets it"),
    ("psi", "`psi` sets it"),
    ("cgroup_memory", "`memory_cgroup` sets it"),
    ("cgroup_enable", "`memory_cgroup` sets it"),
    ("bootconfig", "it brings in parameters from elsewhere"),
];
const ROOT: &str = "it decides how the root file system is found";
const INIT: &str = "it decides what is started, and a node that starts something else takes no SSH";
const CGROUP: &str = "k3s needs cgroup v2 with the memory controller";

/// Parameters that selfheal knows, with the values that make sense on a Pi (domain.md §1.4).
const KNOWN: [(&str, Values); 12] = [
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
    ("usb-storage.quirks", Values::Quirks),
    ("fsck.repair", Values::Words(&["yes", "preen"])),
    ("fsck.mode", Values::Words(&["auto", "force", "skip"])),
    ("loglevel", Values::Between(0, 7)),
    ("quiet", Values::None),
    ("plymouth.ignore-serial-consoles", Values::None),
];

enum Values {
    None,
    Between(u32, u32),
    Words(&'static [&'static str]),
    /// `VID:PID:flags`, with commas between several.
    Quirks,
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
            (_, None) => false,
        }
    }

    fn expected(&self) -> String {
        match self {
            Self::None => "no value".to_owned(),
            Self::Between(min, max) => format!("a whole number from {min} to {max}"),
            Self::Words(words) => super::setting::listed(words),
            Self::Quirks => "like `152d:0578:u`".to_owned(),
        }
    }
}

impl BootToken {
    /// The whole parameter.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the first `=`.
    pub fn key(&self) -> &str {
        self.0.split_once('=').map_or(&*self.0, |(key, _)| key)
    }

    /// The part after the first `=`.
    pub fn value(&self) -> Option<&str> {
        self.0.split_once('=').map(|(_, value)| value)
    }

    /// Whether selfheal knows the parameter to be harmless on a Pi; others need `boot.untested`.
    pub fn is_known(&self) -> bool {
        known(self.key()).is_some()
    }
}

/// The kernel takes `-` and `_` in a name as the same.
fn plain(key: &str) -> String {
    key.replace('-', "_")
}

fn known(key: &str) -> Option<&'static Values> {
    KNOWN
        .iter()
        .find(|(known, _)| plain(known) == plain(key))
        .map(|(_, values)| values)
}

impl fmt::Display for BootToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

serialized_as_shown!(BootToken);

impl FromStr for BootToken {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let wrong = |why: &str| {
            Wrong::new(format!(
                "`{}` cannot be added to the command line: {why}",
                shown(text)
            ))
        };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ')
        {
            return Err(wrong("it may hold plain ASCII only"));
        }
        let mut quoted = false;
        for byte in text.bytes() {
            match byte {
                b'"' => quoted = !quoted,
                b' ' if !quoted => {
                    return Err(
                        wrong("it has a space in it").help("write each parameter on its own")
                    );
                }
                _ => {}
            }
        }
        if quoted {
            return Err(wrong("it has a quote without an end"));
        }
        let token = Self(text.to_owned());
        let key = token.key();
        if key.contains('"') {
            return Err(wrong("its name has a quote in it"));
        }
        // "1" to "5", "s" and "-b" are run levels, and what follows "--" goes to init.
        let run_level = matches!(key, "s" | "S" | "1" | "2" | "3" | "4" | "5");
        if key.starts_with('-') || key.is_empty() || run_level {
            return Err(wrong(INIT));
        }
        if let Some((_, why)) = NEVER.iter().find(|(never, _)| plain(never) == plain(key)) {
            return Err(wrong(why));
        }
        match known(key) {
            Some(values) if !values.take(token.value()) => Err(Wrong::new(format!(
                "`{}` cannot have the value `{}` here",
                shown(key),
                shown(token.value().unwrap_or_default())
            ))
            .help(format!("the value is {}", values.expected()))),
            _ => Ok(token),
        }
    }
}

impl Text for BootToken {
    const EXPECTED: &'static str = "a kernel parameter";
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let wrong = text.parse::<BootToken>().unwrap_err();
        wrong.message
    }

    #[test]
    fn known_parameters_are_taken_with_values_that_make_sense() {
        for text in [
            "rcupdate.rcu_exp_cpu_stall_timeout=21000",
            "rcupdate.rcu-normal-after-boot=1",
            "usb-storage.quirks=152d:0578:u,0bc2:231a:u",
            "pcie_aspm=off",
            "quiet",
            "fsck.repair=yes",
        ] {
            let token = text.parse::<BootToken>().unwrap();
            assert!(token.is_known(), "{text}");
            assert_eq!(token.to_string(), text);
        }
        for text in [
            "rcupdate.rcu_exp_cpu_stall_timeout=20",
            "quiet=1",
            "pcie_aspm",
            "usb-storage.quirks=152d:0578",
        ] {
            assert!(refused(text).contains("cannot have the value"), "{text}");
        }
    }

    #[test]
    fn other_parameters_are_told_apart() {
        for text in [
            "isolcpus=3",
            "dyndbg=\"file drivers/usb/* +p\"",
            "module.option=a=b",
        ] {
            assert!(!text.parse::<BootToken>().unwrap().is_known(), "{text}");
        }
        assert_eq!("a=b=c".parse::<BootToken>().unwrap().value(), Some("b=c"));
    }

    #[test]
    fn what_decides_what_boots_is_never_taken() {
        for text in [
            "root=/dev/sda2",
            "rootwait",
            "rootfstype=ext4",
            "init=/bin/sh",
            "systemd.unit=rescue.target",
            "rd.break",
            "console=tty1",
            "single",
            "1",
            "S",
            "-b",
            "--",
            "=x",
            "ro",
            "cgroup_disable=memory",
            "panic=0",
            "psi=0",
            "cgroup-enable=memory",
            "systemd.unified_cgroup_hierarchy=0",
            "",
            "a b",
            "a=\"b",
            "a\nb",
            "ü",
            "\"a b\"=c",
        ] {
            assert!(refused(text).contains("cannot be added"), "{text}");
        }
    }
}
