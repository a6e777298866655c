//! The kernel command line and config.txt: what k3s and a node that heals itself need of them (domain.md §1.4, §1.5).

use std::collections::BTreeSet;

use camino::Utf8Path;

use crate::inventory::Node;
use crate::node::boot::{Board, ConfigLine, Edit, Token, TokenError};
use crate::node::file::FileState;
use crate::node::ledger::{Before, Id, Kind, LayerName};
use crate::node::probe::Questions;
use crate::node::snapshot::Snapshot;
use crate::resource::change::Refusal;
use crate::resource::{Resource, Wanted, boot, boot_config};

/// There when the kernel has the board's watchdog.
const WATCHDOG: &str = "/dev/watchdog0";
/// Names the evidence against a drive, before its `VID:PID`.
const UAS_RESET: &str = "uas-reset ";

/// The boot files.
pub(super) fn questions() -> Questions {
    Questions {
        files: boot::questions().chain([WATCHDOG.into()]).collect(),
        ..Questions::default()
    }
}

/// Tokens are decided by their effect: one that changes nothing is not added, and one that is there because of selfheal
/// stays, or it would be taken away as soon as it works.
pub(super) fn desired(node: &Node, snapshot: &Snapshot) -> Result<Vec<Resource>, Refusal> {
    let facts = &snapshot.facts;
    let settings = &node.boot;
    let mut wanted = Tokens::new(snapshot);

    // The firmware passes cgroup_disable=memory; a later cgroup_enable=memory wins. k3s does not start without it.
    let memory = ["cgroup_memory=1", "cgroup_enable=memory"];
    if settings.memory_cgroup
        && (!facts.cgroup_controllers.contains("memory") || wanted.owns(&memory))
    {
        wanted.add(&memory);
    }
    // Pi kernels can account pressure, but do not until told to.
    if settings.psi && (!facts.psi || wanted.owns(&["psi=1"])) {
        wanted.add(&["psi=1"]);
    }
    // A panic before sysctl.d is applied must end in a reboot, too.
    wanted.add(&[&format!("panic={}", settings.panic_timeout.as_secs())]);
    // Some kernels kept the 20 ms that Android warns after: with panic_on_rcu_stall each of those would be a reboot.
    let rcu = ["rcupdate.rcu_exp_cpu_stall_timeout=21000"];
    let short = matches!(facts.rcu_exp_cpu_stall_timeout, Some(1..=999));
    if settings.rcu_stall_timeout && (short || wanted.owns(&rcu)) {
        wanted.add(&rcu);
    }
    if settings.rcu_normal_after_boot {
        wanted.add(&["rcupdate.rcu_normal_after_boot=1"]);
    }
    // Only for drives that were seen to need it, since both cost something. They stop showing it then, so it is noted.
    let mut resources = Vec::new();
    let mut noted = |name: &str, said: Option<&String>| {
        let id = Id::new(Kind::Evidence, name);
        let before = snapshot.ledger.get(&id).map(|entry| &entry.before);
        let said = match (before, said) {
            (Some(Before::Value(said)), _) | (_, Some(said)) => said.replace(char::is_control, " "),
            _ => return false,
        };
        let evidence = Wanted::Evidence(name.to_owned(), said);
        resources.push(Resource::new(LayerName::Boot, evidence));
        true
    };
    if settings.nvme_quirk && noted("nvme-reset", facts.nvme_reset.as_ref()) {
        wanted.add(&["nvme_core.default_ps_max_latency_us=0", "pcie_aspm=off"]);
    }
    let drives = snapshot.ledger.iter().map(|(id, _)| id);
    let drives = drives.filter(|id| id.kind == Kind::Evidence);
    let drives = drives.filter_map(|id| id.name.strip_prefix(UAS_RESET));
    let drives: BTreeSet<&str> = drives
        .chain(facts.uas_resets.keys().map(String::as_str))
        .collect();
    for drive in drives.into_iter().filter(|_| settings.uas_quirk) {
        if noted(&format!("{UAS_RESET}{drive}"), facts.uas_resets.get(drive)) {
            wanted.add(&[&format!("usb-storage.quirks={drive}:u")]);
        }
    }
    let mut set = wanted.tokens().map_err(|error| Refusal {
        layer: LayerName::Boot,
        what: "kernel command line".to_owned(),
        reason: error.to_string(),
        hint: "please report this as a bug".to_owned(),
    })?;
    // What the user says goes before what selfheal finds.
    let said = |token: &Token| {
        let own = settings
            .add
            .iter()
            .any(|added| added.token().replaces() && added.token().key() == token.key());
        own || settings.remove.iter().any(|gone| gone.token().means(token))
    };
    set.retain(|token| !said(token));
    set.extend(settings.add.iter().map(|added| added.token().clone()));
    let remove = settings.remove.iter().map(|gone| gone.token().clone());
    let edit = Edit {
        set,
        remove: remove.collect(),
    };

    let mut lines: Vec<ConfigLine> = Vec::new();
    let on_a_pi = Board::from_model(&facts.model) != Board::Other;
    let no_watchdog = *snapshot.file(Utf8Path::new(WATCHDOG)) == FileState::Absent;
    let watchdog = ConfigLine::watchdog();
    if settings.board_watchdog
        && (on_a_pi && no_watchdog || boot_config::wrote(snapshot, &watchdog))
    {
        lines.push(watchdog);
    }
    for line in &settings.config {
        if !lines.contains(line.line()) {
            lines.push(line.line().clone());
        }
    }
    let tokens = Wanted::BootTokens {
        edit,
        try_first: settings.trial,
    };
    resources.push(Resource::new(LayerName::Boot, tokens));
    resources.push(Resource::new(LayerName::Boot, Wanted::BootConfig(lines)));
    Ok(resources)
}

/// What is left alone on purpose.
pub(super) fn note(snapshot: &Snapshot) -> Option<String> {
    let overclocking = boot_config::overclocking(snapshot);
    (!overclocking.is_empty()).then(|| {
        format!(
            "config.txt overclocks this Pi ({}): its freezes cannot be told from a fault; selfheal leaves that to you",
            overclocking.join(", ")
        )
    })
}

/// The tokens that are wanted so far, beside those that selfheal owns.
struct Tokens {
    owned: Vec<String>,
    wanted: Vec<String>,
}

impl Tokens {
    fn new(snapshot: &Snapshot) -> Tokens {
        let owned = snapshot
            .ledger
            .iter()
            .filter(|(id, _)| id.kind == Kind::BootToken)
            .map(|(id, _)| id.name.clone());
        Tokens {
            owned: owned.collect(),
            wanted: Vec::new(),
        }
    }

    fn owns(&self, any: &[&str]) -> bool {
        any.iter()
            .any(|token| self.owned.iter().any(|owned| owned == token))
    }

    fn add(&mut self, tokens: &[&str]) {
        for token in tokens {
            if !self.wanted.iter().any(|wanted| wanted == token) {
                self.wanted.push((*token).to_owned());
            }
        }
    }

    fn tokens(&self) -> Result<Vec<Token>, TokenError> {
        self.wanted.iter().map(|token| token.parse()).collect()
    }
}
