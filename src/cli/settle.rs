//! What interrupted runs left under way on the nodes, before anything is planned.

use super::fleet::watched;
use super::options::Options;
use crate::apply::{self, Claim};
use crate::fleet::{Outcomes, Reached};
use crate::node::boot::Trial;
use crate::report::log::Log;
use crate::report::{Event, Events};
use crate::resource::boot;

/// Lets steps end, dead man's switches act, and trial boots come to their end. True when there were any.
pub(super) async fn settle(
    outcomes: &mut Outcomes<Reached>,
    claim: &Claim,
    options: &Options,
    log: &mut Option<Log>,
) -> bool {
    let orphaned = |reached: &&Reached| claim.left_a_step(&reached.snapshot);
    let armed = |reached: &&Reached| reached.snapshot.dead_man_armed;
    let tried = |reached: &&Reached| Trial::of(&boot::facts(&reached.snapshot)) == Trial::UnderWay;
    let unsettled = |reached: &Reached| orphaned(&reached) || armed(&reached) || tried(&reached);
    if !outcomes.values().flatten().any(unsettled) {
        return false;
    }
    watched(options, log, async |events: Events| {
        for reached in outcomes.values().flatten().filter(orphaned) {
            let node = reached.node.name.to_string();
            let what = "the last step of an interrupted run".to_owned();
            events.send(Event::Waiting { node: node.clone(), what });
            let claim = claim.on(&reached.snapshot);
            if let Err(error) = apply::await_step(&reached.session, &claim).await {
                events.send(Event::Note { node, text: error.chain() });
            }
        }
        for reached in outcomes.values().flatten().filter(armed) {
            let node = reached.node.name.to_string();
            let text = "an interrupted run left the dead man's switch armed: putting the originals back first";
            events.send(Event::Note { node: node.clone(), text: text.to_owned() });
            if let Err(error) = apply::settle(&reached.session, &claim.on(&reached.snapshot)).await {
                events.send(Event::Failed { node, error: error.chain() });
            }
        }
        for reached in outcomes.values().flatten().filter(tried) {
            let node = reached.node.name.to_string();
            let what = "the end of a trial boot that is under way".to_owned();
            events.send(Event::Waiting { node: node.clone(), what });
            let claim = claim.on(&reached.snapshot);
            if let Err(error) = apply::await_trial(&reached.session, &claim).await {
                events.send(Event::Note { node, text: error.chain() });
            }
        }
    })
    .await;
    true
}
