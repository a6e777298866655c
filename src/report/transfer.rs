//! How far a file is on its way.

use super::{Event, Events};

/// What is to be called with the bytes so far and the bytes in all: it sends an event for each percent, not for each chunk.
/// `what` is done to `file`, which is for `node`.
pub fn telling(
    events: &Events,
    node: &str,
    what: &'static str,
    file: &str,
) -> impl FnMut(u64, u64) + Send + use<> {
    let (events, node, file) = (events.clone(), node.to_owned(), file.to_owned());
    let mut last = None;
    move |done, total| {
        let percent = done.saturating_mul(100) / total.max(1);
        if last.replace(percent) != Some(percent) {
            events.send(Event::Transferring {
                node: node.clone(),
                what,
                file: file.clone(),
                done,
                total,
            });
        }
    }
}
