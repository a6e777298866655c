//! `kubectl wait` and `kubectl rollout status`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Kubectl, Resource};
use crate::api::objects::name;

/// A duration of Go: `20s`, `5m`, `1h`, `1m30s`, or `0`.
pub(super) fn duration(text: &str) -> Result<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let number: f64 = number
            .parse()
            .with_context(|| format!("error: invalid duration {text:?}"))?;
        let end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        total += number
            * match unit {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" if number == 0.0 => 0.0,
                _ => bail!("error: time: missing or unknown unit in duration {text:?}"),
            };
        rest = tail;
    }
    Ok(Duration::from_secs_f64(total))
}

impl Kubectl<'_> {
    pub(super) async fn wait(&self, words: &[String]) -> Result<()> {
        let (kind, names) = self.targets(words)?;
        let wanted = self
            .arguments
            .value(&["for"])
            .context("error: --for is required")?;
        let limit = duration(self.arguments.value(&["timeout"]).unwrap_or("30s"))?;
        let deadline = Instant::now() + limit;
        let objects = match self.find(kind, &names).await {
            Ok(objects) => objects,
            // There is nothing to wait for.
            Err(_) if wanted == "delete" => return Ok(()),
            Err(error) => return Err(error),
        };
        if objects.is_empty() && wanted != "delete" {
            bail!("error: no matching resources found");
        }
        for object in &objects {
            while !self.fulfils(kind, object, wanted).await? {
                if Instant::now() > deadline {
                    bail!(
                        "error: timed out waiting for the condition on {}/{}",
                        kind.plural,
                        name(object)
                    );
                }
                sleep(Duration::from_millis(300)).await;
            }
            println!("{}/{} condition met", kind.title, name(object));
        }
        Ok(())
    }

    async fn fulfils(&self, kind: Resource, object: &Value, wanted: &str) -> Result<bool> {
        if wanted == "delete" {
            return Ok(!self.exists(kind, object).await?);
        }
        let Some(condition) = wanted.strip_prefix("condition=") else {
            bail!("error: unrecognized condition: {wanted:?}");
        };
        let (condition, status) = condition.split_once('=').unwrap_or((condition, "True"));
        let now = self.client.get(&self.path_of(kind, object)).await?;
        if kind.plural == "deployments" && condition.eq_ignore_ascii_case("available") {
            return Ok(is_rolled_out(&now));
        }
        let conditions = now["status"]["conditions"].as_array();
        Ok(conditions.into_iter().flatten().any(|is| {
            let name = is["type"].as_str().unwrap_or_default();
            name.eq_ignore_ascii_case(condition) && is["status"] == status
        }))
    }

    pub(super) async fn rollout(&self, words: &[String]) -> Result<()> {
        let Some((verb, words)) = words.split_first().filter(|(verb, _)| *verb == "status") else {
            bail!("error: the double knows `rollout status` only");
        };
        let (kind, names) = self.targets(words)?;
        let limit = self
            .arguments
            .value(&["timeout"])
            .map(duration)
            .transpose()?;
        let deadline = limit
            .filter(|limit| !limit.is_zero())
            .map(|limit| Instant::now() + limit);
        for wanted in names {
            while !self.find(kind, &[wanted]).await?.iter().all(is_rolled_out) {
                if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                    bail!("error: timed out waiting for the condition ({verb})");
                }
                sleep(Duration::from_millis(300)).await;
            }
            println!("{} {wanted:?} successfully rolled out", kind.singular);
        }
        Ok(())
    }
}

fn is_rolled_out(deployment: &Value) -> bool {
    let wanted = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    deployment["status"]["availableReplicas"]
        .as_u64()
        .unwrap_or(0)
        >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("1m30s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert!(duration("30").is_err() && duration("soon").is_err());
    }
}
