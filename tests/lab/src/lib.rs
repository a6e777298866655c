//! Virtual Raspberry Pis and fake nodes for selfheal's tests.
//!
//! A virtual Pi is a qemu guest with real Debian, systemd and sshd, and a vfat boot partition that the lab obeys as a
//! Pi's firmware does. [`Lab`] is a table with a switch on it (the Pis of one lab share a LAN), [`Pi`] is one of them:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let lab = selfheal_lab::Lab::new()?;
//! let jarvis = lab.boot("jarvis")?; // a fresh Pi, seconds old
//! assert_eq!(jarvis.ok("hostname")?.trim(), "raspberrypi");
//! jarvis.power_cut()?;
//! jarvis.power_on()?;
//! # Ok(())
//! # }
//! ```
//!
//! What is expensive (packages, image, RAM snapshot) is kept in a cache folder that can be deleted at any time.

pub mod cache;
pub mod clock;
pub mod control;
pub mod fake_node;
pub mod firmware;
pub mod image;
pub mod lab;
pub mod mirror;
pub mod pi;
pub mod recording;
pub mod release;
pub mod repository;
pub mod snapshot;

mod identity;
mod network;
mod process;
mod qemu;
mod qmp;
mod root_channel;
mod ssh;
mod ubuntu;

pub use lab::{Lab, Layout, Options};
pub use pi::Pi;
