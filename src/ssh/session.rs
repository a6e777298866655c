//! A logged-in connection to a node.

use std::fmt;
use std::time::Duration;

use tokio::sync::oneshot;

use super::connect::Link;
use super::exec::{self, Limits, Output, Request, Stream, Upload};
use super::login::Method;
use super::transport::ProxyCommand;
use super::{ExecError, HostKey, Sudo, Target};

/// A logged-in connection to a node. Dropping it hangs up, also on jump hosts, and ends a ProxyCommand.
pub struct Session {
    node: String,
    sudo: Sudo,
    method: Method,
    /// To the node, and before that to the jump hosts, each running through the one before.
    link: Link,
    jumps: Vec<Link>,
    proxy: Option<ProxyCommand>,
}

/// A good-bye that is not heard by then is not waited for.
const GOODBYE: Duration = Duration::from_secs(1);

impl Session {
    pub(super) fn new(
        target: &Target,
        method: Method,
        link: Link,
        jumps: Vec<Link>,
        proxy: Option<ProxyCommand>,
    ) -> Self {
        Self {
            node: target.node.clone(),
            sudo: target.sudo.clone(),
            method,
            link,
            jumps,
            proxy,
        }
    }

    /// Runs a POSIX sh script as root and waits for it. Its stdout is what the script wrote: chatter of the login shell
    /// before it is cut off. The locale is C. Its stdin is the script itself and belongs to the shell: a command that
    /// reads stdin needs `</dev/null` or a here-document.
    ///
    /// # Errors
    /// See [`ExecError`]. A script that fails is no error but an [`Output`].
    pub async fn run(&self, script: &str, limit: Duration) -> Result<Output, ExecError> {
        self.exec(
            Request {
                sudo: Some(&self.sudo),
                script,
                limit,
                stream: None,
            },
            &mut |_| {},
        )
        .await
    }

    /// As [`Session::run`], and hands over each line of stdout (without its end) as soon as it is whole.
    ///
    /// # Errors
    /// As for [`Session::run`].
    pub async fn run_streaming(
        &self,
        script: &str,
        limit: Duration,
        on_line: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Output, ExecError> {
        self.exec(
            Request {
                sudo: Some(&self.sudo),
                script,
                limit,
                stream: None,
            },
            on_line,
        )
        .await
    }

    /// As [`Session::run`], but as the login user.
    ///
    /// # Errors
    /// As for [`Session::run`].
    pub async fn run_as_user(&self, script: &str, limit: Duration) -> Result<Output, ExecError> {
        self.exec(
            Request {
                sudo: None,
                script,
                limit,
                stream: None,
            },
            &mut |_| {},
        )
        .await
    }

    /// Runs a POSIX sh script as root and, once it asks for it, sends a stream of bytes to its stdin, which belongs to
    /// the script's commands here. The script asks by writing the line [`Upload::go`] to stdout; one that ends without
    /// it gets nothing. After the bytes comes the end of input; a script has to count what it gets, as a cut connection
    /// ends the input, too. Never more than a few chunks are in memory. `progress` is told how many bytes have gone.
    ///
    /// # Errors
    /// As for [`Session::run`]; and [`ExecError::Stalled`] when nothing moves for too long, [`ExecError::Source`] when
    /// the bytes cannot be read here (or are fewer than said).
    pub async fn upload<'a>(
        &'a self,
        script: &'a str,
        upload: Upload<'a>,
        limits: Limits,
        progress: &'a mut (dyn FnMut(u64) + Send),
    ) -> Result<Output, ExecError> {
        let (asked, go) = oneshot::channel();
        let (mut asked, word) = (Some(asked), upload.go.as_bytes());
        let mut on_line = |line: &[u8]| {
            if line == word
                && let Some(asked) = asked.take()
            {
                let _ = asked.send(());
            }
        };
        let stream = Some(Stream {
            upload,
            go,
            silence: limits.silence,
            progress,
        });
        let request = Request {
            sudo: Some(&self.sudo),
            script,
            limit: limits.total,
            stream,
        };
        self.exec(request, &mut on_line).await
    }

    async fn exec(
        &self,
        request: Request<'_>,
        on_line: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Output, ExecError> {
        exec::exec(&self.link, &self.node, request, on_line).await
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// How the node let us in.
    #[must_use]
    pub fn authenticated_with(&self) -> Method {
        self.method
    }

    /// The host key that the node showed and that was accepted.
    #[must_use]
    pub fn host_key(&self) -> Option<HostKey> {
        self.link.notes.lock().key.clone()
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.link.handle.is_closed()
    }

    /// Hangs up in good order.
    pub async fn close(self) {
        let Self {
            link, jumps, proxy, ..
        } = self;
        for link in std::iter::once(link).chain(jumps.into_iter().rev()) {
            let Link { handle, .. } = link;
            let _ = tokio::time::timeout(GOODBYE, async {
                let _ = handle
                    .disconnect(russh::Disconnect::ByApplication, "", "")
                    .await;
                handle.await
            })
            .await;
        }
        drop(proxy);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("node", &self.node)
            .field("method", &self.method)
            .field("jumps", &self.jumps.len())
            .field("proxy", &self.proxy.as_ref().map(|proxy| &proxy.line))
            .finish_non_exhaustive()
    }
}
