//! A logged-in connection to a node.

use std::fmt;
use std::time::Duration;

use super::connect::Link;
use super::exec::{self, Output, Request};
use super::login::Method;
use super::transport::ProxyCommand;
use super::{ExecError, Sudo, Target};

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
            },
            &mut |_| {},
        )
        .await
    }

    async fn exec(
        &self,
        request: Request<'_>,
        on_line: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<Output, ExecError> {
        exec::exec(&self.link, &self.node, request, on_line).await
    }

    /// How the node let us in.
    #[must_use]
    pub fn authenticated_with(&self) -> Method {
        self.method
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
