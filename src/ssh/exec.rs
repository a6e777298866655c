//! One script, one exec: the channel, what is fed to it, and the end.

mod collector;

use std::time::Duration;

use bytes::Bytes;
use russh::ChannelWriteHalf;
use tokio::sync::oneshot;

use super::connect::Link;
use super::error::Cause;
use super::sudo::{self, Words};
use super::{ExecError, Sudo};
use collector::{Collector, End};

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
}

type Writer = ChannelWriteHalf<russh::client::Msg>;

/// Runs a script over a channel of its own.
pub(super) async fn exec(
    link: &Link,
    node: &str,
    request: Request<'_>,
    on_line: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<Output, ExecError> {
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
    let mut collector = Collector::new(&words, request.sudo, on_line);
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
        let feed = feed(writer, &request, &words, go);
        let collect = collector.run(&mut reader, ready);
        tokio::pin!(feed, collect);
        let mut fed = false;
        loop {
            tokio::select! {
                biased;
                end = &mut collect => return Ok(end),
                // A failed write shows in what is read, too.
                _ = &mut feed, if !fed => fed = true,
            }
        }
    };
    let end = match tokio::time::timeout(request.limit, work).await {
        Ok(end) => end?,
        Err(_) => End::Timeout,
    };
    if !matches!(end, End::Closed)
        && let Some(writer) = &open
    {
        let _ = tokio::time::timeout(GIVING_UP, writer.close()).await;
    }
    let during = "waiting for the script";
    collector.conclude(end, node, request.limit, |cause| lost(during, cause.into()))
}

/// Sends the command and all of stdin. Nothing is waited for, except sudo's word that it took the password.
async fn feed(
    writer: &Writer,
    request: &Request<'_>,
    words: &Words,
    go: oneshot::Receiver<()>,
) -> Result<(), russh::Error> {
    writer
        .exec(true, sudo::command(request.sudo, words))
        .await?;
    if let Some(Sudo::Password(password)) = request.sudo {
        writer
            .data_bytes(Bytes::from_owner(sudo::password_line(password)))
            .await?;
        if go.await.is_err() {
            // Refused: end of input keeps sudo from asking again. (sudo-rs takes it for two more, empty, answers.)
            return writer.eof().await;
        }
        writer.data_bytes(format!("{}\n", words.marker)).await?;
    }
    writer
        .data_bytes(Bytes::copy_from_slice(request.script.as_bytes()))
        .await?;
    writer.eof().await
}
