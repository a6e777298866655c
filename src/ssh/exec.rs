//! One script, one exec: the channel, what is fed to it, and the end.

mod collector;
mod stream;

use std::io;
use std::time::Duration;

use bytes::Bytes;
use russh::ChannelWriteHalf;
use tokio::sync::oneshot;

use super::connect::Link;
use super::error::Cause;
use super::sudo::{self, Words};
use super::{ExecError, Sudo};
use collector::{Collector, End};
pub use stream::{Limits, Upload};
use stream::{Pulse, send};

/// How long to wait for a channel to close that we give up anyway.
const GIVING_UP: Duration = Duration::from_secs(1);

/// What a script left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: Status,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr, together with what the login shell and sudo had to say.
    pub stderr: Vec<u8>,
}

/// How a script ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// With this exit status.
    Exited(u32),
    /// Killed by a signal, named without `SIG`.
    Signaled(String),
}

impl Output {
    /// It exited with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == Status::Exited(0)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signaled(signal) => write!(f, "signal {signal}"),
        }
    }
}

pub(super) struct Request<'a> {
    /// `None`: as the login user.
    pub(super) sudo: Option<&'a Sudo>,
    pub(super) script: &'a str,
    pub(super) limit: Duration,
    /// What follows the script on stdin.
    pub(super) stream: Option<Stream<'a>>,
}

/// A stream of bytes behind a script.
pub(super) struct Stream<'a> {
    pub(super) upload: Upload<'a>,
    /// The script is ready for it.
    pub(super) go: oneshot::Receiver<()>,
    /// The longest time without progress, from then on.
    pub(super) silence: Duration,
    /// Told how many bytes have gone.
    pub(super) progress: &'a mut (dyn FnMut(u64) + Send),
}

type Writer = ChannelWriteHalf<russh::client::Msg>;

/// Why feeding stopped.
enum FeedError {
    /// The connection is gone; that shows in what is read, too.
    Line,
    /// The stream's own source failed.
    Source(io::Error),
}

impl From<russh::Error> for FeedError {
    fn from(_: russh::Error) -> Self {
        Self::Line
    }
}

/// Runs a script over a channel of its own.
pub(super) async fn exec(
    link: &Link,
    node: &str,
    mut request: Request<'_>,
    on_line: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<Output, ExecError> {
    let (sudo, limit) = (request.sudo, request.limit);
    let pulse = Pulse::new(request.stream.as_ref().map(|stream| stream.silence));
    let lost = |during, cause: Cause| ExecError::ConnectionLost {
        node: node.to_owned(),
        during,
        source: link
            .notes
            .lock()
            .farewell
            .clone()
            .map_or(cause, Cause::from),
    };
    let words = Words::random().map_err(|error| ExecError::NoShell {
        node: node.to_owned(),
        how: format!("this machine has no randomness: {error}"),
        stderr: String::new(),
    })?;
    let mut collector = Collector::new(&words, sudo, on_line);
    let (ready, go) = oneshot::channel();
    let mut open = None;
    let work = async {
        let channel = link
            .handle
            .channel_open_session()
            .await
            .map_err(|error| match error {
                russh::Error::ChannelOpenFailure(reason) => ExecError::NoShell {
                    node: node.to_owned(),
                    how: format!("the server opens no session: {reason:?}"),
                    stderr: String::new(),
                },
                error => lost("opening a channel", error.into()),
            })?;
        let (mut reader, writer) = channel.split();
        let writer: &Writer = open.insert(writer);
        let feed = feed(writer, &mut request, &words, go, &pulse);
        let collect = collector.run(&mut reader, ready, &pulse);
        tokio::pin!(feed, collect);
        let mut fed = false;
        loop {
            tokio::select! {
                biased;
                end = &mut collect => return Ok(end),
                outcome = &mut feed, if !fed => match outcome {
                    Err(FeedError::Source(error)) => return Ok(End::Source(error)),
                    // A failed write shows in what is read, too.
                    Ok(()) | Err(FeedError::Line) => fed = true,
                },
                () = pulse.stopped() => return Ok(End::Stalled(pulse.silence())),
            }
        }
    };
    let end = match tokio::time::timeout(limit, work).await {
        Ok(end) => end?,
        Err(_) => End::Timeout,
    };
    if !matches!(end, End::Closed)
        && let Some(writer) = &open
    {
        let _ = tokio::time::timeout(GIVING_UP, writer.close()).await;
    }
    let during = "waiting for the script";
    collector.conclude(end, node, limit, |cause| lost(during, cause.into()))
}

/// Sends the command and all of stdin. Nothing is waited for, except sudo's word that it took the password, and the
/// script's that it is ready for a stream.
async fn feed(
    writer: &Writer,
    request: &mut Request<'_>,
    words: &Words,
    go: oneshot::Receiver<()>,
    pulse: &Pulse,
) -> Result<(), FeedError> {
    let reading = match request.stream {
        None => sudo::Reading::Script,
        Some(_) => sudo::Reading::ScriptThenStream,
    };
    writer
        .exec(true, sudo::command(request.sudo, words, reading))
        .await?;
    if let Some(Sudo::Password(password)) = request.sudo {
        writer
            .data_bytes(Bytes::from_owner(sudo::password_line(password)))
            .await?;
        if go.await.is_err() {
            // Refused: end of input keeps sudo from asking again. (sudo-rs takes it for two more, empty, answers.)
            return Ok(writer.eof().await?);
        }
        writer.data_bytes(format!("{}\n", words.marker)).await?;
    }
    match &mut request.stream {
        None => {
            writer
                .data_bytes(Bytes::copy_from_slice(request.script.as_bytes()))
                .await?;
        }
        Some(stream) => {
            writer.data_bytes(sudo::script_line(request.script)).await?;
            // Never: the script ends without wanting it.
            if (&mut stream.go).await.is_ok() {
                send(writer, stream, pulse).await?;
            }
        }
    }
    Ok(writer.eof().await?)
}
