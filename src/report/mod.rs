//! What the user sees: one stream of typed events, several renderers that only consume it.

pub mod event;
pub mod log;
pub mod progress;
mod transfer;

pub use event::{Event, Events};
pub use transfer::telling;
