//! From the text of an inventory to the inventory, or to all that is wrong with it.

use camino::{Utf8Path, Utf8PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::boot::Boot;
use super::define::section;
use super::diagnostic::Diagnostic;
use super::hardening::Hardening;
use super::k3s::K3s;
use super::lines::Lines;
use super::longhorn::Longhorn;
use super::name::{ClusterName, NodeName};
use super::node::NodeSection;
use super::report::Report;
use super::rules::{self, Draft};
use super::schema::{Definitions, Schema};
use super::setting::{Found, Problems, Setting, Text, entries, table};
use super::ssh::Ssh;
use super::syntax::Syntax;
use super::version::Versions;
use super::watchdog::Watchdog;
use super::{Inventory, mask};

section! {
    /// The cluster.
    pub struct Cluster {
        /// Its name, also in kubeconfig.
        name: ClusterName = ClusterName::literal("homelab"),
    }
}

section! {
    /// The Raspberry Pis of a homelab, and what selfheal shall make hold on them.
    pub(crate) struct Root {
        /// The cluster.
        cluster: Cluster = Cluster::default(),
        /// What it runs.
        versions: Versions = Versions::default(),
        /// How the nodes are reached.
        ssh: Ssh = Ssh::default(),
        /// Hardening of all nodes.
        hardening: Hardening = Hardening::default(),
        /// Boot parameters of all nodes.
        boot: Boot = Boot::default(),
        /// Watchdog, panics and safe mode of all nodes.
        watchdog: Watchdog = Watchdog::default(),
        /// k3s on all nodes.
        k3s: K3s = K3s::default(),
        /// What Longhorn finds on all nodes.
        longhorn: Longhorn = Longhorn::default(),
        /// The nodes by name.
        nodes: Nodes = Nodes,
    }
}

/// `[nodes.*]`, which are read after everything that goes under them.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Nodes;

impl Setting for Nodes {
    const REQUIRED: Option<&'static str> = Some("a table for each Pi: `[nodes.jarvis]`");

    fn schema(definitions: &mut Definitions) -> Schema {
        let node = NodeSection::schema(definitions);
        serde_json::json!({
            "type": "object",
            "propertyNames": { "pattern": NodeName::PATTERN },
            "minProperties": 1,
            "additionalProperties": node,
        })
    }

    fn over(self, _: &Found<'_>, _: &mut Problems) -> Self {
        self
    }
}

/// The JSON schema of the inventory, for editors.
pub fn schema() -> Schema {
    let mut definitions = Definitions::default();
    let root = Root::schema(&mut definitions);
    definitions.document("selfheal inventory", &root)
}

/// Parses and checks the text of an inventory: all that is wrong with it, and the inventory itself if nothing of it is
/// an error. `file` is the name the report shows; relative paths in the inventory start at its folder.
pub fn parse(file: impl Into<Utf8PathBuf>, text: &[u8]) -> (Option<Inventory>, Report) {
    let source = match std::str::from_utf8(text) {
        Ok(source) => source,
        Err(error) => {
            // What is not text becomes one replacement character of three bytes, where the first of it was.
            let at = error.valid_up_to();
            let found = Diagnostic::error(at..at + '\u{fffd}'.len_utf8(), "this is not UTF-8 text")
                .help("save the file as UTF-8");
            let source = mask::secrets(&String::from_utf8_lossy(text), &[], true);
            return (None, Report::new(file, source, vec![found]));
        }
    };
    let (document, errors) = DeTable::parse_recoverable(source);
    let lines = Lines::of(source);
    let syntax = Syntax::new(source, &lines, &errors);
    let broken = !syntax.errors.is_empty();
    let span = document.span();
    let document = Spanned::new(span, DeValue::Table(document.into_inner()));
    let mut problems = Problems {
        incomplete: broken,
        ..Problems::default()
    };
    let file = file.into();
    let folder = file.parent().unwrap_or(Utf8Path::new(""));
    let inventory = read(&document, folder, &mut problems);

    let mut secrets = problems.secrets;
    mask::suspects(&document, &mut secrets);
    let masked = mask::secrets(source, &secrets, broken);
    let mut found = problems.found;
    found.retain(|found| !syntax.hides(&lines, found));
    found.extend(syntax.errors);
    found.sort_by(|one, other| {
        let key = |found: &Diagnostic| (found.span.start, found.span.end);
        key(one)
            .cmp(&key(other))
            .then_with(|| one.message.cmp(&other.message))
    });
    found.dedup();
    let valid = !found.iter().any(Diagnostic::is_error);
    let report = Report::new(file, masked, found);
    (inventory.filter(|_| valid), report)
}

/// Reads the document as far as it makes sense.
fn read(document: &Found<'_>, folder: &Utf8Path, problems: &mut Problems) -> Option<Inventory> {
    let root = Root::default().over(document, problems);
    let document = document.get_ref().as_table()?;
    let nodes = document
        .get("nodes")
        .and_then(|nodes| table(nodes, problems));
    let mut drafts = Vec::new();
    for (key, value) in entries(nodes) {
        let name = key
            .get_ref()
            .parse::<NodeName>()
            .map_err(|wrong| problems.wrong(key.span(), wrong))
            .ok();
        let under = NodeSection {
            ssh: root.ssh.clone(),
            hardening: root.hardening.clone(),
            boot: root.boot.clone(),
            watchdog: root.watchdog.clone(),
            k3s: root.k3s.clone(),
            longhorn: root.longhorn.clone(),
            ..NodeSection::default()
        };
        let section = under.over(value, problems);
        drafts.push(Draft {
            key: key.get_ref(),
            span: key.span(),
            name,
            section,
        });
    }
    rules::check(document, &root.versions, &drafts, problems);
    let nodes = drafts
        .into_iter()
        .filter_map(|draft| draft.section.resolve(draft.name?, folder))
        .collect();
    Some(Inventory {
        cluster: root.cluster,
        versions: root.versions,
        nodes,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::inventory::{Node, Swap};

    const TWO: &str = r#"
        [ssh]
        user = "admin"
        [hardening]
        packages = ["nvme-cli"]
        sysctls = { "vm.swappiness" = 10, "net/ipv4/conf/eth0.5/rp_filter" = "2" }
        [hardening.sshd]
        max_auth_tries = 4
        settings = { AllowUsers = ["admin", "pi"] }
        [nodes.jarvis]
        host = "192.168.1.10"
        role = "control-plane"
        [nodes.ultron]
        host = "Ultron.local"
        role = "worker"
        user = "pi"
        [nodes.ultron.hardening]
        sysctls = { "vm.swappiness" = 20 }
        sshd.login_grace_time = "1m"
        swap = "keep"
    "#;

    #[test]
    fn a_node_goes_before_its_section_and_a_section_before_the_default() {
        let (inventory, report) = parse("two.toml", TWO.as_bytes());
        assert_eq!(report.diagnostics(), []);
        let inventory = inventory.unwrap();
        let (jarvis, ultron) = (
            inventory.node("jarvis").unwrap(),
            inventory.node("ultron").unwrap(),
        );
        assert_eq!(
            (jarvis.user.as_str(), ultron.user.as_str()),
            ("admin", "pi")
        );
        assert_eq!(
            (jarvis.hardening.swap, ultron.hardening.swap),
            (Swap::Off, Swap::Keep)
        );
        assert_eq!(ultron.hardening.packages, jarvis.hardening.packages);
        assert_eq!(ultron.hardening.sshd.max_auth_tries.get(), 4);
        assert_eq!(ultron.hardening.sshd.login_grace_time.as_secs(), 60);
        assert_eq!(jarvis.hardening.sshd.login_grace_time.as_secs(), 30);
        let sysctls = |node: &Node| -> Vec<String> {
            node.hardening
                .sysctls
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect()
        };
        assert_eq!(
            sysctls(jarvis),
            ["net.ipv4.conf.eth0/5.rp_filter=2", "vm.swappiness=10"]
        );
        assert_eq!(
            sysctls(ultron),
            ["net.ipv4.conf.eth0/5.rp_filter=2", "vm.swappiness=20"]
        );
        assert_eq!(ultron.host.to_string(), "ultron.local");
        assert_eq!(
            (
                jarvis.lan_address().unwrap().to_string(),
                ultron.lan_address()
            ),
            ("192.168.1.10".into(), None)
        );
    }

    #[test]
    fn all_that_is_wrong_is_found_at_once() {
        let source = "[ssh]\nprot = 22\nuser = 1\n[nodes.Jarvis]\nhost = \"300.1.1.1\"\n[nodes.a]\nrole = \"boss\"";
        let (inventory, report) = parse("wrong.toml", source.as_bytes());
        assert_eq!(inventory, None);
        let blamed: Vec<_> = report
            .diagnostics()
            .iter()
            .map(|found| &source[found.span.clone()])
            .collect();
        let places = [
            "prot",
            "1",
            "[nodes.Jarvis]",
            "Jarvis",
            "\"300.1.1.1\"",
            "[nodes.a]",
            "\"boss\"",
        ];
        assert_eq!(blamed, places);
    }
}
