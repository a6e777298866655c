//! `[watchdog]`: what brings a node back that froze, and what keeps it from doing so for ever.

use super::define::section;
use super::quantity::{Count, DAY, HOUR, MINUTE, Period};

section! {
    /// Hardware watchdog, panics, reboot budget and safe mode: for all nodes in `[watchdog]`, for one in
    /// `[nodes.NAME.watchdog]`.
    pub struct Watchdog {
        /// Whether systemd feeds the hardware watchdog, which resets a node whose kernel or systemd is dead. Without it
        /// selfheal leaves the system's own setting alone.
        hardware: bool = true,
        /// How long the hardware watchdog waits for systemd. Where it is not said: 60 s, and 14 s on kernels before 6.8,
        /// whose driver cannot wait longer.
        timeout: Option<Period<10, { 5 * MINUTE }>> = None,
        /// How long the last part of a shutdown may take, after all services stopped, before the hardware resets the node.
        shutdown_timeout: Period<30, { 15 * MINUTE }> = Period::clamped(3 * MINUTE),
        /// After how long the kernel reports a task that waits for its disk. Where it is not said: 240 s where the
        /// system is on an SD card, else 120 s. It is reported only: a busy disk is no reason to reboot.
        hung_task_timeout: Option<Period<30, HOUR>> = None,
        /// How often a boot may end badly (a crash, a frozen node, a power cut) within `within`. Once more, and the node
        /// comes up in safe mode: network and ssh, but no k3s.
        unclean_boots: Count<1, 50> = Count::clamped(4),
        /// The time in which `unclean_boots` are counted: uptime, summed over boots, because a Pi's clock lies.
        within: Period<{ 5 * MINUTE }, DAY> = Period::clamped(30 * MINUTE),
        /// After how long a node leaves safe mode by itself. It does so once; should it be back there soon, it stays until
        /// `selfheal node resume`.
        safe_mode: Period<MINUTE, { 7 * DAY }> = Period::clamped(HOUR),
    }
}
