//! What the user sees: one stream of typed events, several renderers that only consume it.

pub mod event;
pub mod log;
pub mod progress;

pub use event::{Event, Events};
