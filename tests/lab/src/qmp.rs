//! QMP, the protocol in which qemu takes commands and tells what happens.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// The longest a command may take to be answered.
const REPLY: Duration = Duration::from_secs(60);

/// The side that sends commands; shared between threads.
#[derive(Debug, Clone)]
pub(crate) struct Commands(Arc<Mutex<Line>>);

#[derive(Debug)]
struct Line {
    stream: UnixStream,
    replies: Receiver<Value>,
}

/// The side that hears events; it also passes the replies on, so it has to be listened to.
#[derive(Debug)]
pub(crate) struct Events {
    lines: BufReader<UnixStream>,
    replies: Sender<Value>,
}

/// Takes up a connection that qemu has made.
pub(crate) fn open(stream: UnixStream) -> Result<(Commands, Events)> {
    let (sender, receiver) = channel();
    let events = Events {
        lines: BufReader::new(stream.try_clone()?),
        replies: sender,
    };
    Ok((
        Commands(Arc::new(Mutex::new(Line {
            stream,
            replies: receiver,
        }))),
        events,
    ))
}

impl Commands {
    pub(crate) fn execute(&self, command: &str, arguments: &Value) -> Result<Value> {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let message = json!({ "execute": command, "arguments": arguments });
        let gone = || format!("qemu is gone; it was asked to {command}");
        line.stream
            .write_all(format!("{message}\n").as_bytes())
            .with_context(gone)?;
        let reply = line.replies.recv_timeout(REPLY).with_context(gone)?;
        if let Some(error) = reply.get("error") {
            bail!("qemu refused to {command}: {error}");
        }
        Ok(reply.get("return").cloned().unwrap_or_default())
    }

    pub(crate) fn simple(&self, command: &str) -> Result<Value> {
        self.execute(command, &json!({}))
    }
}

impl Events {
    /// The next event (name and data), or nothing when qemu has gone.
    pub(crate) fn next(&mut self) -> Option<(String, Value)> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.lines.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let Ok(message) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            if let Some(event) = message.get("event").and_then(Value::as_str) {
                return Some((
                    event.to_owned(),
                    message.get("data").cloned().unwrap_or_default(),
                ));
            }
            if message.get("QMP").is_none() {
                // Nobody waiting for it any more is no reason to stop listening.
                let _ = self.replies.send(message);
            }
        }
    }
}
