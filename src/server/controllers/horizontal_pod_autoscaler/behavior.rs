//! Decides: what of a recommendation is carried out now: not what may be undone in a minute, and not too fast.
//!
//! ```text
//! recommended ─▶ stabilized: within the highest and lowest of what was recommended in the windows
//!             ─▶ limited: by policies, or to twice as many (at least four) without any; by the least and the most
//! ```

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// How long a recommendation to have more counts against having less, unless something else is said
/// (`--horizontal-pod-autoscaler-downscale-stabilization`).
const DOWNSCALE_WINDOW_SECONDS: i32 = 300;
/// Without a behavior, so many times as many at once, and so many at least.
const UP_FACTOR: i32 = 2;
const UP_LEAST: i32 = 4;
/// Entries of one list: the longest window is an hour, a round takes 15 seconds at least.
const REMEMBERED: usize = 256;

/// What was recommended and what was done, with the time. Lost when the process ends, as upstream: what is there then
/// counts as recommended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    recommended: Vec<(Timestamp, i32)>,
    added: Vec<(Timestamp, i32)>,
    removed: Vec<(Timestamp, i32)>,
}

impl History {
    /// What is there when nothing is known of the past.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((now, current));
        }
    }

    /// Keeps what has been done, for as long as a policy looks back.
    pub fn scaled(&mut self, behavior: Option<&HorizontalPodAutoscalerBehavior>, from: i32, to: i32, now: Timestamp) {
        let Some(behavior) = behavior else { return };
        let (list, rules) =
            if to > from { (&mut self.added, &behavior.scale_up) } else { (&mut self.removed, &behavior.scale_down) };
        let longest = policies(rules.as_ref()).iter().map(|p| p.period_seconds).max().unwrap_or(0);
        remember(list, (to.saturating_sub(from)).saturating_abs(), longest, now);
    }
}

fn remember(list: &mut Vec<(Timestamp, i32)>, entry: i32, seconds: i32, now: Timestamp) {
    list.retain(|(at, _)| (0..=i64::from(seconds)).contains(&age(*at, now)));
    if list.len() >= REMEMBERED {
        list.remove(0);
    }
    list.push((now, entry));
}

/// In whole seconds, rounded up; negative when the clock was set back.
fn age(at: Timestamp, now: Timestamp) -> i64 {
    let age = now.duration_since(at);
    age.as_secs() + i64::from(age.subsec_nanos() > 0)
}

/// Within the last seconds. What the clock has not come to yet is of before it was set back.
fn within(at: Timestamp, seconds: i32, now: Timestamp) -> bool {
    let age = now.duration_since(at);
    !age.is_negative() && age < SignedDuration::from_secs(i64::from(seconds))
}

/// What there is, and what there may be.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub current: i32,
    pub least: i32,
    pub most: i32,
}

/// Reason and message of a condition.
pub type Why = (&'static str, &'static str);

#[derive(Debug, PartialEq)]
pub struct Allowed {
    pub replicas: i32,
    /// Of `AbleToScale`, which is true.
    pub able: Why,
    /// Of `ScalingLimited`.
    pub limited: bool,
    pub limit: Why,
}

const READY: Why = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: Why = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABILIZED: Why = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const IN_RANGE: Why = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: Why = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: Why = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: Why = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Why =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

/// What may be done of `recommended`, which is remembered.
pub fn allowed(
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    history: &mut History,
    recommended: i32,
    bounds: Bounds,
    now: Timestamp,
) -> Allowed {
    let (stabilized, why) = stabilize(behavior, history, recommended, bounds.current, now);
    let (replicas, limit) = match behavior {
        Some(behavior) => by_policies(behavior, history, stabilized, bounds, now),
        None => by_factor(stabilized, bounds),
    };
    let able = if stabilized == recommended { READY } else { why };
    Allowed { replicas, able, limited: replicas != stabilized, limit }
}

fn stabilize(
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    history: &mut History,
    recommended: i32,
    current: i32,
    now: Timestamp,
) -> (i32, Why) {
    let window = |rules: Option<&HPAScalingRules>| rules.and_then(|r| r.stabilization_window_seconds);
    let up = behavior.map(|b| window(b.scale_up.as_ref()).unwrap_or(0));
    let down = behavior.and_then(|b| window(b.scale_down.as_ref())).unwrap_or(DOWNSCALE_WINDOW_SECONDS);
    let past =
        |seconds: i32| history.recommended.iter().filter(move |(at, _)| within(*at, seconds, now)).map(|(_, n)| *n);
    let highest = past(down).fold(recommended, i32::max);
    let stabilized = match up {
        Some(up) => current.max(past(up).fold(recommended, i32::min)).min(highest),
        None => highest,
    };
    remember(&mut history.recommended, recommended, down.max(up.unwrap_or(0)), now);
    let upwards = behavior.is_some() && recommended >= current;
    (stabilized, if upwards { UP_STABILIZED } else { DOWN_STABILIZED })
}

/// Many more at once than there are would follow from measurements that are wrong.
fn by_factor(wanted: i32, bounds: Bounds) -> (i32, Why) {
    let limit = bounds.current.saturating_mul(UP_FACTOR).max(UP_LEAST);
    if wanted < bounds.least {
        (bounds.least, TOO_FEW)
    } else if wanted > limit.min(bounds.most) {
        if bounds.most > limit { (limit, UP_LIMIT) } else { (bounds.most, TOO_MANY) }
    } else {
        (wanted, IN_RANGE)
    }
}

fn by_policies(
    behavior: &HorizontalPodAutoscalerBehavior,
    history: &History,
    wanted: i32,
    bounds: Bounds,
    now: Timestamp,
) -> (i32, Why) {
    if wanted > bounds.current {
        let limit = limit(behavior.scale_up.as_ref(), true, history, bounds.current, now).max(bounds.current);
        let (most, why) = if bounds.most > limit { (limit, UP_LIMIT) } else { (bounds.most, TOO_MANY) };
        if wanted > most {
            return (most, why);
        }
    } else if wanted < bounds.current {
        let limit = limit(behavior.scale_down.as_ref(), false, history, bounds.current, now).min(bounds.current);
        let (least, why) = if bounds.least < limit { (limit, DOWN_LIMIT) } else { (bounds.least, TOO_FEW) };
        if wanted < least {
            return (least, why);
        }
    }
    (wanted, IN_RANGE)
}

/// The API server fills in what is not said.
fn policies(rules: Option<&HPAScalingRules>) -> &[HPAScalingPolicy] {
    rules.and_then(|r| r.policies.as_deref()).unwrap_or_default()
}

/// How many there may be at most, or at least, by what there was when the period of each policy began.
fn limit(rules: Option<&HPAScalingRules>, up: bool, history: &History, current: i32, now: Timestamp) -> i32 {
    let select = rules.and_then(|r| r.select_policy.as_deref()).unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let limits = policies(rules).iter().map(|policy| {
        let changed = |list: &[(Timestamp, i32)]| {
            let recent = list.iter().filter(|(at, _)| within(*at, policy.period_seconds, now));
            recent.fold(0_i32, |sum, (_, n)| sum.saturating_add(*n))
        };
        let start = current.saturating_sub(changed(&history.added)).saturating_add(changed(&history.removed));
        match (&*policy.type_, up) {
            ("Percent", true) => nearest((f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil()),
            ("Percent", false) => nearest(f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)),
            (_, true) => start.saturating_add(policy.value),
            (_, false) => start.saturating_sub(policy.value),
        }
    });
    // The policy that changes least, or most.
    let found = if (select == "Min") == up { limits.min() } else { limits.max() };
    found.unwrap_or(current)
}

#[allow(clippy::cast_possible_truncation, reason = "`as` rounds towards zero, as upstream, and takes the nearest")]
fn nearest(n: f64) -> i32 {
    n as i32
}
