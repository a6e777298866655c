//! The lab's private way into a guest: scripts run as root over a virtio port, whatever became of its network or sshd.
//! The other end is `guest/root/usr/local/lib/lab/root-channel`.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

#[derive(Debug)]
pub(crate) struct RootChannel {
    stream: BufReader<UnixStream>,
    sent: u64,
}

impl RootChannel {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::new(stream),
            sent: 0,
        }
    }

    /// Sends a script and does not wait for it.
    pub(crate) fn send(&mut self, script: &str) -> Result<()> {
        self.sent += 1;
        let message = format!("{} {}\n{script}", self.sent, script.len());
        self.stream
            .get_mut()
            .write_all(message.as_bytes())
            .context("the guest's root channel is closed")
    }

    /// Runs a script, by a guest that may still be booting; returns what it wrote to stdout and stderr.
    pub(crate) fn run(&mut self, script: &str, limit: Duration) -> Result<String> {
        self.send(script)?;
        self.stream.get_ref().set_read_timeout(Some(limit))?;
        let broken = |error: std::io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                anyhow!(
                    "a script in the guest did not end within {} s",
                    limit.as_secs()
                )
            }
            _ => anyhow!(error).context("the guest's root channel broke"),
        };
        loop {
            let mut header = String::new();
            ensure!(
                self.stream.read_line(&mut header).map_err(broken)? > 0,
                "the guest's root channel closed"
            );
            let mut words = header.split_whitespace().map(str::parse::<u64>);
            let (Some(Ok(number)), Some(Ok(status)), Some(Ok(size))) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let mut output = vec![0; usize::try_from(size)?];
            self.stream.read_exact(&mut output).map_err(broken)?;
            let output = String::from_utf8_lossy(&output).into_owned();
            if number == self.sent {
                ensure!(
                    status == 0,
                    "a script in the guest ended with {status}:\n{output}"
                );
                return Ok(output);
            }
        }
    }
}
