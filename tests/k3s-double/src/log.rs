//! What it says, in the forms that k3s and the kubelet inside it have; under systemd that is the journal.

use std::fmt::Display;

/// A line of k3s: `time="…" level=info msg="…"`.
pub fn say(level: &str, message: impl Display) {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
    eprintln!("time=\"{now}\" level={level} msg={:?}", message.to_string());
}

pub fn info(message: impl Display) {
    say("info", message);
}

pub fn warn(message: impl Display) {
    say("warning", message);
}

pub fn error(message: impl Display) {
    say("error", message);
}

/// An error of the kubelet: `E1122 22:25:44.000000   1 FILE] "MESSAGE" err="…" pod="NAMESPACE/NAME"`.
pub fn kubelet_error(file: &str, message: &str, error: impl Display, pod: &str) {
    let now = jiff::Timestamp::now().strftime("%m%d %H:%M:%S%.6f");
    let pid = std::process::id();
    eprintln!(
        "E{now} {pid:>7} {file}] {message:?} err={:?} pod={pod:?}",
        error.to_string()
    );
}
