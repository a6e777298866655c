//! Progress for people: a bar per node on a terminal, plain lines in a pipe. It goes to stderr; stdout carries results.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
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
    /// Nothing.
    Quiet,
}

/// The bars on the screen: one set for the process, as there is one screen.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Runs a question to the user with the bars off the screen, where they would wipe it out. One question at a time.
pub fn aside<T>(question: impl FnOnce() -> T) -> T {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let _ = BARS.clear();
    BARS.set_draw_target(ProgressDrawTarget::hidden());
    let answer = question();
    BARS.set_draw_target(ProgressDrawTarget::stderr());
    answer
}

/// Shows events until the last sender is gone, and writes them into the log.
pub async fn show(mut events: UnboundedReceiver<Event>, mode: Mode, log: &mut Option<Log>) {
    let mut nodes: BTreeMap<String, ProgressBar> = BTreeMap::new();
    let mut quarters = Quarters::default();
    while let Some(event) = events.recv().await {
        let told = quarters.tell(&event);
        if let Some(log) = log
            && told
        {
            log.write(&event);
        }
        match mode {
            Mode::Bars => bar(&mut nodes, &event),
            // A failure gets its own words, with a hint, at the end.
            Mode::Lines { .. } if matches!(event, Event::Failed { .. }) || !told => {}
            Mode::Lines { all } if all || !event.is_passing() => line(&event),
            Mode::Lines { .. } | Mode::Quiet => {}
        }
    }
    for bar in nodes.values() {
        bar.finish_and_clear();
        BARS.remove(bar);
    }
}

/// In a pipe and in the log an upload is worth a line at its beginning and at each quarter.
#[derive(Debug, Default)]
struct Quarters(BTreeMap<String, (String, u64)>);

impl Quarters {
    /// Whether an event is worth a line.
    fn tell(&mut self, event: &Event) -> bool {
        let Event::Transferring {
            node,
            file,
            done,
            total,
            ..
        } = event
        else {
            return true;
        };
        let quarter = (file.clone(), done.saturating_mul(4) / (*total).max(1));
        self.0.insert(node.clone(), quarter.clone()) != Some(quarter)
    }
}

/// How a node's line looks while nothing is counted.
const SPINNER: &str = "{spinner} {prefix}: {msg} ({elapsed})";
/// And while bytes are.
const BYTES: &str =
    "{spinner} {prefix}: {msg} {bar:20} {bytes} of {total_bytes} ({bytes_per_sec}, {eta} left)";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn line(event: &Event) {
    eprintln!("{}: {}", event.node(), event.text());
}

/// What is done stays on the screen; what is under way moves below it.
fn bar(nodes: &mut BTreeMap<String, ProgressBar>, event: &Event) {
    let count = nodes.len() as u64;
    let bar = nodes.entry(event.node().to_owned()).or_insert_with(|| {
        if count >= LINES {
            return ProgressBar::hidden();
        }
        let bar = BARS.add(ProgressBar::new_spinner());
        bar.set_style(style(SPINNER));
        bar.set_prefix(event.node().to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    });
    let keep = || match BARS.is_hidden() {
        // A question is open: what is done is said all the same.
        true => line(event),
        false => drop(BARS.println(format!("{}: {}", event.node(), event.text()))),
    };
    match event {
        Event::Transferring {
            what,
            file,
            done,
            total,
            ..
        } => {
            if bar.length() != Some(*total) {
                bar.set_style(style(BYTES));
                bar.set_length(*total);
                bar.set_message(format!("{what} {file}"));
                bar.reset_elapsed();
                bar.reset_eta();
            }
            bar.set_position(*done);
            return;
        }
        _ if bar.length().is_some() => {
            bar.unset_length();
            bar.set_style(style(SPINNER));
        }
        _ => {}
    }
    match event {
        Event::Transferring { .. } => {}
        Event::Connecting { .. } | Event::Observed { .. } | Event::Waiting { .. } => {
            bar.set_message(event.text())
        }
        Event::StepStarted { .. } | Event::Rebooting { .. } => {
            bar.reset_elapsed();
            bar.set_message(event.text());
        }
        Event::StepDone { .. } | Event::Note { .. } | Event::Rebooted { .. } => keep(),
        Event::Failed { .. } => bar.finish_and_clear(),
        Event::Converged { .. } => {
            keep();
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_worth_a_line_at_each_quarter() {
        let mut quarters = Quarters::default();
        let mut told = |node: &str, file: &str, done| {
            quarters.tell(&Event::Transferring {
                node: node.to_owned(),
                what: "uploading",
                file: file.to_owned(),
                done,
                total: 100,
            })
        };
        let lines: Vec<u64> = (0..=100)
            .filter(|done| told("jarvis", "k3s", *done))
            .collect();
        assert_eq!(lines, [0, 25, 50, 75, 100]);
        assert!(told("ultron", "k3s", 100), "another node");
        assert!(told("jarvis", "images", 100), "another file");
        assert!(!told("jarvis", "images", 100), "nothing new");
    }
}
