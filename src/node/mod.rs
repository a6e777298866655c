//! The node as it is: what can be read on it, and what that means.

pub mod boot;
