//! One run at a time: this run's claim on its nodes.
//!
//! The lease itself lies on each node, in /run, and ends by itself. Here is what the workstation adds: a run holds a
//! lock on a file of its own as long as it lives, so that the next run on this computer knows a dead one and need not
//! wait for its lease to end.

use std::fs::{self, File, TryLockError};
use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use super::script::Holder;
use crate::node::snapshot::Snapshot;

/// A run's claim, alive as long as this value.
#[derive(Debug)]
pub struct Claim {
    token: String,
    who: String,
    runs: Utf8PathBuf,
    lock: File,
}

impl Claim {
    /// A new claim. `runs` is a folder of this user's on the workstation; `who` is shown to whoever is kept waiting.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn new(runs: &Utf8Path, token: String, who: String) -> io::Result<Claim> {
        fs::create_dir_all(runs)?;
        let lock = File::create(runs.join(&token))?;
        lock.lock()?;
        Ok(Claim {
            token,
            who,
            runs: runs.to_owned(),
            lock,
        })
    }

    /// The claim on a node that was seen as `snapshot`.
    pub fn on(&self, snapshot: &Snapshot) -> Holder {
        let dead = snapshot
            .lease
            .as_ref()
            .map(|lease| lease.token.clone())
            .filter(|token| self.is_dead(token));
        Holder {
            token: self.token.clone(),
            who: self.who.clone(),
            dead,
        }
    }

    /// Whether a step of a dead run of this computer may still be at work on the node: a step outlives its run.
    pub fn left_a_step(&self, snapshot: &Snapshot) -> bool {
        let uptime = snapshot.facts.uptime.as_secs();
        let lease = snapshot.lease.as_ref();
        lease.is_some_and(|lease| lease.expires > uptime && self.is_dead(&lease.token))
    }

    /// Whether `token` names a run of this computer that ended without giving its lease back.
    fn is_dead(&self, token: &str) -> bool {
        if token == self.token || !token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        let path = self.runs.join(token);
        File::open(&path).is_ok_and(|file| match file.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => false,
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.runs.join(&self.token));
        let _ = self.lock.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::snapshot::Lease;

    fn leased_to(token: &str) -> Snapshot {
        let lease = Lease {
            token: token.into(),
            expires: 100,
            holder: "somebody".into(),
        };
        let mut snapshot = Snapshot::default();
        snapshot.lease = Some(lease);
        snapshot
    }

    #[test]
    fn only_a_dead_run_of_this_computer_is_dead() {
        let folder = tempfile::tempdir().unwrap();
        let runs = Utf8Path::from_path(folder.path()).unwrap();
        let claim = |token: &str| Claim::new(runs, token.into(), "me".into()).unwrap();
        let (mine, alive) = (claim("aa"), claim("bb"));
        File::create(runs.join("cc")).unwrap();
        assert_eq!(mine.on(&leased_to("bb")).dead, None, "alive");
        assert_eq!(
            mine.on(&leased_to("cc")).dead,
            Some("cc".into()),
            "died without cleaning up"
        );
        assert_eq!(mine.on(&leased_to("dd")).dead, None, "of another computer");
        let (mut over, under_way) = (leased_to("cc"), leased_to("cc"));
        over.facts.uptime = std::time::Duration::from_secs(100);
        assert!(mine.left_a_step(&under_way) && !mine.left_a_step(&over));
        assert!(!mine.left_a_step(&leased_to("bb")));
        drop(alive);
        assert_eq!(
            mine.on(&leased_to("bb")).dead,
            None,
            "ended well, so it gave its lease back"
        );
    }
}
