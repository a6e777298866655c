//! A time-out that stands still while the user is being asked.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How long somebody is ready to wait from now on, for all stages together, not counting pauses.
#[derive(Debug)]
pub(super) struct Patience {
    start: Instant,
    limit: Duration,
    pauses: Mutex<Pauses>,
    resumed: Notify,
}

#[derive(Debug, Default)]
struct Pauses {
    running_since: Option<Instant>,
    total: Duration,
}

/// The time-out ran out.
#[derive(Debug)]
pub(super) struct Exhausted;

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            start: Instant::now(),
            limit,
            pauses: Mutex::default(),
            resumed: Notify::new(),
        }
    }

    /// The limit, for messages.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    fn pauses(&self) -> std::sync::MutexGuard<'_, Pauses> {
        self.pauses
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Runs a blocking question off the async threads with the clock stopped. `None` if it panicked.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.pauses().running_since = Some(Instant::now());
        let answer = tokio::task::spawn_blocking(question).await.ok();
        let mut pauses = self.pauses();
        if let Some(since) = pauses.running_since.take() {
            pauses.total += since.elapsed();
        }
        drop(pauses);
        self.resumed.notify_one();
        answer
    }

    /// When patience ends; `None` while the clock stands still.
    fn deadline(&self) -> Option<Instant> {
        let pauses = self.pauses();
        pauses
            .running_since
            .is_none()
            .then(|| self.start + self.limit + pauses.total)
    }

    /// Waits for `work` as long as patience lasts.
    pub(super) async fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Exhausted> {
        tokio::pin!(work);
        loop {
            match self.deadline() {
                Some(deadline) => tokio::select! {
                    biased;
                    done = &mut work => return Ok(done),
                    // A question that was asked meanwhile has moved the deadline.
                    () = tokio::time::sleep_until(deadline) => {
                        if self.deadline() == Some(deadline) {
                            return Err(Exhausted);
                        }
                    }
                },
                None => tokio::select! {
                    biased;
                    done = &mut work => return Ok(done),
                    () = self.resumed.notified() => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_question_does_not_count() {
        let patience = Patience::new(Duration::ZERO);
        let asked = patience.wait(patience.ask(|| "answered")).await;
        assert_eq!(asked.ok().flatten(), Some("answered"));
    }

    #[tokio::test]
    async fn work_without_end_is_given_up() {
        let patience = Patience::new(Duration::from_millis(1));
        assert!(patience.wait(std::future::pending::<()>()).await.is_err());
    }
}
