//! Decides: which thresholds are met, for how long, what conditions follow, and what is to be reclaimed first.

use std::time::Duration;

use tokio::time::Instant;

use super::signals::Signals;
use crate::agent::node_info::Pressure;
use crate::config::eviction::{Signal, Threshold};

/// What one look leaves for the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Thresholds that are met, and since when.
    since: Vec<(Threshold, Instant)>,
    /// Thresholds that were met for longer than their grace, until so much more is left as they ask for.
    unresolved: Vec<Threshold>,
    memory_seen: Option<Instant>,
    disk_seen: Option<Instant>,
    pid_seen: Option<Instant>,
}

pub struct Decision {
    pub state: State,
    pub pressure: Pressure,
    /// Met for longer than their grace; the one to act on is the first.
    pub starved: Vec<Threshold>,
}

/// Conditions that show that too little is left are kept for `transition` after that was last so.
#[must_use]
pub fn decide(
    before: &State,
    thresholds: &[Threshold],
    signals: &Signals,
    transition: Duration,
    now: Instant,
) -> Decision {
    let mut all = met(thresholds, signals, false);
    for threshold in met(&before.unresolved, signals, true) {
        if !all.contains(&threshold) {
            all.push(threshold);
        }
    }
    let since = |threshold: &Threshold| {
        let known = before.since.iter().find(|(known, _)| known == threshold);
        known.map_or(now, |(_, since)| *since)
    };
    let since: Vec<(Threshold, Instant)> = all.iter().map(|threshold| (*threshold, since(threshold))).collect();
    let seen = |condition: Condition, last: Option<Instant>| {
        if all.iter().any(|threshold| Condition::of(threshold.signal) == condition) { Some(now) } else { last }
    };
    let memory_seen = seen(Condition::Memory, before.memory_seen);
    let disk_seen = seen(Condition::Disk, before.disk_seen);
    let pid_seen = seen(Condition::Pid, before.pid_seen);
    let holds = |seen: Option<Instant>| seen.is_some_and(|at| at == now || now.duration_since(at) < transition);
    let mut starved: Vec<Threshold> = since
        .iter()
        .filter(|(threshold, at)| now.duration_since(*at) >= threshold.grace)
        .map(|(threshold, _)| *threshold)
        .collect();
    let unresolved = starved.clone();
    // Memory first: what is out of it cannot even clean up.
    starved.sort_by_key(|threshold| Condition::of(threshold.signal) != Condition::Memory);
    Decision {
        pressure: Pressure { memory: holds(memory_seen), disk: holds(disk_seen), pid: holds(pid_seen) },
        state: State { since, unresolved, memory_seen, disk_seen, pid_seen },
        starved,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Memory,
    Disk,
    Pid,
}

impl Condition {
    fn of(signal: Signal) -> Condition {
        match signal {
            Signal::MemoryAvailable | Signal::AllocatableMemoryAvailable => Condition::Memory,
            Signal::PidAvailable => Condition::Pid,
            _ => Condition::Disk,
        }
    }
}

/// The thresholds that are met; with `reclaimed` until there is so much more as they ask for.
#[must_use]
pub fn met(thresholds: &[Threshold], signals: &Signals, reclaimed: bool) -> Vec<Threshold> {
    let is_met = |threshold: &&Threshold| {
        let Some(observed) = signals.get(&threshold.signal) else { return false };
        let more = threshold.min_reclaim.filter(|_| reclaimed).map_or(0, |more| more.of(observed.capacity));
        observed.available < threshold.value.of(observed.capacity).saturating_add(more)
    };
    thresholds.iter().filter(is_met).copied().collect()
}

/// Whether memory is near one of its thresholds: less than as much again is left.
#[must_use]
pub fn is_near(thresholds: &[Threshold], signals: &Signals) -> bool {
    thresholds.iter().filter(|threshold| Condition::of(threshold.signal) == Condition::Memory).any(|threshold| {
        let near = |o: &super::signals::Observation| o.available < threshold.value.of(o.capacity).saturating_mul(2);
        signals.get(&threshold.signal).is_some_and(near)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::eviction::signals::Observation;
    use crate::config::eviction::Amount;

    fn threshold(signal: Signal, value: Amount, grace: u64, min_reclaim: Option<Amount>) -> Threshold {
        Threshold { signal, value, grace: Duration::from_secs(grace), min_reclaim }
    }

    /// Looks at `(second, available)` of a signal of capacity 1000, and what is seen of each.
    fn check(thresholds: &[Threshold], signal: Signal, looks: &[(u64, i64, &str)]) {
        let began = crate::clock::instant();
        let mut state = State::default();
        for (second, available, expect) in looks {
            let signals = Signals::from([(signal, Observation { available: *available, capacity: 1000 })]);
            let now = began + Duration::from_secs(*second);
            let decision = decide(&state, thresholds, &signals, Duration::from_secs(300), now);
            state = decision.state;
            let flag = |on: bool, name: &'static str| if on { name } else { "" };
            let p = decision.pressure;
            let starved: Vec<&str> = decision.starved.iter().map(|t| t.signal.as_str()).collect();
            let text =
                format!("{}{}{} {}", flag(p.memory, "M"), flag(p.disk, "D"), flag(p.pid, "P"), starved.join(","));
            assert_eq!(text.trim(), *expect, "at {second}s with {available}");
        }
    }

    #[test]
    fn a_hard_threshold_acts_at_once_and_its_condition_stays_for_the_transition() {
        let hard = threshold(Signal::MemoryAvailable, Amount::Units(100), 0, None);
        let looks = [
            (0, 500, ""),
            (10, 100, ""),
            (20, 99, "M memory.available"),
            (30, 100, "M"),
            (319, 500, "M"),
            (320, 500, ""),
        ];
        check(&[hard], Signal::MemoryAvailable, &looks);
    }

    #[test]
    fn a_soft_threshold_waits_for_its_grace() {
        let soft = threshold(Signal::MemoryAvailable, Amount::Percent(10.0), 90, None);
        let looks = [
            (0, 50, "M"),
            (80, 50, "M"),
            (85, 200, "M"),
            (90, 50, "M"),
            (179, 50, "M"),
            (180, 50, "M memory.available"),
        ];
        check(&[soft], Signal::MemoryAvailable, &looks);
    }

    #[test]
    fn what_was_met_stays_met_until_enough_was_reclaimed() {
        let hard = threshold(Signal::NodefsAvailable, Amount::Percent(5.0), 0, Some(Amount::Percent(10.0)));
        let looks = [
            (0, 60, ""),
            (10, 49, "D nodefs.available"),
            (20, 149, "D nodefs.available"),
            (30, 150, "D"),
            (40, 60, "D"),
        ];
        check(&[hard], Signal::NodefsAvailable, &looks);
    }

    #[test]
    fn memory_comes_first_and_what_cannot_be_read_is_not_met() {
        let all = [
            threshold(Signal::PidAvailable, Amount::Units(10), 0, None),
            threshold(Signal::NodefsInodesFree, Amount::Units(10), 0, None),
            threshold(Signal::MemoryAvailable, Amount::Units(10), 0, None),
            threshold(Signal::ImagefsAvailable, Amount::Units(10), 0, None),
        ];
        let low = Observation { available: 1, capacity: 1000 };
        let signals =
            [Signal::PidAvailable, Signal::NodefsInodesFree, Signal::MemoryAvailable].map(|s| (s, low)).into();
        let decision = decide(&State::default(), &all, &signals, Duration::ZERO, crate::clock::instant());
        let starved: Vec<Signal> = decision.starved.iter().map(|t| t.signal).collect();
        assert_eq!(starved, [Signal::MemoryAvailable, Signal::PidAvailable, Signal::NodefsInodesFree]);
        assert_eq!(decision.pressure, Pressure { memory: true, disk: true, pid: true }, "also with no transition");
    }

    #[test]
    fn memory_is_watched_closely_when_it_is_nearly_short() {
        let all = [
            threshold(Signal::MemoryAvailable, Amount::Units(100), 0, None),
            threshold(Signal::NodefsAvailable, Amount::Units(500), 0, None),
        ];
        for (available, near) in [(199, true), (200, false)] {
            let seen = Observation { available, capacity: 1000 };
            let signals = [(Signal::MemoryAvailable, seen), (Signal::NodefsAvailable, seen)].into();
            assert_eq!(is_near(&all, &signals), near, "{available}");
        }
    }
}
