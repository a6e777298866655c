//! What interrupted runs left under way on the nodes, before anything is planned.

use super::fleet::watched;
use super::options::Options;
use crate::apply::{self, Claim};
use crate::fleet::{NodeError, Outcomes, Reached};
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
            let holder = claim.on(&reached.snapshot);
            let end = apply::await_step(&reached.session, &holder);
            wait(reached, "the last step of an interrupted run", end, &events).await;
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
            let holder = claim.on(&reached.snapshot);
            let end = apply::await_trial(&reached.session, &holder);
            wait(reached, "the end of a trial boot that is under way", end, &events).await;
        }
    })
    .await;
    true
}

/// Whatever it comes to, the node is looked at again, and what it says then counts.
async fn wait(
    reached: &Reached,
    what: &str,
    end: impl Future<Output = Result<(), NodeError>>,
    events: &Events,
) {
    let node = reached.node.name.to_string();
    events.send(Event::Waiting {
        node: node.clone(),
        what: what.to_owned(),
    });
    if let Err(error) = end.await {
        let text = error.chain();
        events.send(Event::Note { node, text });
    }
}
