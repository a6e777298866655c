//! What a node is: its system, kernel, memory, mounts and clock, as parsed from the probe's frames.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use camino::Utf8PathBuf;

use super::reply::Frame;

/// A node's operating system, from /etc/os-release.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// `ID`, such as `debian`, `raspbian` or `ubuntu`.
    pub id: String,
    /// `VERSION_ID`, such as `12` or `24.04`.
    pub version: String,
    /// `VERSION_CODENAME`, such as `bookworm`.
    pub codename: String,
    /// `PRETTY_NAME`, for people.
    pub name: String,
}

/// One line of /proc/self/mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: Utf8PathBuf,
    /// File system type, such as `ext4` or `vfat`.
    pub kind: String,
    /// The mounted device or source.
    pub source: String,
    /// The kernel's number for the kind of device; 0 where no device is behind it.
    pub major: u32,
    /// Whether it is mounted read-only (per mount or per file system).
    pub read_only: bool,
}

/// Whether a server elsewhere can bring a file system of this type to a stop, and all that touches it (domain.md §8.1).
pub fn is_network(kind: &str) -> bool {
    matches!(kind, "nfs" | "nfs4" | "cifs" | "smb3" | "smbfs" | "ceph")
}

/// The lines of an fstab that name such a file system.
pub fn network_lines(fstab: &str) -> impl Iterator<Item = &str> {
    let network = |line: &&str| {
        !line.starts_with('#') && line.split_whitespace().nth(2).is_some_and(is_network)
    };
    fstab.lines().map(str::trim).filter(network)
}

/// An IP address of one of a node's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface, such as `eth0`.
    pub interface: String,
    /// The address.
    pub ip: IpAddr,
}

/// A hardware watchdog, from /sys/class/watchdog/watchdog0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchdogDevice {
    /// Its driver's name for it, such as `Broadcom BCM2835 Watchdog timer`.
    pub identity: String,
    /// The longest time it can be set to, in seconds; 0 where the kernel stretches it as far as it is asked to, as it
    /// does for a Pi's from 6.8 on (domain.md §2.1).
    pub max_timeout: u64,
}

/// Facts about a node at the moment of the probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Effective user id of the probe; anything but 0 sees too little.
    pub user_id: Option<u32>,
    /// The operating system.
    pub os: OsRelease,
    /// Kernel release, such as `6.12.34+rpt-rpi-2712`.
    pub kernel: String,
    /// `uname -m`.
    pub machine: String,
    /// The board's name from the device tree; empty on a board without one.
    pub model: String,
    /// Runtime host name.
    pub hostname: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// /etc/machine-id; cloned cards share it.
    pub machine_id: String,
    /// Time since boot.
    pub uptime: Duration,
    /// The node's wall clock, seconds since the epoch.
    pub clock: Option<u64>,
    /// /proc/cmdline.
    pub command_line: String,
    /// Names in /sys/fs/cgroup/cgroup.controllers; empty on cgroup v1.
    pub cgroup_controllers: BTreeSet<String>,
    /// Whether the kernel accounts pressure (/proc/pressure).
    pub psi: bool,
    /// Milliseconds after which the kernel reports an expedited grace period as stalled, as it reads back: 0 inherits
    /// the 21 s of a normal one, 1 to 999 is a threshold meant for telephones (domain.md §1.4, §9). `None` where the
    /// kernel has no such setting.
    pub rcu_exp_cpu_stall_timeout: Option<u64>,
    /// The hardware watchdog, if the kernel has one.
    pub watchdog: Option<WatchdogDevice>,
    /// What the kernel said, since it booted, when it reset an NVMe drive.
    pub nvme_reset: Option<String>,
    /// What the kernel said, since it booted, when it reset a USB drive that speaks UAS; by `VID:PID`.
    pub uas_resets: BTreeMap<String, String>,
    /// Mounted file systems.
    pub mounts: Vec<Mount>,
    /// Active swap devices and files.
    pub swaps: Vec<String>,
    /// Physical memory in bytes.
    pub memory: u64,
    /// Free bytes by mount point.
    pub free: BTreeMap<Utf8PathBuf, u64>,
    /// Whether systemd is PID 1.
    pub systemd: bool,
    /// Whether apt-get is there.
    pub apt: bool,
    /// Whether cloud-init is installed.
    pub cloud_init: bool,
    /// Its addresses beyond the link.
    pub addresses: Vec<InterfaceAddress>,
    /// The interface that leads to everywhere else.
    pub default_interface: Option<String>,
    /// Whether it is a virtual machine. Asked of strangers only, as all that follows.
    pub virtual_machine: bool,
    /// Whether it is Raspberry Pi OS, which calls itself Debian.
    pub raspberry_pi_os: bool,
}

impl Facts {
    /// Takes one frame in; frames that are no facts are left alone. What cannot be parsed stays at its default: a fact
    /// that is not known is not a reason to fail.
    pub fn take(&mut self, frame: &Frame<'_>) {
        let text = String::from_utf8_lossy(frame.content);
        let line = text.lines().next().unwrap_or_default().trim();
        match (frame.name, frame.argument) {
            ("fact", "user") => self.user_id = line.parse().ok(),
            ("fact", "os-release") => self.os = os_release(&text),
            ("fact", "kernel") => self.kernel = line.to_owned(),
            ("fact", "machine") => self.machine = line.to_owned(),
            ("fact", "model") => self.model = line.to_owned(),
            ("fact", "hostname") => self.hostname = line.to_owned(),
            ("fact", "boot-id") => self.boot_id = line.to_owned(),
            ("fact", "machine-id") => self.machine_id = line.to_owned(),
            ("fact", "uptime") => self.uptime = uptime(line),
            ("fact", "clock") => self.clock = line.parse().ok(),
            ("fact", "command-line") => self.command_line = line.to_owned(),
            ("fact", "cgroup-controllers") => {
                self.cgroup_controllers = text.split_whitespace().map(str::to_owned).collect();
            }
            ("fact", "psi") => self.psi = line == "yes",
            ("fact", "rcu-exp-cpu-stall-timeout") => {
                self.rcu_exp_cpu_stall_timeout = line.parse().ok();
            }
            ("fact", "watchdog") => self.watchdog = watchdog(&text),
            ("fact", "nvme-reset") => {
                self.nvme_reset = (!line.is_empty()).then(|| line.to_owned());
            }
            ("uas-reset", drive) if !line.is_empty() => {
                self.uas_resets.insert(drive.to_owned(), line.to_owned());
            }
            ("fact", "mounts") => self.mounts = text.lines().filter_map(mount).collect(),
            ("fact", "swaps") => {
                self.swaps = text
                    .lines()
                    .skip(1)
                    .filter_map(|line| line.split_whitespace().next())
                    .map(str::to_owned)
                    .collect();
            }
            ("fact", "memory") => self.memory = memory(&text),
            ("fact", "init") => self.systemd = line == "systemd",
            ("fact", "apt") => self.apt = !line.is_empty(),
            ("fact", "cloud-init") => self.cloud_init = !line.is_empty(),
            ("fact", "addresses") => {
                self.addresses = text.lines().filter_map(interface_address).collect();
            }
            ("fact", "default-route") => {
                let mut words = line.split_whitespace().skip_while(|word| *word != "dev");
                self.default_interface = words.nth(1).map(str::to_owned);
            }
            ("fact", "virtual-machine") => {
                self.virtual_machine = !matches!(line, "" | "none");
            }
            ("fact", "raspberry-pi-os") => self.raspberry_pi_os = line == "yes",
            ("free", point) => {
                if let Some((blocks, size)) = line.split_once(' ')
                    && let (Ok(blocks), Ok(size)) = (blocks.parse::<u64>(), size.parse::<u64>())
                {
                    self.free.insert(point.into(), blocks.saturating_mul(size));
                }
            }
            _ => {}
        }
    }

    /// The mount at exactly `point`; the last one shadows the others.
    pub fn mount(&self, point: &str) -> Option<&Mount> {
        self.mounts.iter().rev().find(|mount| mount.point == point)
    }

    /// Kernel major and minor number, where the release starts with them.
    pub fn kernel_version(&self) -> Option<(u32, u32)> {
        let mut parts = self
            .kernel
            .split(|character: char| !character.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

fn os_release(text: &str) -> OsRelease {
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(name, _)| *name == key)
            .and_then(|(_, value)| shlex::split(value)?.into_iter().next())
            .unwrap_or_default()
    };
    OsRelease {
        id: value("ID"),
        version: value("VERSION_ID"),
        codename: value("VERSION_CODENAME"),
        name: value("PRETTY_NAME"),
    }
}

fn uptime(line: &str) -> Duration {
    let seconds = line
        .split_whitespace()
        .next()
        .and_then(|seconds| seconds.parse::<f64>().ok());
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or_default()
}

/// `identity NAME`, `max_timeout SECONDS`, each on a line of its own.
fn watchdog(text: &str) -> Option<WatchdogDevice> {
    let value = |key: &str| {
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.trim())
    };
    Some(WatchdogDevice {
        identity: value("identity")?.to_owned(),
        max_timeout: value("max_timeout")
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or_default(),
    })
}

fn memory(text: &str) -> u64 {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = total.and_then(|total| total.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default().saturating_mul(1024)
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue` (proc_pid_mountinfo(5)).
fn mount(line: &str) -> Option<Mount> {
    let (mount, system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(2);
    let major = mount.next()?.split(':').next()?.parse().ok()?;
    let mut mount = mount.skip(1);
    let (point, options) = (mount.next()?, mount.next()?);
    let mut system = system.split(' ');
    let (kind, source, system_options) = (system.next()?, system.next()?, system.next()?);
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    Some(Mount {
        point: unescape(point).into(),
        kind: kind.to_owned(),
        source: unescape(source),
        major,
        read_only: read_only(options) || read_only(system_options),
    })
}

/// `2: eth0    inet 192.168.1.10/24 brd 192.168.1.255 scope global eth0\` (ip-address(8), `-o`).
fn interface_address(line: &str) -> Option<InterfaceAddress> {
    let mut words = line.split_whitespace().skip(1);
    let interface = words.next()?.to_owned();
    let (ip, _) = words.nth(1)?.split_once('/')?;
    let ip = ip.parse().ok()?;
    Some(InterfaceAddress { interface, ip })
}

/// mountinfo writes blanks and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, character)| {
            text.replace(code, character)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let line = r"36 35 98:0 / /mnt/my\040disk rw,noatime master:1 - ext4 /dev/sda1 ro,errors=remount-ro";
        let mount = mount(line).unwrap();
        assert_eq!(mount.point, "/mnt/my disk");
        assert_eq!((mount.kind.as_str(), mount.read_only), ("ext4", true));
        assert_eq!(mount.major, 98);
    }

    #[test]
    fn kernel_version_is_read_from_a_vendor_release() {
        let facts = Facts {
            kernel: "6.12.34+rpt-rpi-2712".into(),
            ..Facts::default()
        };
        assert_eq!(facts.kernel_version(), Some((6, 12)));
    }

    #[test]
    fn addresses_are_read_with_their_interfaces() {
        let mut facts = Facts::default();
        let mut take = |argument, content: &str| {
            let content = content.as_bytes();
            facts.take(&Frame {
                name: "fact",
                argument,
                content,
            });
        };
        take(
            "addresses",
            "2: eth0    inet 192.168.1.10/24 brd 192.168.1.255 scope global dynamic eth0\\       valid_lft 9sec\n\
             2: eth0    inet6 fd00::10/64 scope global \\       valid_lft forever\nnonsense\n",
        );
        take(
            "default-route",
            "default via 192.168.1.1 dev eth0 proto dhcp metric 100 \n",
        );
        take("virtual-machine", "none\n");
        let read: Vec<String> = facts
            .addresses
            .iter()
            .map(|address| format!("{} {}", address.interface, address.ip))
            .collect();
        assert_eq!(read, ["eth0 192.168.1.10", "eth0 fd00::10"]);
        assert_eq!(facts.default_interface.as_deref(), Some("eth0"));
        assert!(!facts.virtual_machine);
        facts.take(&Frame {
            name: "fact",
            argument: "virtual-machine",
            content: b"qemu\n",
        });
        assert!(facts.virtual_machine);
    }

    proptest! {
        #[test]
        fn any_fact_is_taken_without_a_panic(name in "fact|free", argument in "[a-z-]{0,12}", content: Vec<u8>) {
            Facts::default().take(&Frame { name: &name, argument: &argument, content: &content });
        }
    }
}
