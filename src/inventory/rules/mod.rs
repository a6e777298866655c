//! What single settings cannot tell: nodes that collide, settings that contradict each other.

mod cluster;
mod k3s;
mod longhorn;
mod node;
mod watchdog;

use std::ops::Range;

use toml::de::DeTable;

use super::name::NodeName;
use super::node::NodeSection;
use super::setting::{Found, Problems};
use super::version::Versions;

/// A node as far as it could be read.
pub(crate) struct Draft<'d> {
    /// Its key in the document, which may be no valid name.
    pub(crate) key: &'d str,
    /// Where that key is.
    pub(crate) span: Range<usize>,
    pub(crate) name: Option<NodeName>,
    pub(crate) section: NodeSection,
}

/// Checks the inventory as a whole.
pub(crate) fn check(
    document: &DeTable<'_>,
    versions: &Versions,
    nodes: &[Draft<'_>],
    problems: &mut Problems,
) {
    cluster::collisions(document, nodes, problems);
    if !problems.incomplete {
        cluster::control_planes(document, nodes, problems);
    }
    cluster::versions_that_hurt(document, versions, problems);
    for draft in nodes {
        let node = Place { document, draft };
        node::access(&node, problems);
        node::sshd(&node, problems);
        node::firewall(&node, problems);
        node::services(&node, problems);
        node::sysctls(&node, problems);
        node::boot(&node, problems);
        watchdog::check(&node, problems);
        k3s::check(&node, nodes.len() > 1, problems);
        longhorn::check(&node, nodes.len() > 1, problems);
    }
}

/// A node and the document it stands in, to find where a setting of it was given.
struct Place<'d> {
    document: &'d DeTable<'d>,
    draft: &'d Draft<'d>,
}

impl Place<'_> {
    /// Where the setting is given that holds for the node: its own, or the one for all nodes.
    fn given(&self, path: &[&str]) -> Option<Range<usize>> {
        self.own(path).or_else(|| find(self.document, path))
    }

    /// Where the setting is given, unless that is for all nodes and the node has one of `others` of its own: then the
    /// node is the exception, and the setting is right for the rest.
    fn given_unless_own(&self, path: &[&str], others: &[&[&str]]) -> Option<Range<usize>> {
        let exception = others.iter().any(|other| self.own(other).is_some());
        self.own(path)
            .or_else(|| find(self.document, path).filter(|_| !exception))
    }

    fn own(&self, path: &[&str]) -> Option<Range<usize>> {
        let own: Vec<&str> = ["nodes", self.draft.key]
            .into_iter()
            .chain(path.iter().copied())
            .collect();
        find(self.document, &own)
    }

    /// Where it is given, or else the node's name.
    fn at(&self, path: &[&str]) -> Range<usize> {
        self.given(path).unwrap_or_else(|| self.draft.span.clone())
    }

    /// The item of a list that is given there.
    fn item(&self, path: &[&str], text: &str) -> Range<usize> {
        let own: Vec<&str> = ["nodes", self.draft.key]
            .into_iter()
            .chain(path.iter().copied())
            .collect();
        let list = value(self.document, &own).or_else(|| value(self.document, path));
        let items = list.and_then(|list| list.get_ref().as_array());
        let item = items.and_then(|items| {
            items
                .iter()
                .find(|item| item.get_ref().as_str() == Some(text))
        });
        item.map_or_else(|| self.at(path), toml::Spanned::span)
    }
}

fn value<'d>(table: &'d DeTable<'d>, path: &[&str]) -> Option<&'d Found<'d>> {
    let (first, rest) = path.split_first()?;
    let found = table.get(*first)?;
    if rest.is_empty() {
        Some(found)
    } else {
        value(found.get_ref().as_table()?, rest)
    }
}

fn find(table: &DeTable<'_>, path: &[&str]) -> Option<Range<usize>> {
    value(table, path).map(toml::Spanned::span)
}
