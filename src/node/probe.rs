//! The questions for one node, and the one script that asks them all.

use std::collections::BTreeSet;

use camino::Utf8PathBuf;

/// Files up to this many bytes come back whole; of larger ones only the hash.
pub const CONTENT_LIMIT: u64 = 256 * 1024;

const FUNCTIONS: &str = include_str!("../../templates/session/probe.sh");

/// What to ask a node besides its facts and what its ledger says selfheal owns (both are always asked).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Questions {
    /// Files: existence, mode, owner, content.
    pub files: BTreeSet<Utf8PathBuf>,
    /// systemd units: loaded, enabled, active.
    pub units: BTreeSet<String>,
    /// Debian packages: installed, held.
    pub packages: BTreeSet<String>,
    /// Sysctl keys: runtime value.
    pub sysctls: BTreeSet<String>,
    /// Kernel modules: loaded or built in.
    pub modules: BTreeSet<String>,
    /// Users whose home and `authorized_keys` are wanted.
    pub users: BTreeSet<String>,
    /// Files whose content must not leave the node: existence, mode, owner, hash.
    pub secrets: BTreeSet<Utf8PathBuf>,
    /// Whether the version of k3s is asked.
    pub k3s: bool,
    /// Whether the API server on this node is asked for the cluster's nodes.
    pub cluster: bool,
    /// Whether its addresses and the way out are asked.
    pub network: bool,
    /// Whether `sshd -T` is asked.
    pub sshd: bool,
    /// Whether systemd's own settings are asked.
    pub manager: bool,
    /// Whether the file systems of all disks are asked.
    pub disks: bool,
    /// Whether the facts are asked that only matter of a machine seen for the first time.
    pub stranger: bool,
}

impl Questions {
    /// Adds another layer's questions to these.
    pub fn extend(&mut self, other: Questions) {
        self.files.extend(other.files);
        self.units.extend(other.units);
        self.packages.extend(other.packages);
        self.sysctls.extend(other.sysctls);
        self.modules.extend(other.modules);
        self.users.extend(other.users);
        self.secrets.extend(other.secrets);
        self.k3s |= other.k3s;
        self.cluster |= other.cluster;
        self.network |= other.network;
        self.sshd |= other.sshd;
        self.manager |= other.manager;
        self.disks |= other.disks;
        self.stranger |= other.stranger;
    }

    /// The script that asks these questions. `nonce` marks the frames of the reply and must be hard to guess, so that
    /// nothing on the node can look like a frame.
    ///
    /// The script is one compound command: a shell that receives only a part of it runs nothing.
    pub fn script(&self, nonce: &str) -> String {
        let mut calls = String::new();
        let mut call = |function: &str, argument: &str| {
            calls.push_str(function);
            calls.push(' ');
            calls.push_str(&super::quote(argument));
            calls.push('\n');
        };
        self.files
            .iter()
            .for_each(|path| call("file", path.as_str()));
        self.users
            .iter()
            .for_each(|user| call("authorized_keys", user));
        self.sysctls.iter().for_each(|key| call("sysctl_key", key));
        self.modules.iter().for_each(|name| call("module", name));
        self.secrets
            .iter()
            .for_each(|path| call("secret", path.as_str()));
        let asked = [
            (self.sshd, "sshd_effective\n"),
            (self.manager, "manager\n"),
            (self.disks, "disks\n"),
            (self.stranger, "stranger\n"),
            (self.network || self.stranger, "network\n"),
            (self.k3s, "k3s_version\n"),
            (self.cluster, "cluster_nodes\n"),
        ];
        for (_, function) in asked.into_iter().filter(|(asked, _)| *asked) {
            calls.push_str(function);
        }
        let list = |names: &BTreeSet<String>| {
            names
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        };
        format!(
            "{{\nexport LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n\
             nonce={nonce} content_limit={CONTENT_LIMIT} files_asked= units={units} packages={packages}\n\
             {FUNCTIONS}\nprobe() {{\nframe begin\nfacts\n{calls}owned\nanswers_in_bulk\nframe end\n}}\n\
             probe </dev/null\nexit 0\n}}\n",
            units = super::quote(&list(&self.units)),
            packages = super::quote(&list(&self.packages)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_name_stays_data() {
        let mut questions = Questions::default();
        questions.files.insert("/tmp/it's; rm -rf /".into());
        assert!(
            questions
                .script("n")
                .contains(r#"file "/tmp/it's; rm -rf /""#)
        );
    }
}
