#[path = "../../src/node/boot/mod.rs"]
pub mod boot;
