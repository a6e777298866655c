//! The `selfheal` command.
fn main() {}
