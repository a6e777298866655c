//! `--on`: a choice of nodes by name, role and tag.

use wildmatch::WildMatch;

use super::diagnostic::nearest;
use super::name::shown;
use super::setting::listed;
use super::{Inventory, Node};

/// An expression that chooses no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{expression}` matches no node{}; {known}", near.as_ref().map_or(String::new(), |near| format!(" (did you mean `{near}`?)")))]
pub struct NoSuchNode {
    expression: String,
    near: Option<String>,
    known: String,
}

impl Inventory {
    /// The nodes that an expression chooses, in the order of the inventory: names, patterns with `*` and `?`, and
    /// `@role` or `@tag`, with commas between them.
    ///
    /// # Errors
    /// Each part has to match at least one node, so that a typing error does not silently leave a node out.
    pub fn select(&self, expression: &str) -> Result<Vec<&Node>, NoSuchNode> {
        let parts: Vec<&str> = expression.split(',').map(str::trim).collect();
        if let Some(part) = parts
            .iter()
            .find(|part| !self.nodes.iter().any(|node| chooses(part, node)))
        {
            return Err(self.no_such_node(part));
        }
        Ok(self
            .nodes
            .iter()
            .filter(|node| parts.iter().any(|part| chooses(part, node)))
            .collect())
    }

    fn no_such_node(&self, part: &str) -> NoSuchNode {
        let names: Vec<String> = self
            .nodes
            .iter()
            .map(|node| node.name.to_string())
            .collect();
        let mut groups: Vec<String> = self
            .nodes
            .iter()
            .flat_map(|node| groups(node).map(|group| format!("@{group}")))
            .collect();
        groups.sort();
        groups.dedup();
        let all = names.iter().chain(&groups).map(String::as_str);
        let near = nearest(part, all).map(str::to_owned);
        let known = format!(
            "there are the nodes {} and the groups {}",
            listed(&names),
            listed(&groups)
        );
        NoSuchNode {
            expression: shown(part),
            near,
            known,
        }
    }
}

/// The groups a node is in: its role and its tags.
fn groups(node: &Node) -> impl Iterator<Item = &str> {
    std::iter::once(node.role.as_str()).chain(node.tags.iter().map(super::Tag::as_str))
}

fn chooses(part: &str, node: &Node) -> bool {
    match part.strip_prefix('@') {
        Some(pattern) => groups(node).any(|group| matches(pattern, group)),
        None => matches(part, node.name.as_str()),
    }
}

/// Whether a pattern with `*` (anything) and `?` (any character) covers the whole text.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    WildMatch::new(pattern).matches(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn selected(expression: &str) -> Result<Vec<String>, String> {
        let source = r#"
            nodes.jarvis = { host = "10.0.0.1", role = "control-plane", tags = ["ssd"] }
            nodes.pi-1 = { host = "10.0.0.2", role = "worker" }
            nodes.pi-2 = { host = "10.0.0.3", role = "worker", tags = ["ssd"] }
        "#;
        let inventory = crate::inventory::parse("three.toml", source.as_bytes())
            .0
            .unwrap();
        let nodes = inventory
            .select(expression)
            .map_err(|error| error.to_string())?;
        Ok(nodes.iter().map(|node| node.name.to_string()).collect())
    }

    #[test]
    fn names_roles_tags_and_patterns_choose_nodes_in_the_order_of_the_inventory() {
        for (expression, nodes) in [
            ("jarvis", vec!["jarvis"]),
            ("pi-2, jarvis", vec!["jarvis", "pi-2"]),
            ("@worker", vec!["pi-1", "pi-2"]),
            ("@control-plane,@ssd", vec!["jarvis", "pi-2"]),
            ("pi-*", vec!["pi-1", "pi-2"]),
            ("*i?1", vec!["pi-1"]),
            ("*", vec!["jarvis", "pi-1", "pi-2"]),
        ] {
            assert_eq!(selected(expression).unwrap(), nodes, "{expression}");
        }
    }

    #[test]
    fn a_part_that_matches_nothing_names_what_there_is() {
        assert_eq!(
            selected("pi-1,jarvs").unwrap_err(),
            "`jarvs` matches no node (did you mean `jarvis`?); there are the nodes `jarvis`, `pi-1` and `pi-2` \
             and the groups `@control-plane`, `@ssd` and `@worker`"
        );
        for nothing in ["", ",", "@", "pi-?*?", "@role"] {
            selected(nothing).unwrap_err();
        }
    }

    #[test]
    fn a_pattern_covers_the_whole_text() {
        for (pattern, text, covers) in [
            ("", "", true),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyycd", false),
            ("*ab", "aab", true),
            ("?", "", false),
            ("ab", "abc", false),
        ] {
            assert_eq!(matches(pattern, text), covers, "{pattern} {text}");
        }
    }
}
