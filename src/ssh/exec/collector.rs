//! Collecting what comes back of a script: where it begins behind the noise of shell and sudo, its lines, how it ended.

use std::io;
use std::time::Duration;

use russh::{ChannelMsg, ChannelReadHalf};
use tokio::sync::oneshot;

use super::stream::Pulse;
use super::{Output, Status};
use crate::ssh::sudo::{SudoRefusal, Words};
use crate::ssh::{ExecError, Sudo};

/// More stdout than this is an error: a probe's reply is far smaller.
const STDOUT_LIMIT: usize = 64 * 1024 * 1024;
/// More stderr than this is an error.
const STDERR_LIMIT: usize = 8 * 1024 * 1024;

/// Why collecting stopped.
pub(super) enum End {
    Closed,
    Lost,
    Refused,
    Timeout,
    TooMuch(&'static str, usize),
    /// No progress for so long.
    Stalled(Duration),
    /// What was to be sent could not be read here.
    Source(io::Error),
}

/// Takes in a channel's messages.
pub(super) struct Collector<'a> {
    ready: &'a str,
    prompt: Option<&'a str>,
    with_sudo: bool,
    on_line: &'a mut (dyn FnMut(&[u8]) + Send),
    /// The shell runs: from here on stdout is the script's.
    started: bool,
    status: Option<Status>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How much of stdout has been handed over as lines.
    handed_over: usize,
    searched: usize,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        words: &'a Words,
        sudo: Option<&Sudo>,
        on_line: &'a mut (dyn FnMut(&[u8]) + Send),
    ) -> Self {
        Self {
            ready: &words.ready,
            prompt: matches!(sudo, Some(Sudo::Password(_))).then_some(&words.prompt),
            with_sudo: matches!(sudo, Some(Sudo::Password(_) | Sudo::Passwordless)),
            on_line,
            started: false,
            status: None,
            stdout: Vec::new(),
            stderr: Vec::new(),
            handed_over: 0,
            searched: 0,
        }
    }

    pub(super) async fn run(
        &mut self,
        reader: &mut ChannelReadHalf,
        ready: oneshot::Sender<()>,
        pulse: &Pulse,
    ) -> End {
        let mut ready = Some(ready);
        while let Some(message) = reader.wait().await {
            // Also a window that opens again: the node has taken in what it was sent.
            pulse.beat();
            match message {
                ChannelMsg::Data { data } => {
                    self.take_stdout(&data);
                    if self.started
                        && let Some(ready) = ready.take()
                    {
                        let _ = ready.send(());
                    }
                    if self.stdout.len() > STDOUT_LIMIT {
                        return End::TooMuch("stdout", STDOUT_LIMIT);
                    }
                }
                ChannelMsg::ExtendedData { data, .. } => {
                    self.stderr.extend_from_slice(&data);
                    if !self.started && self.password_was_wrong() {
                        ready = None;
                    }
                    if self.stderr.len() > STDERR_LIMIT {
                        return End::TooMuch("stderr", STDERR_LIMIT);
                    }
                }
                ChannelMsg::ExitStatus { exit_status } => {
                    self.status = Some(Status::Exited(exit_status))
                }
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    self.status = Some(Status::Signaled(match signal_name {
                        russh::Sig::Custom(name) => name,
                        signal => format!("{signal:?}"),
                    }));
                }
                ChannelMsg::Failure => return End::Refused,
                ChannelMsg::Close => return End::Closed,
                _ => {}
            }
        }
        End::Lost
    }

    fn take_stdout(&mut self, data: &[u8]) {
        self.stdout.extend_from_slice(data);
        if !self.started {
            let word = self.ready.as_bytes();
            let from = self.searched;
            match find(&self.stdout[from..], word) {
                // The line must be whole; it may end in CR LF where a terminal was forced.
                Some(at) => {
                    let after = from + at + word.len();
                    match self.stdout[after..].iter().position(|byte| *byte == b'\n') {
                        Some(end) => {
                            self.stdout.drain(..after + end + 1);
                            self.started = true;
                        }
                        None => self.searched = from + at,
                    }
                }
                None => self.searched = self.stdout.len().saturating_sub(word.len()),
            }
        }
        if self.started {
            while let Some(end) = self.stdout[self.handed_over..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let end = self.handed_over + end;
                (self.on_line)(&self.stdout[self.handed_over..end]);
                self.handed_over = end + 1;
            }
        }
    }

    /// sudo asks a second time: it did not like the first answer.
    fn password_was_wrong(&self) -> bool {
        self.prompt.is_some_and(|prompt| {
            let first = find(&self.stderr, prompt.as_bytes());
            first.is_some_and(|at| {
                find(&self.stderr[at + prompt.len()..], prompt.as_bytes()).is_some()
            })
        })
    }

    pub(super) fn conclude(
        mut self,
        end: End,
        node: &str,
        limit: Duration,
        lost: impl Fn(&'static str) -> ExecError,
    ) -> Result<Output, ExecError> {
        let node = node.to_owned();
        let wrong_password = !self.started && self.password_was_wrong();
        if let Some(prompt) = self.prompt {
            remove_all(&mut self.stderr, prompt.as_bytes());
        }
        let stderr = || String::from_utf8_lossy(&self.stderr).into_owned();
        match end {
            End::TooMuch(stream, limit) => {
                return Err(ExecError::TooMuchOutput {
                    node,
                    stream,
                    limit,
                });
            }
            End::Timeout => {
                return Err(ExecError::Timeout {
                    node,
                    after: limit,
                    stderr: stderr(),
                });
            }
            End::Stalled(after) => {
                return Err(ExecError::Stalled {
                    node,
                    after,
                    stderr: stderr(),
                });
            }
            End::Source(source) => return Err(ExecError::Source { node, source }),
            End::Lost => return Err(lost("the connection ended")),
            End::Refused => {
                return Err(ExecError::NoShell {
                    node,
                    how: "the server runs no command".to_owned(),
                    stderr: stderr(),
                });
            }
            End::Closed => {}
        }
        let Some(status) = self.status else {
            return Err(lost("the channel was closed before the script ended"));
        };
        if self.started {
            if self.handed_over < self.stdout.len() {
                (self.on_line)(&self.stdout[self.handed_over..]);
            }
            return Ok(Output {
                status,
                stdout: self.stdout,
                stderr: self.stderr,
            });
        }
        if self.with_sudo {
            let code = match status {
                Status::Exited(code) => Some(code),
                Status::Signaled(_) => None,
            };
            let refusal = if wrong_password {
                SudoRefusal::WrongPassword
            } else {
                SudoRefusal::recognize(code, &stderr())
            };
            // Without a word from sudo it was the login shell that would not.
            if refusal != SudoRefusal::Other || stderr().contains("sudo") {
                return Err(ExecError::SudoRefused {
                    node,
                    refusal,
                    stderr: stderr(),
                });
            }
        }
        let said = if self.stderr.is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        let stderr = String::from_utf8_lossy(said).into_owned();
        Err(ExecError::NoShell {
            node,
            how: status.to_string(),
            stderr,
        })
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

fn remove_all(text: &mut Vec<u8>, word: &[u8]) {
    while let Some(at) = find(text, word) {
        text.drain(at..at + word.len());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cuts a text into pieces of the given lengths, and what is left.
    fn pieces<'a>(mut text: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        for length in lengths {
            let (piece, rest) = text.split_at((*length).min(text.len()));
            pieces.push(piece);
            text = rest;
        }
        pieces.push(text);
        pieces
    }

    proptest! {
        #[test]
        fn the_scripts_output_is_found_however_it_arrives(
            noise in "[a-z\\n-]{0,60}",
            output in proptest::collection::vec(any::<u8>(), 0..80),
            carriage_return in any::<bool>(),
            lengths in proptest::collection::vec(0usize..40, 0..20),
        ) {
            let words = Words::random().unwrap();
            let end: &[u8] = if carriage_return { b"\r\n" } else { b"\n" };
            let stream = [noise.as_bytes(), words.ready.as_bytes(), end, &output].concat();
            let mut lines = Vec::new();
            let mut on_line = |line: &[u8]| lines.push(line.to_vec());
            let mut collector = Collector::new(&words, Some(&Sudo::Passwordless), &mut on_line);
            for piece in pieces(&stream, &lengths) {
                collector.take_stdout(piece);
            }
            prop_assert!(collector.started);
            collector.status = Some(Status::Exited(0));
            let unknown = |_| ExecError::TooMuchOutput { node: String::new(), stream: "", limit: 0 };
            let concluded = collector.conclude(End::Closed, "jarvis", Duration::ZERO, unknown).unwrap();
            prop_assert_eq!(&concluded.stdout, &output);
            let mut whole: Vec<_> = output.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if whole.last().is_some_and(Vec::is_empty) {
                whole.pop();
            }
            prop_assert_eq!(lines, whole);
        }

        #[test]
        fn noise_alone_starts_nothing(noise in proptest::collection::vec(any::<u8>(), 0..200), lengths in proptest::collection::vec(0usize..40, 0..9)) {
            let words = Words::random().unwrap();
            let mut silent = |_: &[u8]| {};
            let mut collector = Collector::new(&words, None, &mut silent);
            for piece in pieces(&noise, &lengths) {
                collector.take_stdout(piece);
            }
            prop_assert!(!collector.started);
        }
    }
}
