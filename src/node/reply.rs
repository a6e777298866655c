//! Takes a node's reply apart into frames.

use thiserror::Error;

/// One frame: a name, its argument (may be empty), and the bytes that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The frame's kind, such as `file`.
    pub name: &'a str,
    /// The rest of the frame's first line.
    pub argument: &'a str,
    /// Content, without the newline that starts the next frame.
    pub content: &'a [u8],
}

/// Why a reply cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReplyError {
    /// The shell never started the script.
    #[error("the node's reply has no beginning: the shell did not run the script")]
    NoBeginning,
    /// The reply stops before its end: the connection or the node died.
    #[error("the node's reply stops before its end")]
    Truncated,
    /// PID 1 answered none of many tries; its units are then unknown, not absent.
    #[error("systemd on the node does not answer: `systemctl show` fails again and again")]
    SilentSystemd,
}

/// Splits `reply` into its frames; whatever a chatty shell printed before the first one is passed over.
///
/// # Errors
/// [`ReplyError`] when the first or the last frame is missing.
pub fn frames<'a>(reply: &'a [u8], nonce: &str) -> Result<Vec<Frame<'a>>, ReplyError> {
    let marker = format!("\n@{nonce} ");
    let starts: Vec<usize> = positions(reply, marker.as_bytes()).collect();
    let mut frames = Vec::with_capacity(starts.len());
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(reply.len());
        let text = &reply[start + marker.len()..end];
        let (header, content) = match text.iter().position(|&byte| byte == b'\n') {
            Some(line_end) => (&text[..line_end], &text[line_end + 1..]),
            None => (text, &[][..]),
        };
        let header = std::str::from_utf8(header).unwrap_or_default();
        let (name, argument) = header.split_once(' ').unwrap_or((header, ""));
        frames.push(Frame {
            name,
            argument,
            content,
        });
    }
    match (
        frames.first().map(|frame| frame.name),
        frames.last().map(|frame| frame.name),
    ) {
        (Some("begin"), Some("end")) => Ok(frames),
        (Some("begin"), _) => Err(ReplyError::Truncated),
        _ => Err(ReplyError::NoBeginning),
    }
}

fn positions<'a>(text: &'a [u8], marker: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let mut from = 0;
    std::iter::from_fn(move || {
        let found = text
            .get(from..)?
            .windows(marker.len())
            .position(|window| window == marker)?
            + from;
        from = found + marker.len();
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn noise_before_the_beginning_is_passed_over() {
        let reply = b"Welcome to jarvis!\n\n@n begin\n\n@n file /etc/hosts\nline\n\n@n end\n";
        let frames = frames(reply, "n").unwrap();
        assert_eq!(
            frames[1],
            Frame {
                name: "file",
                argument: "/etc/hosts",
                content: b"line\n"
            }
        );
    }

    #[test]
    fn a_cut_reply_is_no_reply() {
        let reply = b"\n@n begin\n\n@n file /etc/hosts\nline\n\n@n end\n";
        for length in 0..reply.len() - 5 {
            assert!(frames(&reply[..length], "n").is_err(), "{length} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_without_a_panic(reply: Vec<u8>) {
            let _ = frames(&reply, "n");
        }
    }
}
