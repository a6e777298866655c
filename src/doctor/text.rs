//! Doctor's findings for people: a table a node, worst first. Readable without colour.

use std::fmt::{self, Display, Formatter};

use super::{Diagnosis, Finding, Verdict};
use crate::plan::text::{Style, printable};
use crate::report::plural;

/// Columns of the verdict, and of the check's id.
const VERDICT: usize = 8;
const ID: usize = 15;

/// One node's findings as text.
pub struct Shown<'a> {
    /// The findings.
    pub diagnosis: &'a Diagnosis,
    /// What stands behind the node's name, such as its role.
    pub about: String,
    /// Colours or none.
    pub style: Style,
    /// Whether each check has lines of its own, with its threshold, also where all is well.
    pub all: bool,
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Shown {
            diagnosis, about, ..
        } = self;
        let name = self.style.bold(diagnosis.node.as_str());
        writeln!(f, "{name} ({about}): {}", counted(&[diagnosis]))?;
        for verdict in [
            Verdict::Fail,
            Verdict::Warn,
            Verdict::Unknown,
            Verdict::Ok,
            Verdict::Skipped,
        ] {
            let findings = diagnosis
                .findings
                .iter()
                .filter(|finding| finding.outcome.verdict == verdict);
            let (shown, summed_up): (Vec<&Finding>, Vec<&Finding>) = findings
                .partition(|finding| self.all || verdict.is_trouble() || finding.outcome.news);
            for finding in shown {
                self.finding(f, finding)?;
            }
            self.sum_up(f, verdict, &summed_up)?;
        }
        Ok(())
    }
}

impl Shown<'_> {
    fn finding(&self, f: &mut Formatter<'_>, finding: &Finding) -> fmt::Result {
        let spec = finding.check.spec();
        let outcome = &finding.outcome;
        writeln!(
            f,
            "  {}{:<ID$} {}",
            self.verdict(outcome.verdict),
            spec.id,
            printable(&outcome.evidence)
        )?;
        if self.all {
            self.remark(f, "check", &format!("{} (no. {})", spec.title, spec.number))?;
        }
        if self.all || outcome.verdict.is_trouble() {
            self.remark(f, "rule", spec.threshold)?;
        }
        match &outcome.hint {
            Some(hint) => self.remark(f, "hint", hint),
            None => Ok(()),
        }
    }

    fn remark(&self, f: &mut Formatter<'_>, what: &str, text: &str) -> fmt::Result {
        writeln!(f, "  {:VERDICT$}{:<ID$} {what}: {text}", "", "")
    }

    fn sum_up(
        &self,
        f: &mut Formatter<'_>,
        verdict: Verdict,
        findings: &[&Finding],
    ) -> fmt::Result {
        if findings.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = findings.iter().map(|finding| finding.check.id()).collect();
        let count = plural(findings.len(), "check");
        writeln!(f, "  {}{count}: {}", self.verdict(verdict), ids.join(", "))
    }

    fn verdict(&self, verdict: Verdict) -> String {
        let word = format!("{:<VERDICT$}", verdict.as_str());
        match verdict {
            Verdict::Fail => self.style.paint(31, &word),
            Verdict::Warn | Verdict::Unknown => self.style.paint(33, &word),
            Verdict::Ok => self.style.paint(32, &word),
            Verdict::Skipped => word,
        }
    }
}

/// The last line: how many nodes, and what is wrong with them.
pub fn summary(diagnoses: &[Diagnosis]) -> String {
    let all: Vec<&Diagnosis> = diagnoses.iter().collect();
    let nodes = plural(diagnoses.len(), "node");
    format!("Examined {nodes}: {}.", counted(&all))
}

fn counted(diagnoses: &[&Diagnosis]) -> String {
    let count = |verdict| -> usize { diagnoses.iter().map(|one| one.count(verdict)).sum() };
    let counts = [
        (count(Verdict::Fail), "failure"),
        (count(Verdict::Warn), "warning"),
    ];
    let mut words: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| plural(count, word))
        .collect();
    match count(Verdict::Unknown) {
        0 => {}
        count => words.push(format!("{count} unknown")),
    }
    if words.is_empty() {
        "healthy".to_owned()
    } else {
        words.join(", ")
    }
}
