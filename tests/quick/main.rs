//! Quick tests against fake nodes: no virtual machine, no network but the loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ssh;
