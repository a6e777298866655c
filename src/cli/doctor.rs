//! `selfheal doctor`: how healthy the nodes are. Writes nothing, takes no lock.

use clap::Args;
use serde_json::json;

use super::exit::Exit;
use super::fleet::{about, block_on, failures, failures_json, interruptible, prompt, watched};
use super::load::load;
use super::options::{Nodes, Options, Output};
use super::output::{Failure, print, print_json};
use crate::doctor::text::{Shown, summary};
use crate::doctor::{self, Diagnosis, Verdict, json};

/// Which nodes are examined, and how it is printed.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    nodes: Nodes,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(doctor: &Doctor, options: &Options) -> Result<Exit, Failure> {
    let loaded = load(options)?;
    let nodes = loaded.select(&doctor.nodes)?;
    let parallel = doctor.nodes.parallel.at_once;
    block_on(async {
        let mut no_log = None;
        let visiting = watched(options, &mut no_log, async |events| {
            doctor::visit(&loaded.inventory, &nodes, parallel, prompt(), &events).await
        });
        let outcomes = interruptible(visiting).await?;
        let measured: Vec<_> = nodes
            .iter()
            .filter_map(|node| Some((node, outcomes.get(&node.name)?.as_ref().ok()?)))
            .collect();
        let diagnoses = doctor::examine(&loaded.inventory.versions, &measured);
        if doctor.output.json {
            print_json(&json!({
                "version": json::VERSION,
                "cluster": loaded.inventory.cluster.name.as_str(),
                "nodes": diagnoses.iter().map(json::node).collect::<Vec<_>>(),
                "failed": failures_json(&outcomes),
            }));
        } else {
            for diagnosis in &diagnoses {
                let shown = Shown {
                    diagnosis,
                    about: about(&loaded, &diagnosis.node),
                    style: options.style(),
                    all: options.verbose,
                };
                print(&format!("{shown}\n"));
            }
            if !diagnoses.is_empty() {
                print(&format!("{}\n", summary(&diagnoses)));
            }
        }
        let failed = failures(&outcomes);
        let examined = diagnoses.iter().map(outcome);
        Ok(Exit::worst(examined.chain([failed])))
    })
}

/// What a node's findings make of the exit code. What could not be found out is no health.
fn outcome(diagnosis: &Diagnosis) -> Exit {
    match diagnosis.verdict() {
        Verdict::Fail => Exit::Failed,
        Verdict::Warn | Verdict::Unknown => Exit::Pending,
        Verdict::Ok | Verdict::Skipped => Exit::Done,
    }
}
