//! A plan for people: what would change, as diffs, and what follows from it. Readable without colour.

use std::fmt::{self, Display, Formatter};

use similar::TextDiff;

use super::NodePlan;
use crate::report::plural;
use crate::resource::change::{Change, Phase, Verb, View};

/// Colours, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether ANSI colours are written.
    pub colour: bool,
}

impl Style {
    /// `text` in green, red or yellow, by `code`.
    pub(crate) fn paint(self, code: u8, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Bold text.
    pub fn bold(self, text: &str) -> String {
        self.paint(1, text)
    }

    fn verb(self, verb: Verb) -> String {
        match verb {
            Verb::Create => self.paint(32, "+"),
            Verb::Update => self.paint(33, "~"),
            Verb::Remove => self.paint(31, "-"),
            Verb::Finish => self.paint(33, "!"),
        }
    }
}

/// More lines than this of a file that comes or goes are shown on request only.
const LONG: usize = 40;

/// What a trial boot means for the user.
const TRIED_FIRST: &str =
    "tried first: a Pi that does not come up with it goes back to the old line by itself";

/// One node's plan as text.
pub struct Shown<'a> {
    /// The plan.
    pub plan: &'a NodePlan,
    /// What stands behind the node's name, such as its role.
    pub about: String,
    /// Colours or none.
    pub style: Style,
    /// Whether long new files are shown, too.
    pub all: bool,
}

impl Display for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Shown {
            plan, about, style, ..
        } = self;
        writeln!(f, "{} ({about})", style.bold(plan.node.as_str()))?;
        for note in &plan.notes {
            writeln!(f, "  note: {}", printable(note))?;
        }
        if plan.is_empty() {
            return writeln!(f, "  nothing to change");
        }
        for refusal in &plan.refusals {
            writeln!(
                f,
                "  {} {}: {}",
                style.paint(31, "refused"),
                refusal.what,
                refusal.reason
            )?;
            writeln!(f, "    hint: {}", refusal.hint)?;
        }
        let mut layer = None;
        for change in &plan.changes {
            if layer != Some(change.layer) {
                writeln!(f, "  {}", change.layer)?;
                layer = Some(change.layer);
            }
            self.change(f, change)?;
        }
        for effect in &plan.unfinished {
            writeln!(
                f,
                "  {} {effect}, left undone by an interrupted run",
                style.verb(Verb::Finish)
            )?;
        }
        if !plan.leftovers.is_empty() {
            let names: Vec<&str> = plan.leftovers.iter().map(String::as_str).collect();
            writeln!(
                f,
                "  {} selfheal's own state in /var/lib/selfheal: {}",
                style.verb(Verb::Remove),
                names.join(", ")
            )?;
        }
        Ok(())
    }
}

impl Shown<'_> {
    fn change(&self, f: &mut Formatter<'_>, change: &Change) -> fmt::Result {
        write!(f, "    {} {}", self.style.verb(change.verb), change.id)?;
        if let View::Value { before, after } = &change.view {
            write!(f, ": {before} -> {after}")?;
        }
        let mut remarks: Vec<String> = change.effects.iter().map(ToString::to_string).collect();
        if change.phase == Phase::Guarded {
            remarks.push("behind the dead man's switch".to_owned());
        }
        remarks.extend(
            change
                .reboot
                .as_ref()
                .map(|reason| format!("reboot: {reason}")),
        );
        if change.trial.is_some() {
            remarks.push(TRIED_FIRST.to_owned());
        }
        if let View::Hidden(why) = change.view {
            remarks.push(why.to_owned());
        }
        if !remarks.is_empty() {
            write!(f, "  [{}]", remarks.join("; "))?;
        }
        writeln!(f)?;
        if let View::Text { before, after } = &change.view {
            self.diff(f, before.as_deref(), after.as_deref())?;
        }
        Ok(())
    }

    fn diff(
        &self,
        f: &mut Formatter<'_>,
        before: Option<&str>,
        after: Option<&str>,
    ) -> fmt::Result {
        // A long file of selfheal's own that comes or goes says little; one that changes is shown whole.
        let lines = before.xor(after).map_or(0, |text| text.lines().count());
        if lines > LONG && !self.all {
            return writeln!(f, "        ({lines} lines; --verbose shows them)");
        }
        let diff = TextDiff::from_lines(before.unwrap_or_default(), after.unwrap_or_default());
        for hunk in diff.unified_diff().context_radius(2).iter_hunks() {
            for line in hunk.to_string().lines() {
                let line = printable(line);
                let line = match line.as_bytes().first() {
                    Some(b'+') => self.style.paint(32, &line),
                    Some(b'-') => self.style.paint(31, &line),
                    Some(b'@') => self.style.paint(36, &line),
                    _ => line,
                };
                writeln!(f, "        {line}")?;
            }
        }
        Ok(())
    }
}

/// What lies on a node must not be able to steer the user's terminal.
pub(crate) fn printable(line: &str) -> String {
    line.chars()
        .map(|character| {
            if character.is_control() && character != '\t' {
                '\u{fffd}'
            } else {
                character
            }
        })
        .collect()
}

/// The last line of a plan: how much of what, on how many nodes.
pub fn summary<'a>(plans: impl IntoIterator<Item = &'a NodePlan>) -> String {
    let (mut create, mut update, mut remove, mut reboots, mut refused, mut nodes) =
        (0, 0, 0, 0, 0, 0);
    for plan in plans {
        nodes += usize::from(!plan.is_empty());
        reboots += usize::from(plan.reboot().is_some());
        refused += plan.refusals.len();
        for change in &plan.changes {
            match change.verb {
                Verb::Create => create += 1,
                Verb::Update | Verb::Finish => update += 1,
                Verb::Remove => remove += 1,
            }
        }
    }
    if nodes == 0 {
        return "Nothing to change.".to_owned();
    }
    let mut text = format!(
        "Plan: {create} to create, {update} to change, {remove} to remove on {}",
        plural(nodes, "node")
    );
    if reboots > 0 {
        text.push_str(&format!(", {}", plural(reboots, "reboot")));
    }
    if refused > 0 {
        text.push_str(&format!(", {refused} refused"));
    }
    text.push('.');
    text
}
