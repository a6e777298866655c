//! What a check comes to.

use serde::Serialize;

use super::Check;

/// How well a thing stands. The order is worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The node does not heal itself, or may not come back.
    Fail,
    /// It works, and something should be done about it.
    Warn,
    /// It could not be found out: no answer in time, or none that can be read.
    Unknown,
    /// As it should be.
    Ok,
    /// Does not apply to this node, or to this version of selfheal.
    Skipped,
}

impl Verdict {
    /// The word in the table and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Fail => "fail",
            Verdict::Warn => "warn",
            Verdict::Unknown => "unknown",
            Verdict::Ok => "ok",
            Verdict::Skipped => "skipped",
        }
    }

    /// Whether somebody has to look at it.
    pub fn is_trouble(self) -> bool {
        match self {
            Verdict::Fail | Verdict::Warn | Verdict::Unknown => true,
            Verdict::Ok | Verdict::Skipped => false,
        }
    }
}

/// What a check says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it stands.
    pub verdict: Verdict,
    /// What that rests on: a value or a line of the node.
    pub evidence: String,
    /// What to do; `None` where there is nothing to do.
    pub hint: Option<String>,
    /// Whether the evidence is worth a line of its own although all is well.
    pub news: bool,
}

impl Outcome {
    /// As it should be.
    pub fn ok(evidence: impl Into<String>) -> Outcome {
        Outcome::new(Verdict::Ok, evidence.into(), None)
    }

    /// Should be seen to.
    pub fn warn(evidence: impl Into<String>, hint: impl Into<String>) -> Outcome {
        Outcome::new(Verdict::Warn, evidence.into(), Some(hint.into()))
    }

    /// Has to be seen to.
    pub fn fail(evidence: impl Into<String>, hint: impl Into<String>) -> Outcome {
        Outcome::new(Verdict::Fail, evidence.into(), Some(hint.into()))
    }

    /// Could not be found out.
    pub fn unknown(evidence: impl Into<String>, hint: impl Into<String>) -> Outcome {
        Outcome::new(Verdict::Unknown, evidence.into(), Some(hint.into()))
    }

    /// Does not apply.
    pub fn skipped(why: impl Into<String>) -> Outcome {
        Outcome::new(Verdict::Skipped, why.into(), None)
    }

    /// What the inventory asks for is a warning at most.
    pub fn asked_for(self, wanted: bool) -> Outcome {
        match self.verdict {
            Verdict::Fail if wanted => Outcome {
                verdict: Verdict::Warn,
                evidence: format!("{}, as the inventory has it", self.evidence),
                ..self
            },
            _ => self,
        }
    }

    /// The same, shown although all is well.
    pub fn as_news(self) -> Outcome {
        Outcome { news: true, ..self }
    }

    fn new(verdict: Verdict, evidence: String, hint: Option<String>) -> Outcome {
        Outcome {
            verdict,
            evidence,
            hint,
            news: false,
        }
    }
}

/// The verdict of a value that should be small: up to `warn` all is well, above `fail` it has to be seen to.
pub fn graded(value: f64, warn: f64, fail: f64) -> Verdict {
    if value > fail {
        Verdict::Fail
    } else if value >= warn {
        Verdict::Warn
    } else {
        Verdict::Ok
    }
}

/// A check and what it came to on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// What it says.
    pub outcome: Outcome,
}
