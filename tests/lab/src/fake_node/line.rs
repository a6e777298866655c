//! A TCP stream that can be cut or go dead at will.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What has become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Health {
    #[default]
    Alive,
    /// Closed, as when the other machine's kernel says so.
    Cut,
    /// Open, but nothing arrives any more, either way: the plug was pulled.
    Dead,
}

#[derive(Debug, Default)]
struct State {
    health: Health,
    reader: Option<Waker>,
}

/// Holds a connection's fate.
#[derive(Debug, Clone, Default)]
pub(super) struct Fate(Arc<Mutex<State>>);

impl Fate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn strike(&self, health: Health) {
        let mut state = self.lock();
        state.health = health;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    pub(super) fn cut(&self) {
        self.strike(Health::Cut);
    }

    pub(super) fn go_dead(&self) {
        self.strike(Health::Dead);
    }
}

#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: TcpStream,
    pub(super) fate: Fate,
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        {
            let mut state = self.fate.lock();
            state.reader = Some(cx.waker().clone());
            match state.health {
                Health::Alive => {}
                Health::Cut => return Poll::Ready(Ok(())),
                Health::Dead => return Poll::Pending,
            }
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let health = self.fate.lock().health;
        match health {
            Health::Alive => Pin::new(&mut self.stream).poll_write(cx, buf),
            Health::Cut => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Health::Dead => Poll::Ready(Ok(buf.len())),
        }
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
