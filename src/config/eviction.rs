//! Types: when the node is short of something, as the kubelet's `eviction-hard`, `eviction-soft` and their companions
//! say it. Parsed here, judged by the agent.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::api::duration;
use crate::api::quantity::Quantity;

/// What is measured. `containerfs.*` has no row: it follows from the others (KEP-4191), and upstream ignores it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    MemoryAvailable,
    /// Of what pods may use together: less than the machine's when some is reserved.
    AllocatableMemoryAvailable,
    NodefsAvailable,
    NodefsInodesFree,
    ImagefsAvailable,
    ImagefsInodesFree,
    PidAvailable,
}

impl Signal {
    pub const ALL: [Signal; 7] = [
        Signal::MemoryAvailable,
        Signal::AllocatableMemoryAvailable,
        Signal::NodefsAvailable,
        Signal::NodefsInodesFree,
        Signal::ImagefsAvailable,
        Signal::ImagefsInodesFree,
        Signal::PidAvailable,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Signal::MemoryAvailable => "memory.available",
            Signal::AllocatableMemoryAvailable => "allocatableMemory.available",
            Signal::NodefsAvailable => "nodefs.available",
            Signal::NodefsInodesFree => "nodefs.inodesFree",
            Signal::ImagefsAvailable => "imagefs.available",
            Signal::ImagefsInodesFree => "imagefs.inodesFree",
            Signal::PidAvailable => "pid.available",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// So much, or such a part of all there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    Units(i64),
    Percent(f64),
    /// The first, but never more than the second: what is little on a large machine is much on a small one.
    Capped(i64, f64),
}

impl Amount {
    /// In the signal's units, when there are this many in all.
    #[must_use]
    pub fn of(self, capacity: i64) -> i64 {
        match self {
            Amount::Units(units) => units,
            Amount::Capped(units, percent) => units.min(Amount::Percent(percent).of(capacity)),
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "a share need not be exact"
            )]
            Amount::Percent(percent) => (capacity as f64 * percent / 100.0) as i64,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    /// Met when less than this is left.
    pub value: Amount,
    /// Zero for a hard one.
    pub grace: Duration,
    /// Once met, it stays met until there is so much more.
    pub min_reclaim: Option<Amount>,
}

impl Threshold {
    #[must_use]
    pub fn is_hard(&self) -> bool {
        self.grace.is_zero()
    }
}

const DEFAULT_HARD: &str = "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,imagefs.available<5%,\
                            imagefs.inodesFree<5%";
/// The default threshold of memory is at most this part of it, so that a board of 512 MB keeps most of it for pods.
const MEMORY_PERCENT: f64 = 5.0;

/// The thresholds as somebody wrote them, before they are put together.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub hard: String,
    pub soft: String,
    pub soft_grace: String,
    pub min_reclaim: String,
}

impl Default for Written {
    /// The kubelet's, with k3s's idea of a full disk: 5 % instead of 10 and 15, until 10 % are free again.
    fn default() -> Self {
        Self {
            hard: DEFAULT_HARD.into(),
            soft: String::new(),
            soft_grace: String::new(),
            min_reclaim: "nodefs.available=10%,imagefs.available=10%".into(),
        }
    }
}

impl Written {
    /// All thresholds, hard ones first; every problem is added to `problems`.
    pub(super) fn thresholds(&self, problems: &mut Vec<String>) -> Vec<Threshold> {
        let grace = parse("eviction-soft-grace-period", &self.soft_grace, '=', problems, duration);
        let reclaim = parse("eviction-minimum-reclaim", &self.min_reclaim, '=', problems, |text| amount(text, true));
        let hard = parse("eviction-hard", &self.hard, '<', problems, |text| amount(text, false));
        let soft = parse("eviction-soft", &self.soft, '<', problems, |text| amount(text, false));
        let mut all = Vec::new();
        let make =
            |signal, value, grace| Threshold { signal, value, grace, min_reclaim: reclaim.get(&signal).copied() };
        // A share of nothing or of all switches the threshold off.
        let counts = |value: &Amount| !matches!(value, Amount::Percent(share) if *share <= 0.0 || *share >= 100.0);
        for (signal, mut value) in hard.into_iter().filter(|(_, value)| counts(value)) {
            if let (Signal::MemoryAvailable, Amount::Units(units), DEFAULT_HARD) = (signal, value, &*self.hard) {
                value = Amount::Capped(units, MEMORY_PERCENT);
            }
            all.push(make(signal, value, Duration::ZERO));
            if signal == Signal::MemoryAvailable {
                all.push(make(Signal::AllocatableMemoryAvailable, value, Duration::ZERO));
            }
        }
        for (signal, value) in soft.into_iter().filter(|(_, value)| counts(value)) {
            match grace.get(&signal) {
                Some(period) => all.push(make(signal, value, *period)),
                None => problems.push(format!(
                    "--kubelet-arg=eviction-soft: grace period must be specified for the soft eviction threshold {signal}"
                )),
            }
        }
        all
    }
}

/// `signal<value,signal<value`
fn parse<T>(
    name: &str,
    text: &str,
    separator: char,
    problems: &mut Vec<String>,
    value: impl Fn(&str) -> Result<T, String>,
) -> BTreeMap<Signal, T> {
    let mut found = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let mut complain = |why: String| problems.push(format!("--kubelet-arg={name}: {part}: {why}"));
        let Some((signal, rest)) = part.split_once(separator) else {
            complain(format!("not signal{separator}value"));
            continue;
        };
        if signal.starts_with("containerfs.") {
            continue;
        }
        let known = Signal::ALL.into_iter().find(|known| known.as_str() == signal);
        match (known, value(rest)) {
            (None, _) => complain(format!("unsupported eviction signal {signal}")),
            (_, Err(why)) => complain(why),
            (Some(signal), Ok(value)) => {
                found.insert(signal, value);
            }
        }
    }
    found
}

/// As Go writes it, and not before now.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let nanoseconds = duration::parse(text)?;
    u64::try_from(nanoseconds).map(Duration::from_nanos).map_err(|_| format!("{text}: must not be negative"))
}

fn amount(text: &str, may_be_zero: bool) -> Result<Amount, String> {
    if let Some(share) = text.strip_suffix('%') {
        let share: f64 = share.parse().map_err(|_| "not a percentage".to_owned())?;
        return match (0.0..=100.0).contains(&share) {
            true => Ok(Amount::Percent(share)),
            false => Err("must be from 0% to 100%".into()),
        };
    }
    let quantity = Quantity::parse(text).map_err(|error| error.to_string())?;
    if quantity.is_negative() || (quantity.is_zero() && !may_be_zero) {
        return Err("must be positive".into());
    }
    Ok(Amount::Units(quantity.value()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thresholds(written: &Written) -> (Vec<String>, Vec<String>) {
        let mut problems = Vec::new();
        let all = written.thresholds(&mut problems);
        let show = |t: &Threshold| format!("{} {:?} {:?} {:?}", t.signal, t.value, t.grace, t.min_reclaim);
        (all.iter().map(show).collect(), problems)
    }

    #[test]
    fn defaults_are_the_kubelets_with_the_disk_of_k3s() {
        let (found, problems) = thresholds(&Written::default());
        let expect = [
            "memory.available Capped(104857600, 5.0) 0ns None",
            "allocatableMemory.available Capped(104857600, 5.0) 0ns None",
            "nodefs.available Percent(5.0) 0ns Some(Percent(10.0))",
            "nodefs.inodesFree Percent(5.0) 0ns None",
            "imagefs.available Percent(5.0) 0ns Some(Percent(10.0))",
            "imagefs.inodesFree Percent(5.0) 0ns None",
        ];
        assert_eq!((found, problems), (expect.map(str::to_owned).to_vec(), vec![]));
        let memory = Written::default().thresholds(&mut Vec::new())[0].value;
        assert_eq!((memory.of(512 << 20), memory.of(8 << 30)), ((512 << 20) / 20, 100 << 20));
    }

    #[test]
    fn soft_ones_need_a_grace_period_and_every_problem_is_told() {
        let written = Written {
            hard: "memory.available<0%,pid.available<10".into(),
            soft: "nodefs.available<1Gi,memory.available<20%".into(),
            soft_grace: "memory.available=1m30s,nodefs.available=soon".into(),
            min_reclaim: "cpu=3,memory.available=0".into(),
        };
        let (found, problems) = thresholds(&written);
        let expect = ["pid.available Units(10) 0ns None", "memory.available Percent(20.0) 90s Some(Units(0))"];
        assert_eq!(found, expect);
        assert_eq!(problems.len(), 3, "{problems:#?}");
    }
}
