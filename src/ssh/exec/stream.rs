//! A stream of bytes behind a script: read as fast as the node takes it, and no faster.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{FeedError, Stream, Writer};

/// What is read at once.
const CHUNK: usize = 64 * 1024;
/// How many chunks wait for the connection at most. Without a bound they would fill the window that the node grants, 2 MiB
/// a node; with fewer the connection runs dry between two reads.
const CHUNKS: usize = 4;

/// A stream of known length that a script receives.
pub struct Upload<'a> {
    /// Where it comes from.
    pub reader: &'a mut (dyn AsyncRead + Send + Unpin),
    /// How many bytes are sent.
    pub length: u64,
    /// The line on stdout by which the script asks for it.
    pub go: &'a str,
}

impl fmt::Debug for Upload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("length", &self.length)
            .field("go", &self.go)
            .finish_non_exhaustive()
    }
}

/// How long an upload may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the go on, without the node taking or saying anything.
    pub silence: Duration,
    /// In all.
    pub total: Duration,
}

/// When something last moved.
pub(super) struct Pulse {
    silence: Option<Duration>,
    /// `None` until there is something to wait for.
    last: Mutex<Option<Instant>>,
}

impl Pulse {
    pub(super) fn new(silence: Option<Duration>) -> Self {
        Self {
            silence,
            last: Mutex::new(None),
        }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.last
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn start(&self) {
        *self.last() = Some(Instant::now());
    }

    /// Something moved.
    pub(super) fn beat(&self) {
        if let Some(last) = &mut *self.last() {
            *last = Instant::now();
        }
    }

    pub(super) fn silence(&self) -> Duration {
        self.silence.unwrap_or_default()
    }

    /// Waits until nothing has moved for too long.
    pub(super) async fn stopped(&self) {
        let Some(silence) = self.silence else {
            return std::future::pending().await;
        };
        loop {
            let last = *self.last();
            match last.map(|last| last + silence) {
                Some(end) if end <= Instant::now() => return,
                Some(end) => tokio::time::sleep_until(end).await,
                None => tokio::time::sleep(silence).await,
            }
        }
    }
}

/// A chunk on its way, and its turn.
struct Chunk {
    bytes: Vec<u8>,
    _turn: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Sends a stream. A chunk's turn ends when the connection has taken it in for encryption, so that what waits stays bounded.
pub(super) async fn send(
    writer: &Writer,
    stream: &mut Stream<'_>,
    pulse: &Pulse,
) -> Result<(), FeedError> {
    pulse.start();
    let turns = Arc::new(Semaphore::new(CHUNKS));
    let length = stream.upload.length;
    let mut sent = 0;
    (stream.progress)(sent);
    while sent < length {
        let turn = Arc::clone(&turns).acquire_owned().await;
        let turn = turn.map_err(|_| FeedError::Line)?;
        let want = usize::try_from(length - sent).map_or(CHUNK, |left| left.min(CHUNK));
        let mut bytes = vec![0; want];
        let read = stream.upload.reader.read_exact(&mut bytes).await;
        read.map_err(|error| FeedError::Source(shorter(error, length)))?;
        let chunk = Chunk { bytes, _turn: turn };
        writer.data_bytes(Bytes::from_owner(chunk)).await?;
        pulse.beat();
        sent += want as u64;
        (stream.progress)(sent);
    }
    Ok(())
}

fn shorter(error: io::Error, length: u64) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("it is shorter than {length} bytes: it has changed since it was verified"),
        ),
        _ => error,
    }
}
