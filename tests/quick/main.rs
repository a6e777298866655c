//! The quick tests: no virtual machine, no network but loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod inventory;
