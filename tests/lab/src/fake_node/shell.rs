//! Running a fake node's commands on this machine.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use russh::ChannelId;
use russh::server::Handle;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::line::Fate;
use super::{Shared, Sudo};

/// Puts the stand-in for sudo where the commands find it.
pub(super) fn install_sudo(folder: &Path) -> io::Result<()> {
    let bin = folder.join("bin");
    std::fs::create_dir(&bin)?;
    let sudo = bin.join("sudo");
    std::fs::write(&sudo, include_str!("sudo.sh"))?;
    std::fs::set_permissions(&sudo, std::fs::Permissions::from_mode(0o755))
}

/// Starts a command on this machine and hands its stdin's sender over. After `cut` bytes of stdout the line is cut.
pub(super) fn spawn(
    shared: &Shared,
    shell: &str,
    command: &str,
    channel: ChannelId,
    handle: Handle,
    cut: Option<(usize, Fate)>,
) -> io::Result<mpsc::UnboundedSender<Vec<u8>>> {
    let folder = shared.folder.path();
    let path = std::env::var("PATH").unwrap_or_default();
    let (mode, says, password) = match &shared.config.sudo {
        Sudo::Passwordless => ("passwordless", "", ""),
        Sudo::Password { password, lecture } => ("password", lecture.as_str(), password.as_str()),
        Sudo::Refuse(says) => ("refuse", says.as_str(), ""),
    };
    let mut child = Command::new(shell)
        .arg("-c")
        .arg(command)
        .current_dir(folder)
        .env("HOME", folder)
        .env("PATH", format!("{}:{path}", folder.join("bin").display()))
        .env("FAKE_SUDO", mode)
        .env("FAKE_SUDO_SAYS", says)
        .env("FAKE_SUDO_PASSWORD", password)
        .env("FAKE_SUDO_LOG", folder.join("sudo.log"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    let (sender, mut chunks) = mpsc::unbounded_channel::<Vec<u8>>();
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::Error::other("a pipe is missing"));
    };
    tokio::spawn(async move {
        while let Some(chunk) = chunks.recv().await {
            if stdin.write_all(&chunk).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        let mut group = Group(child.id());
        let pumps = async {
            tokio::join!(
                pump(stdout, handle.clone(), channel, None, cut),
                pump(stderr, handle.clone(), channel, Some(1), None)
            )
        };
        tokio::pin!(pumps);
        let mut drained = false;
        // A client that hangs up ends its command, so that no test leaves one behind.
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                _ = &mut pumps, if !drained => drained = true,
            }
        };
        // As after a real login, what it left running in the background may go on.
        group.0 = None;
        if !drained {
            pumps.await;
        }
        let code = status
            .ok()
            .and_then(|status| status.code())
            .and_then(|code| u32::try_from(code).ok());
        let _ = match code {
            Some(code) => handle.exit_status_request(channel, code).await,
            None => {
                let signal = russh::Sig::KILL;
                handle
                    .exit_signal_request(channel, signal, false, String::new(), String::new())
                    .await
            }
        };
        let _ = handle.eof(channel).await;
        let _ = handle.close(channel).await;
    });
    Ok(sender)
}

/// A command and all that it started, until it has ended: nothing of it outlives its fake node.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let id = self.0.and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id.and_then(Pid::from_raw) {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    to: Handle,
    channel: ChannelId,
    stream: Option<u32>,
    cut: Option<(usize, Fate)>,
) {
    let mut chunk = vec![0; 32 * 1024];
    let mut sent = 0;
    while let Ok(mut count @ 1..) = from.read(&mut chunk).await {
        if let Some((limit, _)) = &cut {
            count = count.min(limit - sent);
        }
        let bytes = chunk[..count].to_vec();
        let gone = match stream {
            None => to.data(channel, bytes).await.is_err(),
            Some(stream) => to.extended_data(channel, stream, bytes).await.is_err(),
        };
        sent += count;
        if let Some((limit, fate)) = &cut
            && sent >= *limit
        {
            fate.cut();
            return;
        }
        if gone {
            return;
        }
    }
}
