//! The checks of a node: what was measured goes in, findings with evidence and a hint come out (domain.md §10).
//!
//! [`measure`] is the script and its reply, [`visit`](visit()) takes it to the nodes, [`check`] is the table of checks, and
//! each family of checks has a file of its own with pure functions. Nothing here writes to a node or takes a lock.

mod board;
mod boot;
mod boots;
pub mod check;
mod clock;
mod cluster;
mod disk;
mod drift;
pub mod finding;
mod ghosts;
mod journal;
pub mod json;
mod k3s;
mod kernel;
mod longhorn;
pub mod measure;
mod memory;
mod network;
mod patient;
mod shares;
mod sshd;
pub mod text;
mod visit;
mod watchdog;

pub use check::Check;
pub use finding::{Finding, Outcome, Verdict};
pub use patient::Patient;
pub use visit::visit;

use measure::Measured;

use crate::inventory::{Node, NodeName, Versions};

/// What all checks say of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The node.
    pub node: NodeName,
    /// Worst first, then by number.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// How many findings have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding.outcome.verdict == verdict)
            .count()
    }

    /// The worst of all verdicts.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.findings.iter().map(|finding| finding.outcome.verdict);
        verdicts.min().unwrap_or(Verdict::Unknown)
    }
}

/// Judges the nodes that were measured, which are to run these versions.
pub fn examine(versions: &Versions, measured: &[(&Node, &Measured)]) -> Vec<Diagnosis> {
    let diagnosis = |(node, measures): &(&Node, &Measured)| {
        let patient = Patient {
            node,
            versions,
            measured: measures,
            all: measured,
        };
        let mut findings: Vec<Finding> = Check::ALL
            .into_iter()
            .map(|check| Finding {
                check,
                outcome: judge(check, &patient),
            })
            .collect();
        findings.sort_by_key(|finding| (finding.outcome.verdict, finding.check));
        Diagnosis {
            node: node.name.clone(),
            findings,
        }
    };
    measured.iter().map(diagnosis).collect()
}

/// What one check says of one node; unknown where a measurement that it rests on did not come in time.
pub fn judge(check: Check, patient: &Patient<'_>) -> Outcome {
    let spec = check.spec();
    let late = spec
        .rests_on
        .iter()
        .find(|measure| !patient.measured.has(**measure));
    match late {
        Some(measure) => Outcome::unknown(
            format!("no answer in time ({})", measure.as_str()),
            "a disk or a service that hangs does this: run again, then look at `dmesg` on the node",
        ),
        None => (spec.judge)(patient),
    }
}
