//! Decides: a range of numbers (addresses, ports) of which each has at most one owner.
//!
//! ```text
//! free ──reserve──▶ pending ──keep──▶ held by an object ──release by that object──▶ free
//!                      └────drop─────────────────────────────────────────────────▶ free
//! ```
//!
//! The lower part of a range is for explicit use: numbers that the pool chooses come from the upper part until that
//! is full, so that a chosen one seldom takes what someone is about to ask for (KEP-3070, KEP-3668).

use std::collections::{BTreeSet, HashMap};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    /// The reservation with this number has not been kept yet.
    Pending(u64),
    /// The object with this uid.
    Held(Box<str>),
}

/// Numbers from `first` to `last`, both inclusive.
#[derive(Debug)]
pub struct Pool {
    first: u32,
    last: u32,
    /// The first number of the upper part.
    upper: u32,
    owners: HashMap<u32, Owner>,
    /// Never chosen, but may be asked for.
    explicit: BTreeSet<u32>,
}

impl Pool {
    /// `lower` is how many numbers at the start are for explicit use.
    #[must_use]
    pub fn new(first: u32, last: u32, lower: u32, explicit: impl IntoIterator<Item = u32>) -> Self {
        let upper = first.saturating_add(lower).min(last);
        Self { first, last, upper, owners: HashMap::new(), explicit: explicit.into_iter().collect() }
    }

    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        (self.first..=self.last).contains(&number)
    }

    /// Takes a number for an object that exists. The first one keeps it.
    pub fn restore(&mut self, number: u32, uid: &str) {
        if self.contains(number) {
            self.owners.entry(number).or_insert_with(|| Owner::Held(uid.into()));
        }
    }

    /// Takes this number; false when it has an owner.
    #[must_use]
    pub fn reserve(&mut self, number: u32, reservation: u64) -> bool {
        match self.owners.get(&number) {
            None => {
                self.owners.insert(number, Owner::Pending(reservation));
                true
            }
            Some(_) => false,
        }
    }

    /// Takes any free number, looking from `seed` on; none when all have owners.
    #[must_use]
    pub fn choose(&mut self, seed: u32, reservation: u64) -> Option<u32> {
        let free = |n: &u32| !self.owners.contains_key(n) && !self.explicit.contains(n);
        let from = |low: u32, high: u32| {
            let size = u64::from(high) - u64::from(low) + 1;
            #[allow(clippy::cast_possible_truncation, reason = "a remainder below the size of the range")]
            let start = low + (u64::from(seed) % size) as u32;
            (start..=high).chain(low..start).find(free)
        };
        let lower = if self.upper > self.first { from(self.first, self.upper - 1) } else { None };
        let number = from(self.upper, self.last).or(lower)?;
        self.owners.insert(number, Owner::Pending(reservation));
        Some(number)
    }

    /// The object was written: what was reserved for it is its own now.
    pub fn keep(&mut self, number: u32, reservation: u64, uid: &str) {
        if let Some(owner) = self.owners.get_mut(&number)
            && *owner == Owner::Pending(reservation)
        {
            *owner = Owner::Held(uid.into());
        }
    }

    /// Gives back what was reserved and not kept.
    pub fn forget(&mut self, number: u32, reservation: u64) {
        if self.owners.get(&number) == Some(&Owner::Pending(reservation)) {
            self.owners.remove(&number);
        }
    }

    /// Gives back what the object holds.
    pub fn release(&mut self, number: u32, uid: &str) {
        if matches!(self.owners.get(&number), Some(Owner::Held(owner)) if **owner == *uid) {
            self.owners.remove(&number);
        }
    }

    #[must_use]
    pub fn held_by(&self, number: u32, uid: &str) -> bool {
        matches!(self.owners.get(&number), Some(Owner::Held(owner)) if **owner == *uid)
    }
}

/// How many numbers of a range of `size` are for explicit use: a `step`th, at least `least` and at most `most`.
#[must_use]
pub fn lower_band(size: u32, least: u32, most: u32, step: u32) -> u32 {
    if size < least { 0 } else { (size / step).clamp(least, most) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn chooses_from_the_upper_part_first() {
        let mut pool = Pool::new(10, 15, 2, [13]);
        let chosen: Vec<Option<u32>> = (0..7).map(|i| pool.choose(3, i)).collect();
        assert_eq!(chosen, [Some(15), Some(12), Some(14), Some(11), Some(10), None, None]);
        assert!(pool.reserve(13, 9));
        assert!(!pool.reserve(13, 10));
    }

    #[test]
    fn bands() {
        assert_eq!(lower_band(2768, 16, 128, 32), 86);
        assert_eq!(lower_band(65534, 16, 256, 16), 256);
        assert_eq!(lower_band(8, 16, 256, 16), 0);
    }

    #[test]
    fn only_the_owner_gives_back() {
        let mut pool = Pool::new(1, 4, 0, []);
        assert!(pool.reserve(1, 7));
        pool.keep(1, 8, "a");
        pool.forget(1, 8);
        assert!(!pool.reserve(1, 9));
        pool.keep(1, 7, "a");
        pool.release(1, "b");
        pool.forget(1, 7);
        assert!(pool.held_by(1, "a"));
        pool.release(1, "a");
        assert!(pool.reserve(1, 9));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Choose(u32),
        Reserve(u32),
        Keep(usize),
        Drop(usize),
        Release(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            any::<u32>().prop_map(Step::Choose),
            (0..12u32).prop_map(Step::Reserve),
            (0..40usize).prop_map(Step::Keep),
            (0..40usize).prop_map(Step::Drop),
            (0..40usize).prop_map(Step::Release),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn never_two_owners(steps in steps()) {
            let mut pool = Pool::new(0, 9, 3, [5]);
            // What each reservation got, and what became of it.
            let mut given: Vec<(u32, u64, &str)> = Vec::new();
            let mut next = 0;
            for step in steps {
                next += 1;
                match step {
                    Step::Choose(seed) => {
                        let free = (0..10).any(|n| n != 5 && !given.iter().any(|g| g.0 == n && g.2 != "gone"));
                        let chosen = pool.choose(seed, next);
                        prop_assert_eq!(chosen.is_some(), free);
                        given.extend(chosen.map(|n| (n, next, "pending")));
                    }
                    Step::Reserve(number) if pool.contains(number) => {
                        let taken = given.iter().any(|g| g.0 == number && g.2 != "gone");
                        let got = pool.reserve(number, next);
                        prop_assert_eq!(got, !taken);
                        given.extend(got.then_some((number, next, "pending")));
                    }
                    Step::Reserve(_) => {}
                    Step::Keep(i) => if let Some(g) = given.get_mut(i) {
                        pool.keep(g.0, g.1, &g.1.to_string());
                        if g.2 == "pending" { g.2 = "held"; }
                    },
                    Step::Drop(i) => if let Some(g) = given.get_mut(i) {
                        pool.forget(g.0, g.1);
                        if g.2 == "pending" { g.2 = "gone"; }
                    },
                    Step::Release(i) => if let Some(g) = given.get_mut(i) {
                        pool.release(g.0, &g.1.to_string());
                        if g.2 == "held" { g.2 = "gone"; }
                    },
                }
                let mut live: Vec<u32> = given.iter().filter(|g| g.2 != "gone").map(|g| g.0).collect();
                live.sort_unstable();
                let count = live.len();
                live.dedup();
                prop_assert_eq!(live.len(), count);
            }
        }
    }
}
