//! Decides: whether an exited container runs again, and when.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Role, pod_spec};

const FIRST: SignedDuration = SignedDuration::from_secs(10);
const LONGEST: SignedDuration = SignedDuration::from_secs(300);
/// A key that saw no failure for this long starts again at the beginning.
const FORGIVEN: SignedDuration = SignedDuration::from_secs(600);

/// Doubling delays per key, as client-go's `flowcontrol.Backoff`: nothing at first, then 10 s up to 300 s.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    entries: BTreeMap<String, Delay>,
}

#[derive(Clone, Copy, Debug)]
struct Delay {
    delay: SignedDuration,
    updated: Timestamp,
}

impl Backoff {
    /// The delay that applies to a failure at `since`, and when it ends; `None` when it has ended.
    #[must_use]
    pub fn waiting(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<(SignedDuration, Timestamp)> {
        let entry = self.entries.get(key)?;
        if since.duration_since(entry.updated) > FORGIVEN {
            return None;
        }
        let until = since.checked_add(entry.delay).ok()?;
        (now < until).then_some((entry.delay, until))
    }

    /// Notes one more try after a failure at `since`.
    pub fn advance(&mut self, key: &str, since: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if since.duration_since(entry.updated) <= FORGIVEN => (entry.delay * 2).min(LONGEST),
            _ => FIRST,
        };
        self.entries.insert(key.to_owned(), Delay { delay, updated: now });
    }

    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

/// `10s`, `1m20s`, as Go prints durations.
#[must_use]
pub fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

/// Whether a container that exited with `exit_code` is to run again.
#[must_use]
pub fn restarts(pod: &Pod, role: Role, container: &Container, exit_code: i32) -> bool {
    if let Some(rule) = matching_rule(container, exit_code) {
        return rule == "Restart" || rule == "RestartAllContainers";
    }
    match role {
        Role::Sidecar => true,
        Role::Ephemeral => false,
        Role::Init => exit_code != 0 && policy(pod, container) != "Never",
        Role::App => match policy(pod, container) {
            "Never" => false,
            "OnFailure" => exit_code != 0,
            _ => true,
        },
    }
}

/// Whether a container that is stopped, not one that ended, may run again: no exit code says anything there.
#[must_use]
pub fn may_run_again(pod: &Pod, container: &Container) -> bool {
    policy(pod, container) != "Never"
}

/// Containers may name a policy of their own (KEP-5307); the pod's is the default.
fn policy<'a>(pod: &'a Pod, container: &'a Container) -> &'a str {
    let own = container.restart_policy.as_deref().filter(|policy| !policy.is_empty());
    own.or(pod_spec(pod).restart_policy.as_deref()).unwrap_or("Always")
}

/// What the first of the container's own rules that knows the exit code asks for.
#[must_use]
pub fn matching_rule(container: &Container, exit_code: i32) -> Option<&str> {
    container.restart_policy_rules.iter().flatten().find_map(|rule| {
        let codes = rule.exit_codes.as_ref()?;
        let listed = codes.values.iter().flatten().any(|value| *value == exit_code);
        let matches = match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        matches.then_some(rule.action.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("small number")
    }

    #[test]
    fn delays_double_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut now = at(1000);
        let mut delays = Vec::new();
        for _ in 0..8 {
            let waiting = backoff.waiting("c", now, now);
            delays.push(waiting.map_or(0, |(delay, _)| delay.as_secs()));
            now = waiting.map_or(now, |(_, until)| until);
            backoff.advance("c", now, now);
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn delay_ends_and_is_forgiven_after_ten_minutes() {
        let mut backoff = Backoff::default();
        backoff.advance("c", at(0), at(0));
        backoff.advance("c", at(10), at(10));
        assert_eq!(backoff.waiting("c", at(20), at(39)), Some((SignedDuration::from_secs(20), at(40))));
        assert_eq!(backoff.waiting("c", at(20), at(40)), None);
        assert_eq!(backoff.waiting("c", at(611), at(611)), None);
        backoff.advance("c", at(611), at(611));
        assert_eq!(backoff.waiting("c", at(611), at(612)), Some((FIRST, at(621))));
    }

    #[test]
    fn policies() {
        let table = [
            ("Always", Role::App, 0, true),
            ("OnFailure", Role::App, 0, false),
            ("OnFailure", Role::App, 1, true),
            ("Never", Role::App, 1, false),
            ("Always", Role::Init, 0, false),
            ("Always", Role::Init, 1, true),
            ("Never", Role::Init, 1, false),
            ("Never", Role::Sidecar, 0, true),
        ];
        for (policy, role, code, expect) in table {
            let mut pod = Pod::default();
            pod.spec.get_or_insert_default().restart_policy = Some(policy.into());
            let own = (role == Role::Sidecar).then(|| "Always".to_owned());
            let container = Container { restart_policy: own, ..Container::default() };
            assert_eq!(restarts(&pod, role, &container, code), expect, "{policy} {role:?} {code}");
        }
    }

    #[test]
    fn rules_come_before_the_policy() {
        let mut pod = Pod::default();
        pod.spec.get_or_insert_default().restart_policy = Some("Never".into());
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "restartPolicy": "Never",
            "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}],
        }))
        .expect("valid");
        assert!(restarts(&pod, Role::App, &container, 42));
        assert!(!restarts(&pod, Role::App, &container, 1));
    }
}
