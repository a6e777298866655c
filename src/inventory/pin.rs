//! Puts another host key in the place of a pinned one, and leaves every other byte of the inventory as it is.

use toml::de::DeTable;

use super::key::PublicKey;
use super::name::NodeName;

/// The inventory with `key` as the value of `nodes.NODE.host_key`; `None` where the node has no pin.
pub fn pin(source: &str, node: &NodeName, key: &PublicKey) -> Option<String> {
    let document = DeTable::parse(source).ok()?.into_inner();
    let nodes = document.get("nodes")?.get_ref().as_table()?;
    let section = nodes.get(node.as_str())?.get_ref().as_table()?;
    let span = section.get("host_key")?.span();
    let (before, after) = (source.get(..span.start)?, source.get(span.end..)?);
    let value = toml::Value::from(key.to_string());
    Some(format!("{before}{value}{after}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::inventory::parse;

    const OLD: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const NEW: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGGAcaSJIvx88Y0Ff6zAQX3GWwk5nS+7bHnXZNcGnzwN";

    fn pinned(source: &str, node: &str) -> Option<String> {
        pin(source, &node.parse().unwrap(), &NEW.parse().unwrap())
    }

    #[test]
    fn only_the_value_changes_however_it_is_written() {
        for form in [
            "[nodes.jarvis] # é\r\nhost = \"10.0.0.1\"\r\nrole = 'control-plane'\r\nhost_key  =\tVALUE # flashed in May\r\n",
            "[nodes]\njarvis = { host = \"10.0.0.1\", host_key = VALUE , role = \"control-plane\" }",
            "nodes.jarvis.host = \"10.0.0.1\"\nnodes.jarvis.\"host_key\" = VALUE\nnodes.jarvis.role = \"control-plane\"",
        ] {
            for quotes in ["\"\"", "''", "\"\"\"\"\"\"", "''''''"] {
                let half = &quotes[..quotes.len() / 2];
                let old = form.replace("VALUE", &format!("{half}{OLD} root@jarvis{half}"));
                let new = pinned(&old, "jarvis").unwrap();
                assert_eq!(new, form.replace("VALUE", &format!("\"{NEW}\"")));
                let inventory = parse("a.toml", new.as_bytes()).0.unwrap();
                let key = inventory.node("jarvis").unwrap().host_key.as_ref();
                assert_eq!(key.unwrap().to_string(), NEW);
            }
        }
    }

    #[test]
    fn another_node_keeps_its_key_and_what_has_no_pin_gets_none() {
        let section = |name| format!("[nodes.{name}]\nhost_key = \"{OLD}\"\n");
        let both = section("jarvis") + &section("ultron");
        let new = pinned(&both, "ultron").unwrap();
        assert_eq!(
            new,
            section("jarvis") + &section("ultron").replace(OLD, NEW)
        );
        for source in [
            "",
            "nodes = 1",
            "[nodes.ultron]\nhost = \"a\"",
            "[nodes.vision]\nhost_key = \"a\"",
            "[nodes.ultron]\nhost_key",
        ] {
            assert_eq!(pinned(source, "ultron"), None, "{source}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_without_a_panic(text in "(.|\n|nodes|ultron|host_key|[.=\"\\[\\]]){0,60}") {
            let _ = pinned(&text, "ultron");
        }
    }
}
