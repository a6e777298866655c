//! Progress for people: a bar per node on a terminal, plain lines in a pipe. It goes to stderr; stdout carries results.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Event, log::Log};

/// How many nodes have a line of their own at most.
const LINES: u64 = 8;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A line a node that changes in place.
    Bars,
    /// A line an event.
    Lines {
        /// Also the events that only say what is going on.
        all: bool,
    },
    /// Nothing but failures.
    Quiet,
}

/// Shows events until the last sender is gone, and writes them into the log.
pub async fn show(mut events: UnboundedReceiver<Event>, mode: Mode, log: &mut Option<Log>) {
    let bars = MultiProgress::new();
    let mut nodes: BTreeMap<String, ProgressBar> = BTreeMap::new();
    while let Some(event) = events.recv().await {
        if let Some(log) = log {
            log.write(&event);
        }
        match mode {
            Mode::Bars => bar(&bars, &mut nodes, &event),
            Mode::Lines { all } if all || !event.is_passing() => line(&event),
            Mode::Quiet if matches!(event, Event::Failed { .. }) => line(&event),
            Mode::Lines { .. } | Mode::Quiet => {}
        }
    }
    nodes.values().for_each(ProgressBar::finish_and_clear);
}

fn line(event: &Event) {
    eprintln!("{}: {}", event.node(), event.text());
}

/// What is done stays on the screen; what is under way moves below it.
fn bar(bars: &MultiProgress, nodes: &mut BTreeMap<String, ProgressBar>, event: &Event) {
    let count = nodes.len() as u64;
    let bar = nodes.entry(event.node().to_owned()).or_insert_with(|| {
        if count >= LINES {
            return ProgressBar::hidden();
        }
        let bar = bars.add(ProgressBar::new_spinner());
        let style = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(event.node().to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    });
    let keep = || {
        let _ = bars.println(format!("{}: {}", event.node(), event.text()));
    };
    match event {
        Event::Connecting { .. } | Event::Observed { .. } | Event::Waiting { .. } => {
            bar.set_message(event.text())
        }
        Event::StepStarted { .. } | Event::Rebooting { .. } => {
            bar.reset_elapsed();
            bar.set_message(event.text());
        }
        Event::StepDone { .. } | Event::Note { .. } | Event::Rebooted { .. } => keep(),
        Event::Converged { .. } | Event::Failed { .. } => {
            keep();
            bar.finish_and_clear();
        }
    }
}
