//! Brings a release's file from the workstation to a node.

use std::time::Duration;

use camino::Utf8Path;

use super::checked;
use super::script::Holder;
use super::script::receive::{self, Incoming};
use crate::artifact::Artifact;
use crate::fleet::{NodeError, nonce};
use crate::ssh::{ExecError, Limits, Session, Upload};

/// The longest time without a byte or a word: a bad SD card writes 70 MB out in less.
const SILENCE: Duration = Duration::from_secs(150);
/// In all, waiting for an earlier run's step included.
const TOTAL: Duration = Duration::from_secs(3600);

/// Sends a file to a node, where it waits as `<destination>.selfheal-new` for the step that renames it into place. If it
/// is there already, or if the destination is that file, nothing is sent. `progress` gets the bytes sent and the bytes in
/// all; see [`crate::report::telling`].
///
/// # Errors
/// A [`NodeError`]: [`NodeError::Full`] before a byte was sent, where there is no room. Whatever it is, the destination
/// is as it was, and nothing half-sent stays (or the next upload takes it away).
pub async fn upload(
    session: &Session,
    artifact: &Artifact,
    destination: &Utf8Path,
    holder: &Holder,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<(), NodeError> {
    let limits = Limits {
        silence: SILENCE,
        total: TOTAL,
    };
    upload_within(session, artifact, destination, holder, limits, progress).await
}

/// As [`upload`], with limits of one's own.
///
/// # Errors
/// As for [`upload`].
pub async fn upload_within(
    session: &Session,
    artifact: &Artifact,
    destination: &Utf8Path,
    holder: &Holder,
    limits: Limits,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<(), NodeError> {
    let nonce = nonce()?;
    let incoming = Incoming {
        destination,
        size: artifact.size,
        sha256: artifact.sha256.as_str(),
        mode: artifact.asset.mode(),
    };
    let mut file = tokio::fs::File::open(&artifact.path)
        .await
        .map_err(|source| ExecError::Source {
            node: session.node().to_owned(),
            source,
        })?;
    let upload = Upload {
        reader: &mut file,
        length: artifact.size,
        go: &receive::go(&nonce),
    };
    let script = receive::receive(&incoming, holder, &nonce);
    let mut sent = |done| progress(done, artifact.size);
    let output = session.upload(&script, upload, limits, &mut sent).await?;
    checked("receiving a file", output)?;
    Ok(())
}
