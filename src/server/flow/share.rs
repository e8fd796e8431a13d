//! Decides: how many seats each priority level has: by its shares, and by who asks for more than that while others
//! lend what they do not use (KEP-1040, "Dispatching and borrowing").

use super::demand::Asked;

/// The seats of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub nominal: u32,
    /// What is left when all that may be lent is lent.
    pub least: u32,
    /// With all that may be borrowed.
    pub most: u32,
}

impl Bounds {
    /// `shares` of `all_shares` of `seats`. Without `borrowing`, in percent of its own seats, a level may borrow them
    /// all.
    #[must_use]
    pub fn new(seats: u32, shares: u32, all_shares: u64, lendable: u32, borrowing: Option<u32>) -> Self {
        let nominal = (f64::from(seats) * f64::from(shares) / all_shares.max(1) as f64).ceil();
        let percent = |p: u32| (nominal * f64::from(p) / 100.0).round() as u32;
        let nominal_seats = nominal as u32;
        Self {
            nominal: nominal_seats,
            least: nominal_seats - percent(lendable.min(100)),
            most: nominal_seats + borrowing.map_or(seats, |p| percent(p).min(seats)),
        }
    }
}

/// What one level brings to the split.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub bounds: Bounds,
    /// Takes what it needs, without asking.
    pub exempt: bool,
    pub asked: Asked,
}

impl Claim {
    /// What it gets at least: as much as it used, up to its nominal seats, and never less than it keeps.
    fn floor(&self) -> f64 {
        let (least, nominal) = (f64::from(self.bounds.least), f64::from(self.bounds.nominal));
        let used = if self.exempt { self.asked.highest } else { self.asked.highest.min(nominal) };
        used.max(least)
    }

    fn most(&self) -> f64 {
        f64::from(self.bounds.most).max(self.floor())
    }

    /// What it would like, never nothing: what is over goes to everybody.
    fn target(&self) -> f64 {
        self.asked.smoothed.max(self.floor()).max(0.001)
    }
}

/// The seats that each level has for now, in their order.
#[must_use]
pub fn split(claims: &[Claim]) -> Vec<u32> {
    let sum = |of: &dyn Fn(&Claim) -> f64| claims.iter().filter(|c| !c.exempt).map(of).sum::<f64>();
    let exempt: f64 = claims.iter().filter(|c| c.exempt).map(Claim::floor).sum();
    let left = claims.iter().map(|c| f64::from(c.bounds.nominal)).sum::<f64>() - exempt;
    let (least, floors) = (sum(&|c| f64::from(c.bounds.least)), sum(&Claim::floor));
    // What a claim gets when all get the same part of what they would like, within their bounds.
    let at = |part: f64, c: &Claim| (part * c.target()).clamp(c.floor(), c.most());
    let part = if left > floors { fair_part(claims, |part| sum(&|c| at(part, c)), left) } else { 0.0 };
    // Where the exempt leave too little, all give up the same part of what they use beyond what they keep.
    let kept = if left > least { ((left - least) / (floors - least)).min(1.0) } else { 0.0 };
    let seats = claims.iter().map(|c| {
        let least = f64::from(c.bounds.least);
        if c.exempt {
            c.floor()
        } else if left > floors {
            at(part, c)
        } else {
            least + kept * (c.floor() - least)
        }
    });
    seats.map(|s| s.round() as u32).collect()
}

/// The part at which `sum`, which rises with it, is `wanted`, or as near as the bounds let it get.
fn fair_part(claims: &[Claim], sum: impl Fn(f64) -> f64, wanted: f64) -> f64 {
    let (mut low, mut high) = (0.0, claims.iter().map(|c| c.most() / c.target()).fold(0.0, f64::max));
    // Each step halves the interval: far below a seat, whatever it was.
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        if sum(middle) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(shares: u32, lendable: u32, highest: f64) -> Claim {
        let bounds = Bounds::new(600, shares, 245, lendable, None);
        Claim { bounds, exempt: false, asked: Asked { highest, smoothed: highest } }
    }

    /// The levels that every cluster has: system, node-high, leader-election, workload-high, workload-low,
    /// global-default, catch-all; and those who need not ask.
    fn cluster(highest: [f64; 7], exempt: f64) -> Vec<Claim> {
        let levels = [(30, 33), (40, 25), (10, 0), (40, 50), (100, 90), (20, 50), (5, 0)];
        let mut claims: Vec<Claim> = levels.iter().zip(highest).map(|((s, l), h)| claim(*s, *l, h)).collect();
        claims.push(Claim { exempt: true, ..claim(0, 0, exempt) });
        claims
    }

    #[test]
    fn seats_are_split_by_shares() {
        let bounds: Vec<_> = cluster([0.0; 7], 0.0).iter().map(|c| (c.bounds.nominal, c.bounds.least)).collect();
        assert_eq!(bounds, [(74, 50), (98, 73), (25, 25), (98, 49), (245, 24), (49, 24), (13, 13), (0, 0)]);
        assert_eq!(Bounds::new(100, 1, 2, 0, Some(20)), Bounds { nominal: 50, least: 50, most: 60 });
        assert_eq!(Bounds::new(100, 0, 0, 0, None), Bounds { nominal: 0, least: 0, most: 100 });
    }

    #[test]
    fn those_who_ask_borrow() {
        let check =
            |highest: [f64; 7], exempt: f64, expect: [u32; 8]| assert_eq!(split(&cluster(highest, exempt)), expect);
        // Nobody asks: by what each keeps.
        check([0.0; 7], 0.0, [117, 170, 58, 114, 56, 56, 30, 0]);
        // One asks for more than all have: the others keep what they keep.
        check([0.0, 0.0, 0.0, 0.0, 1000.0, 0.0, 0.0], 0.0, [50, 73, 25, 49, 368, 24, 13, 0]);
        // The exempt leave little: the lenders give first.
        check([0.0, 0.0, 0.0, 0.0, 1000.0, 0.0, 0.0], 300.0, [50, 73, 25, 49, 68, 24, 13, 300]);
        check([0.0, 0.0, 0.0, 0.0, 1000.0, 0.0, 0.0], 900.0, [50, 73, 25, 49, 24, 24, 13, 900]);
    }

    proptest! {
        #[test]
        fn what_is_there_is_split_within_bounds(
            levels in prop::collection::vec((0_u32..200, 0_u32..=100, prop::option::of(0_u32..300), 0_u32..2000, 0_u32..2000), 1..12),
            seats in 1_u32..2000,
        ) {
            let all: u64 = levels.iter().map(|l| u64::from(l.0)).sum();
            let claims: Vec<Claim> = levels.iter().map(|(shares, lendable, borrowing, highest, smoothed)| Claim {
                bounds: Bounds::new(seats, *shares, all, *lendable, *borrowing),
                exempt: false,
                asked: Asked { highest: f64::from(*highest), smoothed: f64::from(*smoothed) },
            }).collect();
            let given = split(&claims);
            for (claim, seats) in claims.iter().zip(&given) {
                prop_assert!((claim.bounds.least..=claim.bounds.most).contains(seats), "{claim:?}: {seats}");
            }
            let nominal: u32 = claims.iter().map(|c| c.bounds.nominal).sum();
            // Each is rounded by itself, as upstream does.
            prop_assert!(given.iter().sum::<u32>() <= nominal + u32::try_from(claims.len()).unwrap(), "{given:?}");
        }
    }
}
