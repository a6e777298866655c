//! `[hardening]`: what the hardening layer does on a node.

use std::collections::BTreeMap;

use super::address::HostAddress;
use super::define::{choice, section};
use super::key::PublicKey;
use super::name::{ModuleName, PackageName, UnitName};
use super::network::{Cidr, PortRule};
use super::quantity::{ByteSize, Count, DAY, HOUR, MINUTE, Period, YEAR};
use super::sshd::{SshdKeyword, SshdValues};
use super::sysctl::{SysctlKey, SysctlValue};

section! {
    /// The system below Kubernetes: for all nodes in `[hardening]`, for one in `[nodes.NAME.hardening]`.
    pub struct Hardening {
        /// Whether to give the node its name as hostname.
        hostname: bool = true,
        /// Whether to put all nodes with fixed addresses into `/etc/hosts`.
        hosts: bool = true,
        /// More packages to install.
        packages: Vec<PackageName> = Vec::new(),
        /// What is upgraded without being asked. It never reboots.
        automatic_upgrades: Upgrades = Upgrades::Security,
        /// Whether to hold the kernel and the firmware at their versions.
        hold_kernel: bool = true,
        /// More packages to hold at their versions.
        hold: Vec<PackageName> = Vec::new(),
        /// Public keys that may log in as the node's user. Keys that are there already stay.
        authorized_keys: Vec<PublicKey> = Vec::new(),
        /// What sshd is told.
        sshd: Sshd = Sshd::default(),
        /// What journald is told.
        journald: Journald = Journald::default(),
        /// What to do about swap. It wears out an SD card and puts off evictions.
        swap: Swap = Swap::Off,
        /// Whether to keep the clock in time and let the boot wait for it.
        time_sync: bool = true,
        /// Time servers to ask in place of the system's own.
        ntp_servers: Vec<HostAddress> = Vec::new(),
        /// Units to stop and disable where they exist.
        disable_services: Vec<UnitName> = UNNEEDED.map(UnitName::literal).to_vec(),
        /// Kernel modules to load now and at every boot.
        modules: Vec<ModuleName> = ["overlay", "br_netfilter", "vxlan"].map(ModuleName::literal).to_vec(),
        /// More kernel parameters, over those that selfheal sets.
        sysctls: BTreeMap<SysctlKey, SysctlValue> = BTreeMap::new(),
        /// A firewall of its own nftables table.
        firewall: Firewall = Firewall::default(),
        /// How long a node waits for selfheal to come back over a new connection before it undoes a change that may
        /// have locked it out.
        dead_man: Period<30, { 30 * MINUTE }> = Period::clamped(3 * MINUTE),
    }
}

/// Units that a node of a cluster has no use for (domain.md §3.6). `avahi-daemon` is not among them: without it
/// nobody answers to `jarvis.local`.
const UNNEEDED: [&str; 13] = [
    "bluetooth.service",
    "hciuart.service",
    "ModemManager.service",
    "triggerhappy.service",
    "triggerhappy.socket",
    "cups.service",
    "cups.socket",
    "cups.path",
    "cups-browsed.service",
    "multipathd.service",
    "multipathd.socket",
    "apport.service",
    "motd-news.timer",
];

section! {
    /// What sshd is told, in a drop-in that goes before all others.
    pub struct Sshd {
        /// Whether a password is enough to log in.
        password_authentication: bool = false,
        /// Whether root may log in.
        permit_root_login: RootLogin = RootLogin::ProhibitPassword,
        /// How many keys a client may try. Fewer than 6 lock out an agent with many keys.
        max_auth_tries: Count<1, 100> = Count::clamped(6),
        /// How long a client may take to log in.
        login_grace_time: Period<5, { 10 * MINUTE }> = Period::clamped(30),
        /// How often a silent client is asked whether it is there.
        client_alive_interval: Period<0, HOUR> = Period::clamped(30),
        /// How many times it may stay silent.
        client_alive_count_max: Count<0, 100> = Count::clamped(4),
        /// Whether to forward X11.
        x11_forwarding: bool = false,
        /// More keywords of sshd_config with their values; a list writes the keyword once for each.
        settings: BTreeMap<SshdKeyword, SshdValues> = BTreeMap::new(),
    }
}

section! {
    /// What journald is told.
    pub struct Journald {
        /// Where the journal is. In memory, as Raspberry Pi OS has it, it forgets why the node rebooted.
        storage: Storage = Storage::Persistent,
        /// How much of the disk it may take.
        max_use: ByteSize = ByteSize::mib(500),
        /// How much of the memory it may take.
        runtime_max_use: ByteSize = ByteSize::mib(64),
        /// How far back it goes.
        max_retention: Period<HOUR, { 10 * YEAR }> = Period::clamped(MONTH),
        /// How often it is written to the disk.
        sync_interval: Period<1, DAY> = Period::clamped(MINUTE),
    }
}

/// A month of 30.44 days, which is shown as `1month`.
const MONTH: u64 = 2_630_016;

section! {
    /// An nftables table for what comes in. It never touches the tables of Kubernetes.
    pub struct Firewall {
        /// Whether to have it.
        enabled: bool = false,
        /// The networks that may log in over SSH and reach the Kubernetes API.
        admin: Vec<Cidr> = Vec::new(),
        /// What everybody may reach: `tcp/80`, `udp/5000-5010`.
        allow: Vec<PortRule> = Vec::new(),
    }
}

choice! {
    /// What is upgraded without being asked.
    pub enum Upgrades: "a kind of upgrades" {
        /// Security fixes
        Security = "security",
        /// Nothing
        Off = "off",
    }
}

choice! {
    /// Whether root may log in over SSH.
    pub enum RootLogin: "a value of PermitRootLogin" {
        /// With a password too
        Yes = "yes",
        /// With a key
        ProhibitPassword = "prohibit-password",
        /// With a key that has a command of its own
        ForcedCommandsOnly = "forced-commands-only",
        /// Never
        No = "no",
    }
}

choice! {
    /// Where the journal is.
    pub enum Storage: "a place for the journal" {
        /// On the disk
        Persistent = "persistent",
        /// In memory
        Volatile = "volatile",
        /// Where it is; selfheal leaves journald alone
        Keep = "keep",
    }
}

choice! {
    /// What to do about swap.
    pub enum Swap: "a way with swap" {
        /// Switch it off, for good
        Off = "off",
        /// Leave it as it is
        Keep = "keep",
    }
}
