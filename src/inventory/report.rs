//! The outcome of checking an inventory, shown to people and to programs.

use std::fmt;
use std::io::Read as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value as Json, json};

use super::lines::Lines;
use super::{Diagnostic, Inventory, Severity, parse};

/// All that is wrong with one inventory, and its text to show it in. Secrets in it are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    file: Utf8PathBuf,
    source: String,
    lines: Lines,
    diagnostics: Vec<Diagnostic>,
}

/// More than these are not shown one by one.
const SHOWN: usize = 200;

impl Report {
    /// `source` is the text the spans belong to, its secrets masked.
    pub(crate) fn new(
        file: impl Into<Utf8PathBuf>,
        source: String,
        diagnostics: Vec<Diagnostic>,
    ) -> Self {
        Self {
            file: file.into(),
            lines: Lines::of(&source),
            source,
            diagnostics,
        }
    }

    /// What is wrong, in the order of the file.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// How many errors there are.
    pub fn errors(&self) -> usize {
        self.diagnostics
            .iter()
            .filter(|found| found.is_error())
            .count()
    }

    /// How many warnings there are.
    pub fn warnings(&self) -> usize {
        self.diagnostics.len() - self.errors()
    }

    /// What is wrong, for people, with colours or without; an empty line after each. [`Report::summary`] counts it.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut shown = String::new();
        for found in self.diagnostics.iter().take(SHOWN) {
            shown += &renderer.render(&[self.group(found)]);
            shown += "\n\n";
        }
        if let Some(more @ 1..) = self.diagnostics.len().checked_sub(SHOWN) {
            shown += &format!("… and {more} more\n\n");
        }
        shown
    }

    /// "homelab.toml: 2 errors and 1 warning"
    pub fn summary(&self) -> String {
        let count = |number: usize, what: &str| match number {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{number} {what}s")),
        };
        let counts: Vec<String> = [
            count(self.errors(), "error"),
            count(self.warnings(), "warning"),
        ]
        .into_iter()
        .flatten()
        .collect();
        let counts = if counts.is_empty() {
            "nothing wrong".to_owned()
        } else {
            counts.join(" and ")
        };
        format!("{}: {counts}", self.file)
    }

    /// The report for programs: file, counts, and each diagnostic with lines and columns from 1, columns in characters.
    pub fn to_json(&self) -> Json {
        let place = |span: &Range<usize>| {
            let ((line, column), (end_line, end_column)) =
                (self.position(span.start), self.position(span.end));
            json!({ "line": line, "column": column, "end_line": end_line, "end_column": end_column })
        };
        let diagnostics: Vec<Json> = self
            .diagnostics
            .iter()
            .map(|found| {
                let related = found
                    .related
                    .as_ref()
                    .map(|(span, what)| json!({ "at": place(span), "message": what }));
                json!({
                    "severity": found.severity,
                    "at": place(&found.span),
                    "message": found.message,
                    "help": found.help,
                    "note": found.note,
                    "related": related,
                })
            })
            .collect();
        json!({
            "file": self.file,
            "errors": self.errors(),
            "warnings": self.warnings(),
            "diagnostics": diagnostics,
        })
    }

    /// Line and column, both from 1, of a byte of the source.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = self
            .source
            .get(self.lines.start(at)..at)
            .unwrap_or_default();
        (self.lines.line(at), before.chars().count() + 1)
    }

    /// One diagnostic with the lines it is about.
    fn group<'a>(&'a self, found: &'a Diagnostic) -> Group<'a> {
        let level = match found.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let related = found.related.as_ref();
        let first = related.map_or(found.span.start, |(span, _)| {
            span.start.min(found.span.start)
        });
        let last = related.map_or(found.span.end, |(span, _)| span.end.max(found.span.end));
        // Only the lines in question: the renderer walks all that it is given, for each diagnostic.
        let start = self.lines.start(first);
        let end = self
            .source
            .get(last..)
            .and_then(|text| text.find('\n'))
            .map_or(self.source.len(), |at| last + at);
        let window = self.source.get(start..end).unwrap_or_default();
        let inside = |span: &Range<usize>| {
            let text = self.source.get(span.clone()).unwrap_or_default();
            // A value of many lines is underlined in its first one.
            let length = text.find(['\n', '\r']).unwrap_or(text.len());
            span.start - start..span.start - start + length
        };
        let mut snippet = Snippet::source(window)
            .line_start(self.lines.line(start))
            .path(self.file.as_str())
            .annotation(AnnotationKind::Primary.span(inside(&found.span)));
        if let Some((span, what)) = related {
            snippet = snippet.annotation(
                AnnotationKind::Context
                    .span(inside(span))
                    .label(what.as_str()),
            );
        }
        let mut group = level.primary_title(found.message.as_str()).element(snippet);
        if let Some(help) = &found.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        if let Some(note) = &found.note {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        group
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.render(false), self.summary())
    }
}

/// An inventory that can be used, and what is odd about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The inventory.
    pub inventory: Inventory,
    /// Its warnings, if there are any.
    pub report: Report,
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The file is not there, or cannot be read.
    #[error("cannot read the inventory {file}")]
    Unreadable {
        /// The file.
        file: Utf8PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is far bigger than any inventory.
    #[error("{file} is bigger than {} KiB, so it is no inventory", LIMIT / 1024)]
    TooBig {
        /// The file.
        file: Utf8PathBuf,
    },
    /// The file says something that cannot be.
    #[error("{0}")]
    Wrong(Report),
}

impl Invalid {
    /// The report with the places, where the file could be read at all.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Wrong(report) => Some(report),
            Self::Unreadable { .. } | Self::TooBig { .. } => None,
        }
    }
}

/// The biggest inventory that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// Reads and checks an inventory.
///
/// # Errors
/// All that is wrong with it at once, or why it could not be read.
pub fn load(file: &Utf8Path) -> Result<Loaded, Invalid> {
    let mut bytes = Vec::new();
    let unreadable = |source| Invalid::Unreadable {
        file: file.to_owned(),
        source,
    };
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    opened
        .take(LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > LIMIT {
        return Err(Invalid::TooBig {
            file: file.to_owned(),
        });
    }
    let (inventory, report) = parse(file, &bytes);
    match inventory {
        Some(inventory) => Ok(Loaded { inventory, report }),
        None => Err(Invalid::Wrong(report)),
    }
}
