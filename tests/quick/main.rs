<<<<<<< HEAD
//! The quick tests: no virtual machine, no network beyond loopback, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod boot;
=======
//! Quick tests against fake nodes: no virtual machine, no network but the loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod ssh;
>>>>>>> ssh
