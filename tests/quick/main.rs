//! The quick tests: no virtual machine, no network beyond loopback, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod boot;
mod boot_put;
mod crash;
mod deadman;
mod firewall;
mod inventory;
mod ssh;
