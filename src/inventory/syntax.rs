//! What the TOML parser complains about, without what only follows from it.

use toml::de::Error;

use super::diagnostic::Diagnostic;

const UNCLOSED: &str = "a list before this is not closed";

/// The syntax errors worth showing, in the order of the source: one a line, and nothing after a list that is not closed,
/// which takes the rest of the document for its items.
pub(crate) fn errors(source: &str, errors: &[Error]) -> Vec<Diagnostic> {
    let mut found: Vec<Diagnostic> = errors
        .iter()
        .map(|error| diagnostic(source, error))
        .collect();
    found.sort_by_key(|found| found.span.start);
    let inside = |found: &Diagnostic| {
        found.message.contains("in array") || found.message.starts_with("unclosed array")
    };
    if errors
        .iter()
        .any(|error| error.message().starts_with("unclosed array"))
        && let Some(at) = found.iter().position(inside)
    {
        let line = line_start(source, found.get(at).map_or(0, |found| found.span.start));
        let text = source.get(line..).unwrap_or_default();
        let indent = text.len() - text.trim_start_matches([' ', '\t']).len();
        let end = text.find(['\n', '\r']).unwrap_or(text.len()).max(indent);
        found.truncate(at);
        found.retain(|found| found.span.start < line);
        found.push(Diagnostic::error(line + indent..line + end, UNCLOSED).help("end it with `]`"));
    }
    found.dedup_by(|later, earlier| same_line(source, earlier.span.start, later.span.start));
    found
}

/// Whether it is only a consequence of one of the syntax errors.
pub(crate) fn hides(source: &str, errors: &[Diagnostic], found: &Diagnostic) -> bool {
    errors.iter().any(|error| {
        let after = error.message == UNCLOSED && found.span.start >= error.span.start;
        after || same_line(source, found.span.start, error.span.start)
    })
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

fn line_start(source: &str, at: usize) -> usize {
    source
        .get(..at)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |newline| newline + 1)
}

fn same_line(source: &str, one: usize, other: usize) -> bool {
    line_start(source, one) == line_start(source, other)
}
