//! Virtual Raspberry Pis and fake nodes for selfheal's tests.

pub mod fake_node;
