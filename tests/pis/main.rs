//! Tests on virtual Pis. They need the lab's tools (`tests/lab/install.sh`) and a few minutes; `tests/run.sh` runs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod boot_write;
mod cluster;
mod converge;
mod doctor;
mod double;
mod frozen;
mod homelab;
mod interrupted;
mod joining;
mod k3s;
mod lab;
mod lockout;
mod longhorn;
mod odd;
mod packages;
mod recovery;
mod sick;
mod trial;
mod way_in;
mod wedged;
