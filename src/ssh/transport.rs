//! The byte stream under an SSH session: TCP or a ProxyCommand's stdio.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::{JoinHandle, JoinSet};

use super::Hop;

/// A second address gets its chance when the first has not answered by then (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to whichever of the host's addresses answers first. Data that the other side has not acknowledged after
/// `unanswered` ends the connection: a full send buffer must not keep a dead line from being noticed.
pub(super) async fn tcp(host: &str, port: u16, unanswered: Duration) -> io::Result<TcpStream> {
    let mut addresses = tokio::net::lookup_host((host, port)).await?;
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        let more = match addresses.next() {
            Some(address) => {
                attempts.spawn(TcpStream::connect(address));
                true
            }
            None => false,
        };
        // Dropping the set ends the slower attempts.
        tokio::select! {
            finished = attempts.join_next() => match finished {
                Some(Ok(Ok(stream))) => {
                    stream.set_nodelay(true)?;
                    #[cfg(target_os = "linux")]
                    rustix::net::sockopt::set_tcp_user_timeout(
                        &stream,
                        u32::try_from(unanswered.as_millis()).unwrap_or(u32::MAX),
                    )?;
                    return Ok(stream);
                }
                Some(Ok(Err(error))) => failure = error,
                Some(Err(_)) => {}
                None => return Err(failure),
            },
            () = tokio::time::sleep(HEAD_START), if more => {}
        }
    }
}

/// A running ProxyCommand. Dropping it ends the command and all it started.
#[derive(Debug)]
pub(super) struct ProxyCommand {
    child: Child,
    /// The command as it ran.
    pub(super) line: String,
    stderr: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl ProxyCommand {
    /// Starts a command whose stdio reaches the hop.
    pub(super) fn start(template: &str, hop: &Hop) -> io::Result<(Self, Pipes)> {
        let line = expand(template, hop)?;
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(&line)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own can be ended as a whole, and a Ctrl-C meant for us does not cut the line.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let (Some(stdin), Some(stdout), Some(mut pipe)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("a pipe is missing"));
        };
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&stderr);
        let reader = tokio::spawn(async move {
            const KEPT: usize = 64 * 1024;
            let mut chunk = [0; 1024];
            while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
                let mut kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let room = KEPT.saturating_sub(kept.len()).min(count);
                kept.extend_from_slice(&chunk[..room]);
            }
        });
        Ok((
            Self {
                child,
                line,
                stderr,
                reader,
            },
            Pipes { stdin, stdout },
        ))
    }

    /// What a failed command wrote to stderr.
    pub(super) async fn last_words(&mut self) -> String {
        // It may hang on; then we have what came so far.
        let _ = tokio::time::timeout(HEAD_START, &mut self.reader).await;
        let kept = self
            .stderr
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        String::from_utf8_lossy(&kept).into_owned()
    }
}

impl Drop for ProxyCommand {
    fn drop(&mut self) {
        // Once reaped there is no id any more, so that no stranger's group is hit.
        if let Some(group) = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::TERM);
        }
    }
}

/// A command's stdout to read from and stdin to write to.
#[derive(Debug)]
pub(super) struct Pipes {
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl AsyncRead for Pipes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}

/// Fills in `%h %p %r %n %%`. Host and user come from outside and go to a shell: what a shell could take for more than
/// a word is refused.
fn expand(template: &str, hop: &Hop) -> io::Result<String> {
    for word in [&hop.host, &hop.user] {
        if word.starts_with('-')
            || word.contains(|c: char| {
                c.is_whitespace() || c.is_control() || "'\"`$\\;&<>|(){}*?[]!#~".contains(c)
            })
        {
            return Err(io::Error::other(format!(
                "{word:?} may not go into a shell command"
            )));
        }
    }
    let mut line = String::with_capacity(template.len());
    let mut chars = template.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            line.push(c);
            continue;
        }
        match chars.next() {
            Some('h' | 'n') => line.push_str(&hop.host),
            Some('p') => line.push_str(&hop.port.to_string()),
            Some('r') => line.push_str(&hop.user),
            Some('%') => line.push('%'),
            other => {
                let token = other.map(String::from).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "the ProxyCommand has an unknown token %{token}"
                )));
            }
        }
    }
    Ok(line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_filled_in() {
        let mut hop = Hop::new("fe80::1", "pi");
        hop.port = 2222;
        assert_eq!(
            expand("nc %h %p # %r%% %n", &hop).unwrap(),
            "nc fe80::1 2222 # pi% fe80::1"
        );
        assert!(expand("nc %q", &hop).is_err());
        assert!(expand("nc %", &hop).is_err());
        hop.host = "a;reboot".to_owned();
        assert!(expand("nc %h", &hop).is_err());
        hop.host = "-oProxyCommand=x".to_owned();
        assert!(expand("nc %h", &hop).is_err());
    }
}
