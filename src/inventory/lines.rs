//! Lines and columns of a text.

/// Where the lines of a text start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(starts).collect())
    }

    /// The line, from 1, that a byte is in.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.0.partition_point(|start| *start <= at)
    }

    /// The first byte of the line that a byte is in.
    pub(crate) fn start(&self, at: usize) -> usize {
        self.line(at)
            .checked_sub(1)
            .and_then(|line| self.0.get(line))
            .copied()
            .unwrap_or_default()
    }
}
