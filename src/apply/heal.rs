//! The reaper on demand: ghost sandboxes go (domain.md §5.3, L3).

use std::time::Duration;

use serde::Serialize;

use super::{checked, exec, script};
use crate::apply::Holder;
use crate::fleet::{NodeError, nonce};
use crate::ssh::Session;

/// What a look may take: each of its three commands is bounded by the reaper.
const LOOK: Duration = Duration::from_secs(180);

/// A sandbox that no pod has any more, in the reaper's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ghost {
    /// Its ID in containerd.
    pub id: String,
    /// Namespace and name of the pod that it was.
    pub pod: String,
    /// `gone`, `replaced`, `reserved` or `container`; see the head of `reap`.
    pub reason: String,
}

/// What the reaper sees on a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sight {
    /// All sandboxes.
    pub sandboxes: usize,
    /// Those that are ready.
    pub ready: usize,
    /// The ghosts.
    pub ghosts: Vec<Ghost>,
    /// IDs that take a name in containerd's memory, but that containerd does not know.
    pub stuck: Vec<String>,
}

impl Sight {
    /// Whether nothing is left to be healed.
    pub fn is_clean(&self) -> bool {
        self.ghosts.is_empty() && self.stuck.is_empty()
    }

    /// Reads the reaper's lines. Each look says what is stuck, then what else it sees: the last one counts.
    fn parse(lines: &[String]) -> Sight {
        let mut sight = Sight::default();
        let mut stuck: Vec<String> = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["stuck", id, ..] => {
                    if !stuck.iter().any(|known| known == id) {
                        stuck.push(id.to_owned());
                    }
                    continue;
                }
                [
                    "before" | "after",
                    "sandboxes",
                    sandboxes,
                    "ready",
                    ready,
                    ..,
                ] => {
                    sight = Sight {
                        sandboxes: sandboxes.parse().unwrap_or_default(),
                        ready: ready.parse().unwrap_or_default(),
                        ghosts: Vec::new(),
                        stuck: std::mem::take(&mut stuck),
                    };
                }
                ["ghost", id, pod, reason] => sight.ghosts.push(Ghost {
                    id: id.to_owned(),
                    pod: pod.to_owned(),
                    reason: reason.to_owned(),
                }),
                _ => {}
            }
            stuck.clear();
        }
        sight
    }
}

/// What the reaper would do. Writes nothing, and takes no lock.
///
/// # Errors
/// A [`NodeError`] when the reaper or k3s is not there, or does not answer.
pub async fn look(session: &Session) -> Result<Sight, NodeError> {
    let nonce = nonce()?;
    let output = exec(session, "looking for ghosts", &script::look(&nonce), LOOK).await?;
    let text = String::from_utf8_lossy(&output);
    sight(text.lines().map(str::to_owned).collect(), &nonce)
}

/// Lets the reaper do its work; each of its lines is handed over as it comes. What it left is the answer.
///
/// # Errors
/// As for [`look`], and when somebody else is at work on the node.
pub async fn heal(
    session: &Session,
    holder: &Holder,
    on_line: &(dyn Fn(&str) + Sync),
) -> Result<Sight, NodeError> {
    let nonce = nonce()?;
    let text = script::heal(holder, &nonce);
    let limit = Duration::from_secs(script::HEAL_SECONDS + 30);
    let mut lines = Vec::new();
    let mut take = |line: &[u8]| {
        let line = String::from_utf8_lossy(line).into_owned();
        if !line.is_empty() && !line.starts_with('@') {
            on_line(&line);
        }
        lines.push(line);
    };
    let output = session.run_streaming(&text, limit, &mut take).await?;
    checked("healing", output)?;
    sight(lines, &nonce)
}

fn sight(lines: Vec<String>, nonce: &str) -> Result<Sight, NodeError> {
    let marker = format!("@{nonce} exit ");
    let code = lines
        .iter()
        .rev()
        .find_map(|line| line.strip_prefix(&marker));
    let cannot = |why: &str, hint| {
        Err(NodeError::CannotHeal {
            why: why.to_owned(),
            hint,
        })
    };
    match code {
        Some("0" | "1") => Ok(Sight::parse(&lines)),
        Some("3") => cannot(
            "containerd does not answer",
            "does k3s run? `sudo systemctl status k3s` (on a worker: k3s-agent) on the node says",
        ),
        Some("4") => Err(NodeError::Held {
            holder: "the reaper of this boot".to_owned(),
        }),
        Some("no-reaper") => cannot(
            "the reaper is not on the node (/usr/local/libexec/selfheal/reap)",
            "`selfheal apply` puts it there",
        ),
        Some("no-k3s") => cannot("k3s is not on the node", "`selfheal apply` installs it"),
        _ => cannot(
            "the reaper did not come to its end",
            "a disk that hangs does this: look at `dmesg` on the node, then run again",
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::sight;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    const TEXT: &str = "before sandboxes 3 ready 1 ghosts 2\nghost aa default/web gone\nghost bb - container\nstuck dd\n\
        removed aa default/web (gone)\nfailed bb -: busy\nstuck cc\nafter sandboxes 2 ready 1 ghosts 1\nghost bb - container\n";

    #[test]
    fn what_is_left_is_what_the_reaper_saw_last() {
        let left = sight(lines(&format!("{TEXT}@n exit 1")), "n").unwrap();
        assert_eq!((left.sandboxes, left.ready, left.is_clean()), (2, 1, false));
        assert_eq!(left.ghosts.len(), 1);
        assert_eq!(
            (left.ghosts[0].id.as_str(), left.ghosts[0].reason.as_str()),
            ("bb", "container")
        );
        assert_eq!(left.stuck, ["cc"]);
        let clean = sight(
            lines("stuck cc\nrestarted k3s.service\nafter sandboxes 1 ready 1 ghosts 0\n@n exit 0"),
            "n",
        )
        .unwrap();
        assert!(clean.is_clean());
    }

    #[test]
    fn what_is_missing_is_said() {
        for (code, words) in [
            ("3", "containerd does not answer"),
            ("4", "another run"),
            ("no-reaper", "reaper is not on the node"),
            ("no-k3s", "k3s is not on the node"),
            ("137", "did not come to its end"),
        ] {
            let error = sight(lines(&format!("x\n@n exit {code}")), "n").unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.hint().is_some());
        }
        sight(lines(TEXT), "n").unwrap_err();
    }
}
