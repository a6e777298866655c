//! What the user sees: one stream of typed events, several renderers that only consume it.

pub mod event;
pub mod log;
pub mod progress;
mod transfer;

pub use event::{Event, Events};
pub use transfer::telling;

/// A count with its word: "1 node", "2 nodes".
pub fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}
