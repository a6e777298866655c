//! The checks: one table, which says of each what it is called, when all is well, what it rests on and who judges it.

use super::finding::Outcome;
use super::measure::Measure;
use super::patient::Patient;
use super::{
    board, boot, boots, clock, cluster, disk, drift, ghosts, journal, k3s, kernel, longhorn,
    memory, network, shares, sshd, watchdog,
};

/// What doctor looks at. The numbers are those of domain.md §10; what is missing comes with what they look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)] // their titles are in the table below
pub enum Check {
    Architecture,
    Model,
    OperatingSystem,
    BootLayout,
    TrialBoot,
    BootSpace,
    MemoryCgroup,
    Pressure,
    PendingReboot,
    HardwareWatchdog,
    PanicPolicy,
    RcuGuard,
    RcuStalls,
    HungTasks,
    UncleanBoots,
    Journal,
    PanicRecords,
    Throttling,
    Temperature,
    RootFileSystem,
    StorageErrors,
    NvmeHealth,
    DiskSpace,
    Memory,
    IoPressure,
    Swap,
    Clock,
    ClockGate,
    Names,
    SshLogin,
    Firewall,
    Modules,
    NetworkShares,
    NetworkVolumes,
    K3s,
    K3sVersion,
    Api,
    ClusterNode,
    Certificates,
    K3sSecrets,
    Datastore,
    Guard,
    Ghosts,
    Leases,
    Pods,
    Iscsi,
    Drift,
}

/// What is known of a check without a node.
pub struct Spec {
    /// Its number in domain.md §10.
    pub number: u8,
    /// Its name for programs; it does not change.
    pub id: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// When it is ok, warns and fails.
    pub threshold: &'static str,
    /// The measurements without which nothing can be said.
    pub(super) rests_on: &'static [Measure],
    /// From what was measured to what it means.
    pub(super) judge: fn(&Patient<'_>) -> Outcome,
}

impl Check {
    /// All checks, by number.
    pub const ALL: [Check; 47] = [
        Check::Architecture,
        Check::Model,
        Check::OperatingSystem,
        Check::BootLayout,
        Check::TrialBoot,
        Check::BootSpace,
        Check::MemoryCgroup,
        Check::Pressure,
        Check::PendingReboot,
        Check::HardwareWatchdog,
        Check::PanicPolicy,
        Check::RcuGuard,
        Check::RcuStalls,
        Check::HungTasks,
        Check::UncleanBoots,
        Check::Journal,
        Check::PanicRecords,
        Check::Throttling,
        Check::Temperature,
        Check::RootFileSystem,
        Check::StorageErrors,
        Check::NvmeHealth,
        Check::DiskSpace,
        Check::Memory,
        Check::IoPressure,
        Check::Swap,
        Check::Clock,
        Check::ClockGate,
        Check::Names,
        Check::SshLogin,
        Check::Firewall,
        Check::Modules,
        Check::NetworkShares,
        Check::NetworkVolumes,
        Check::K3s,
        Check::K3sVersion,
        Check::Api,
        Check::ClusterNode,
        Check::Certificates,
        Check::K3sSecrets,
        Check::Datastore,
        Check::Guard,
        Check::Ghosts,
        Check::Leases,
        Check::Pods,
        Check::Iscsi,
        Check::Drift,
    ];

    /// Its name for programs.
    pub fn id(self) -> &'static str {
        self.spec().id
    }

    /// What is known of it without a node.
    pub fn spec(self) -> Spec {
        use Measure::*;
        let spec = |number, id, title, threshold, rests_on, judge| Spec {
            number,
            id,
            title,
            threshold,
            rests_on,
            judge,
        };
        match self {
            Check::Architecture => spec(
                1,
                "arch",
                "64-bit system",
                "ok: kernel aarch64 and packages arm64; fail: anything else",
                &[Facts, Debian],
                board::architecture,
            ),
            Check::Model => spec(
                2,
                "model",
                "board",
                "ok: Pi 4 or 5 with 4 GB or more; warn: another Pi, or less memory; fail: no Pi",
                &[Facts],
                board::model,
            ),
            Check::OperatingSystem => spec(
                3,
                "os",
                "operating system",
                "ok: supported; warn: out of support, or not known to selfheal; fail: older than Debian 12 or Ubuntu 24.04",
                &[Facts],
                board::operating_system,
            ),
            Check::BootLayout => spec(
                4,
                "boot-layout",
                "boot files",
                "ok: the running kernel was started with the file the firmware reads; warn: a change or a trial waits for \
                 a reboot; fail: another file, several lines, none",
                &[Facts, BootFiles, ManagedFiles],
                boot::layout,
            ),
            Check::TrialBoot => spec(
                5,
                "trial-boot",
                "trial boot (Ubuntu A/B)",
                "ok: good, or no trial; warn: not tried yet; fail: rejected",
                &[Facts, BootFiles],
                boot::trial,
            ),
            Check::BootSpace => spec(
                6,
                "boot-space",
                "boot partition",
                "ok: writable, 100 MB free; warn: 40 to 100 MB free; fail: less, or read-only",
                &[Facts],
                boot::space,
            ),
            Check::MemoryCgroup => spec(
                7,
                "memory-cgroup",
                "memory cgroup",
                "ok: cgroup v2 with the memory controller; fail: without",
                &[Facts],
                kernel::memory_cgroup,
            ),
            Check::Pressure => spec(
                8,
                "psi",
                "pressure stall information",
                "ok: /proc/pressure is there; warn: it is not",
                &[Facts],
                kernel::pressure,
            ),
            Check::PendingReboot => spec(
                9,
                "pending-reboot",
                "pending reboot",
                "ok: none; warn: one waits; fail: for more than 30 days",
                &[Facts, BootFiles, ManagedFiles, Kernels],
                boot::pending_reboot,
            ),
            Check::HardwareWatchdog => spec(
                10,
                "watchdog",
                "hardware watchdog",
                "ok: fed by systemd, 14 s or more; warn: there, but off or shorter; fail: none, or the watchdog daemon \
                 beside it",
                &[Kernel, Systemd],
                watchdog::hardware,
            ),
            Check::PanicPolicy => spec(
                11,
                "panic-policy",
                "panic policy",
                "ok: kernel.panic=10, panic_on_oops=1, softlockup_panic=1; warn: another value; \
                 fail: kernel.panic=0",
                &[Kernel, Records],
                watchdog::panic_policy,
            ),
            Check::RcuGuard => spec(
                12,
                "rcu-guard",
                "RCU stall threshold",
                "ok: expedited threshold 0 or at least 1000 ms; warn: below, without a panic; fail: below, and \
                 panic_on_rcu_stall",
                &[Kernel],
                kernel::rcu_guard,
            ),
            Check::RcuStalls => spec(
                13,
                "rcu-stalls",
                "RCU stalls",
                "in this boot and the one before; ok: none, or expedited ones under 1 s; warn: 1 to 10 s; fail: longer, \
                 or a normal stall",
                &[Log, LogBefore, TickRate],
                kernel::rcu_stalls,
            ),
            Check::HungTasks => spec(
                14,
                "hung-tasks",
                "hung tasks",
                "in 24 h; ok: 0; warn: 1 to 3; fail: more, or a task that has been waiting for 5 minutes",
                &[Facts, Tasks, Log, LogBefore],
                kernel::hung_tasks,
            ),
            Check::UncleanBoots => spec(
                15,
                "unclean-boots",
                "unclean boots",
                "in 7 days of running; ok: 0 or 1; warn: 2 or 3; fail: 4 or more, or safe mode",
                &[Facts, Kernel, LogBefore, Records],
                boots::unclean,
            ),
            Check::Journal => spec(
                16,
                "journal",
                "journal",
                "ok: on the disk; warn: left to a folder that is not there; fail: in memory",
                &[Facts, Journal],
                journal::persistent,
            ),
            Check::PanicRecords => spec(
                17,
                "pstore",
                "panic records",
                "ok: none; warn: older than 7 days; fail: newer",
                &[Facts, Records],
                boots::panic_records,
            ),
            Check::Throttling => spec(
                18,
                "throttling",
                "power and throttling",
                "ok: 0x0; warn: since boot (bits 16 to 19); fail: now (bits 0 to 3)",
                &[Board],
                board::throttling,
            ),
            Check::Temperature => spec(
                19,
                "temperature",
                "temperature",
                "ok: under 75 °C; warn: 75 to 82 °C; fail: above",
                &[Board],
                board::temperature,
            ),
            Check::RootFileSystem => spec(
                20,
                "root-fs",
                "root file system",
                "ok: writable, no errors; warn: errors on record; fail: read-only",
                &[Facts, Kernel, Log],
                disk::root,
            ),
            Check::StorageErrors => spec(
                21,
                "storage-errors",
                "storage errors",
                "of cards, NVMe and USB drives, in 24 h; ok: 0; warn: 1 to 5; fail: more",
                &[Measure::StorageLog],
                disk::errors,
            ),
            Check::NvmeHealth => spec(
                22,
                "nvme",
                "NVMe health",
                "ok: no warning; warn: used over 80 %; fail: over 95 %, or the drive's critical warning",
                &[NvmeHealth],
                disk::nvme,
            ),
            Check::DiskSpace => spec(
                23,
                "disk-space",
                "disk space",
                "bytes and inodes of each local file system; ok: under 75 % used; warn: 75 to 88 %; fail: above",
                &[Space],
                disk::space,
            ),
            Check::Memory => spec(
                24,
                "memory",
                "memory",
                "ok: over 15 % available; warn: 8 to 15 %, or all tasks stalled over 10 % of 5 minutes; fail: under 8 %, or \
                 over 30 %",
                &[Facts, Kernel],
                memory::available,
            ),
            Check::IoPressure => spec(
                25,
                "io-pressure",
                "I/O pressure",
                "all tasks stalled, of 5 minutes; ok: under 25 %; warn: 25 to 50 %; fail: above",
                &[Facts, Kernel],
                disk::pressure,
            ),
            Check::Swap => spec(
                26,
                "swap",
                "swap",
                "ok: none; warn: compressed memory (zram); fail: a file or partition",
                &[Facts],
                memory::swap,
            ),
            Check::Clock => spec(
                27,
                "clock",
                "clock",
                "against this computer's, less the round trip; ok: under 0.5 s and synchronised; warn: up to 5 s, or not \
                 synchronised; fail: more, or before the last recorded time",
                &[Clock, TimeSync, Kernel],
                clock::clock,
            ),
            Check::ClockGate => spec(
                28,
                "clock-gate",
                "clock gate before k3s",
                "ok: enabled, and k3s starts after it; warn: it could not set the clock in this boot; fail: not there",
                &[K3sUnits, K3sFiles, Facts],
                clock::gate,
            ),
            Check::Names => spec(
                29,
                "hostname",
                "names and address",
                "ok: unique name, on the 127.0.1.1 line, fixed address; warn: DHCP, or another 127.0.1.1 line; fail: two \
                 nodes of one name",
                &[Facts, Network],
                network::names,
            ),
            Check::SshLogin => spec(
                30,
                "sshd",
                "ssh login",
                "ok: keys only, root as in the inventory; warn: root where the inventory does not say so; fail: passwords",
                &[SshdSettings],
                sshd::login,
            ),
            Check::Firewall => spec(
                31,
                "firewall",
                "firewall",
                "ok: ports between nodes answer; warn: ufw, firewalld or a `flush ruleset` in the way of k3s's rules; \
                 fail: a port is blocked",
                &[Systemd, Settings, Peers],
                network::firewall,
            ),
            Check::Modules => spec(
                32,
                "modules",
                "kernel modules",
                "ok: overlay, br_netfilter, vxlan and the inventory's loaded; warn: loadable; fail: missing",
                &[KernelModules],
                kernel::modules,
            ),
            Check::NetworkShares => spec(
                33,
                "no-nfs",
                "no NFS or CIFS",
                "ok: no mount, no line in fstab, no package; warn: one of these; fail: a mount on a control plane",
                &[Facts, Settings, Debian],
                shares::on_the_node,
            ),
            Check::NetworkVolumes => spec(
                33,
                "no-nfs-volumes",
                "no NFS or CIFS in Kubernetes",
                "ok: no NFS volume, RWX claim or NFS backup target",
                &[],
                shares::in_kubernetes,
            ),
            Check::K3s => spec(
                34,
                "k3s",
                "k3s",
                "ok: active, restarted once at most within the hour; warn: 2 to 5 times, starting, or not enabled; fail: not \
                 there, not active, more restarts",
                &[Facts, K3sUnits, Records],
                k3s::unit,
            ),
            Check::K3sVersion => spec(
                35,
                "k3s-version",
                "version of k3s",
                "ok: the inventory's, on all nodes; warn: another patch; fail: another minor version, here or on another \
                 node, or one before 1.35",
                &[K3sUnits, Measure::K3sVersion],
                k3s::version,
            ),
            Check::Api => spec(
                36,
                "api",
                "API server",
                "/readyz five times, on servers; ok: under 1 s (a virtual Pi: 5 s); warn: 1 to 5 s; fail: slower, or not ready",
                &[K3sUnits, Measure::Api],
                cluster::api,
            ),
            Check::ClusterNode => spec(
                37,
                "node",
                "node in the cluster",
                "ok: Ready; warn: under pressure, cordoned, or NotReady since less than 5 minutes; fail: longer, or unknown \
                 to the cluster",
                &[Facts, K3sUnits, Cluster],
                cluster::node,
            ),
            Check::Certificates => spec(
                38,
                "certificates",
                "certificates of k3s",
                "ok: more than 120 days left; warn: 30 to 120; fail: less",
                &[Facts, K3sUnits, Measure::Certificates],
                k3s::certificates,
            ),
            Check::K3sSecrets => spec(
                39,
                "k3s-secrets",
                "tokens and node password",
                "ok: for root alone, and the cluster accepts the node; warn: for a group, or no token; fail: for everybody, \
                 or a node password that is missing or rejected",
                &[Facts, K3sUnits, K3sFiles, K3sLog],
                k3s::secrets,
            ),
            Check::Datastore => spec(
                40,
                "datastore",
                "datastore",
                "ok: under 1 GiB; warn: 1 to 2 GiB, or a write-ahead log over 512 MiB; fail: bigger",
                &[K3sUnits, K3sFiles],
                k3s::datastore,
            ),
            Check::Guard => spec(
                41,
                "guard",
                "guard before k3s",
                "ok: k3s starts with it, and it acted in this boot; warn: it did not, or systemd complains of the unit; \
                 fail: not there, or records of containerd that are damaged",
                &[Facts, K3sUnits, K3sFiles, Measure::Guard],
                ghosts::guard,
            ),
            Check::Ghosts => spec(
                42,
                "ghosts",
                "ghost sandboxes",
                "ok: none; warn: sandboxes older than the boot that no pod has any more; fail: a name that is wanted and \
                 taken, in the last 15 minutes",
                &[K3sUnits, K3sLog, Measure::Ghosts],
                ghosts::ghosts,
            ),
            Check::Leases => spec(
                43,
                "leases",
                "addresses of pods",
                "ok: each belongs to a sandbox; warn: some do not; fail: more than 200, or files of 0 bytes",
                &[K3sUnits, Measure::Leases],
                ghosts::leases,
            ),
            Check::Pods => spec(
                44,
                "pods",
                "pods",
                "that wait for more than 10 minutes, crash in a loop, or were evicted; ok: none; warn: some; fail: in \
                 kube-system",
                &[Facts, K3sUnits, Cluster],
                cluster::pods,
            ),
            Check::Iscsi => spec(
                45,
                "iscsi",
                "iSCSI for Longhorn",
                "ok: iscsid runs, under a name that no other node has; warn: only its socket; fail: neither, a name that \
                 is missing or shared, or multipathd",
                &[K3sUnits, Settings],
                longhorn::iscsi,
            ),
            Check::Drift => spec(
                54,
                "drift",
                "managed files",
                "ok: as selfheal wrote them; warn: changed; fail: missing",
                &[ManagedFiles],
                drift::drift,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_numbers_in_order() {
        let ids: BTreeSet<&str> = Check::ALL.iter().map(|check| check.id()).collect();
        assert_eq!(ids.len(), Check::ALL.len());
        assert!(Check::ALL.is_sorted_by_key(|check| check.spec().number));
        assert!(Check::ALL.is_sorted());
    }
}
