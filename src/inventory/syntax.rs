//! What the TOML parser complains about, without what only follows from it.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::Error;

use super::diagnostic::Diagnostic;
use super::lines::Lines;

/// The syntax errors worth showing, in the order of the source: one a line, and nothing after a list that is not closed,
/// which takes the rest of the document for its items.
#[derive(Debug)]
pub(crate) struct Syntax {
    pub(crate) errors: Vec<Diagnostic>,
    lines: BTreeSet<usize>,
    /// Parts below the broken header of a table: what stands there is taken for another table's.
    astray: Vec<Range<usize>>,
    /// Where the document stops making sense.
    end: usize,
}

impl Syntax {
    pub(crate) fn new(source: &str, lines: &Lines, errors: &[Error]) -> Self {
        let mut found: Vec<Diagnostic> = errors
            .iter()
            .map(|error| diagnostic(source, error))
            .collect();
        found.sort_by_key(|found| found.span.start);
        let mut end = source.len();
        if let Some(list) = unclosed_list(source, lines, &found) {
            end = list.span.start;
            found.retain(|found| found.span.start < lines.start(end));
            found.push(list);
        }
        let headers: Vec<(bool, Range<usize>)> = found
            .iter()
            .filter_map(|found| Some((twice(found), below_header(source, lines, found)?)))
            .collect();
        found.retain(|found| {
            let at = found.span.start;
            !(twice(found) && headers.iter().any(|(_, part)| part.contains(&at)))
        });
        let astray = headers.into_iter().filter(|(twice, _)| !twice);
        let astray = astray.map(|(_, part)| part).collect();
        found.dedup_by_key(|found| lines.line(found.span.start));
        let lines = found
            .iter()
            .map(|found| lines.line(found.span.start))
            .collect();
        Self {
            errors: found,
            lines,
            astray,
            end,
        }
    }

    /// Whether this, found in what the parser made of the document, is only a consequence of a syntax error.
    pub(crate) fn hides(&self, lines: &Lines, found: &Diagnostic) -> bool {
        let at = found.span.start;
        at > self.end
            || self.lines.contains(&lines.line(at))
            || self.astray.iter().any(|part| part.contains(&at))
    }
}

fn twice(found: &Diagnostic) -> bool {
    found.message == "duplicate key"
}

/// What stands between a table's header that is wrong and the next header.
fn below_header(source: &str, lines: &Lines, found: &Diagnostic) -> Option<Range<usize>> {
    let header = lines.start(found.span.start);
    let rest = source.get(header..)?;
    if !rest.trim_start().starts_with('[') {
        return None;
    }
    let below = header + rest.find('\n')? + 1;
    let next = source.get(below..)?;
    let next = next
        .split_inclusive('\n')
        .take_while(|line| !line.trim_start().starts_with('['))
        .map(str::len)
        .sum::<usize>();
    Some(below..below + next)
}

/// The line where a list without an end can be noticed first; the parser notices at the end of the document.
fn unclosed_list(source: &str, lines: &Lines, found: &[Diagnostic]) -> Option<Diagnostic> {
    let unclosed = |found: &&Diagnostic| found.message.starts_with("unclosed array");
    let end = found.iter().find(unclosed)?;
    let first = found
        .iter()
        .find(|found| found.message.contains("in array"))
        .unwrap_or(end);
    let line = lines.start(first.span.start);
    let text = source.get(line..)?;
    let text = text.get(..text.find(['\n', '\r']).unwrap_or(text.len()))?;
    let indent = text.len() - text.trim_start().len();
    let span = line + indent..line + text.len();
    Some(Diagnostic::error(span, "a list before this is not closed").help("end it with `]`"))
}

fn diagnostic(source: &str, error: &Error) -> Diagnostic {
    let span = error.span().unwrap_or_default();
    let boundary = |at: usize| {
        (0..=at.min(source.len()))
            .rev()
            .find(|at| source.is_char_boundary(*at))
            .unwrap_or(0)
    };
    let start = boundary(span.start);
    let message = error.message().replace(", expected nothing", "");
    let found = Diagnostic::error(start..boundary(span.end).max(start), message);
    match error.message() {
        "duplicate key" => {
            found.help("each key and each `[table]` stands once; put its contents together")
        }
        "string values must be quoted, expected literal string" => found.help("write it in quotes"),
        _ => found,
    }
}
