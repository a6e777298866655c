//! The editors of the boot files, and nothing else of selfheal: its other dependencies would take most of an hour to
//! build with coverage.
pub mod node;
pub mod resource;
