//! `selfheal node resume`: a node leaves safe mode, because its user says that all is well again.

use clap::Args;
use serde_json::json;

use super::begin::{begin, confirmed};
use super::exit::Exit;
use super::fleet::{ask, block_on, failures, failures_json, on_node, watched};
use super::load::{Loaded, load};
use super::options::{Consent, Options, Output};
use super::output::{Failure, print, print_json};
use crate::apply::{self, Claim};
use crate::plan::json;
use crate::report::log::Log;

/// Which node leaves safe mode.
#[derive(Debug, Args)]
pub(super) struct Resume {
    /// The node's name.
    node: String,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(asked: &Resume, options: &Options) -> Result<Exit, Failure> {
    let loaded = load(options)?;
    let (log, claim) = begin("resume")?;
    block_on(resume(asked, &loaded, &claim, options, log))
}

async fn resume(
    asked: &Resume,
    loaded: &Loaded,
    claim: &Claim,
    options: &Options,
    log: Log,
) -> Result<Exit, Failure> {
    let node = loaded.node(&asked.node)?;
    let (name, output) = (&node.name, asked.output);
    let mut reason = None;
    let results = on_node(
        loaded,
        node,
        options,
        &mut Some(log),
        async |reached, log| {
            reason.clone_from(&reached.snapshot.safe_mode);
            let Some(reason) = &reason else {
                return Ok(Ok(()));
            };
            if !output.json {
                print(&format!(
                    "{name} is in safe mode: {reason}.\nIt will leave it: panics reboot it again, and k3s starts.\n"
                ));
            }
            if !asked.consent.yes {
                ask(|| confirmed("Resume this node?")).await??;
            }
            let holder = claim.on(&reached.snapshot);
            let resumed = watched(options, log, async |_| {
                apply::resume(&reached.session, &holder).await
            });
            Ok(resumed.await)
        },
    )
    .await?;
    let exit = failures(&results);
    if output.json {
        print_json(&json!({
            "version": json::VERSION,
            "node": name.as_str(),
            "safe_mode": reason,
            "resumed": exit == Exit::Done && reason.is_some(),
            "failed": failures_json(&results),
        }));
    } else if exit == Exit::Done {
        print(&match reason {
            Some(_) => format!("{name} has left safe mode.\n"),
            None => format!("{name} is not in safe mode.\n"),
        });
    }
    Ok(exit)
}
