//! Doctor's findings as JSON, for programs: versioned, documented in the README.

use serde_json::{Value, json};

use super::{Diagnosis, Finding};

/// The version of the format. It changes when a field changes its meaning or goes; new fields and new checks may come
/// at any time.
pub const VERSION: u32 = 1;

/// One node's findings, worst first.
pub fn node(diagnosis: &Diagnosis) -> Value {
    json!({
        "node": diagnosis.node.as_str(),
        "verdict": diagnosis.verdict(),
        "findings": diagnosis.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn finding(finding: &Finding) -> Value {
    let spec = finding.check.spec();
    let outcome = &finding.outcome;
    json!({
        "id": spec.id,
        "number": spec.number,
        "title": spec.title,
        "verdict": outcome.verdict,
        "evidence": outcome.evidence,
        "threshold": spec.threshold,
        "hint": outcome.hint,
    })
}
