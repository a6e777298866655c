//! The quick tests: no virtual machine, no network beyond loopback, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod artifact;
mod binary;
mod boot;
mod boot_put;
mod boots;
mod cli;
mod crash;
mod deadman;
mod departure;
mod doctor;
mod engine;
mod firewall;
mod heal;
mod init;
mod inventory;
mod orphan;
mod ssh;
mod trial;
mod trust;
mod upload;
