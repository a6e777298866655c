//! Whether a pod needs a new sandbox, and with which attempt: the number at the end of its name, which containerd reserves.

use crate::cri::PodSandbox;

/// The first kubelet that goes by the attempt and not by the time of creation, which a clock that went back makes
/// wrong (domain.md §5.1, cause A).
const BY_ATTEMPT: u32 = 35;

/// The attempt of a sandbox to be made, if one is needed.
pub fn needed(minor: u32, sandboxes: &[PodSandbox]) -> Option<u32> {
    let age = |sandbox: &&PodSandbox| {
        let attempt = i64::from(sandbox.pod().attempt);
        if minor >= BY_ATTEMPT {
            (attempt, sandbox.created_at)
        } else {
            (sandbox.created_at, attempt)
        }
    };
    let Some(latest) = sandboxes.iter().max_by_key(age) else {
        return Some(0);
    };
    let ready = sandboxes
        .iter()
        .filter(|sandbox| sandbox.is_ready())
        .count();
    (ready > 1 || !latest.is_ready()).then(|| latest.pod().attempt + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::{PodSandboxMetadata, SANDBOX_NOTREADY, SANDBOX_READY};

    fn sandbox(attempt: u32, created_at: i64, state: i32) -> PodSandbox {
        PodSandbox {
            metadata: Some(PodSandboxMetadata {
                attempt,
                ..PodSandboxMetadata::default()
            }),
            created_at,
            state,
            ..PodSandbox::default()
        }
    }

    #[test]
    fn a_pod_without_a_live_sandbox_gets_the_next_attempt() {
        for minor in [34, 36] {
            assert_eq!(needed(minor, &[]), Some(0));
            let live = sandbox(0, 10, SANDBOX_READY);
            assert_eq!(needed(minor, &[live]), None);
            let dead = sandbox(0, 10, SANDBOX_NOTREADY);
            assert_eq!(needed(minor, std::slice::from_ref(&dead)), Some(1));
            let again = sandbox(1, 20, SANDBOX_READY);
            assert_eq!(needed(minor, &[dead, again.clone()]), None);
            let twin = sandbox(0, 15, SANDBOX_READY);
            assert_eq!(needed(minor, &[again, twin]), Some(2));
        }
    }

    #[test]
    fn after_a_clock_that_went_back_only_an_old_kubelet_takes_a_name_that_is_taken() {
        let before = sandbox(0, 100, SANDBOX_NOTREADY);
        let after = sandbox(1, 50, SANDBOX_NOTREADY);
        let both = [before, after];
        assert_eq!(needed(34, &both), Some(1));
        assert_eq!(needed(35, &both), Some(2));
    }
}
