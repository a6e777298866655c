//! `cargo lab`: starts, stops and torments virtual Raspberry Pis.
fn main() {}
