//! Decides: how many seats a request takes, and whether it keeps them for a while (`k8s.io/apiserver`
//! flowcontrol/request). A seat is what a small request takes while it runs.

use std::time::Duration;

/// Objects that one seat is enough to list.
const OBJECTS_PER_SEAT: usize = 100;
/// Watches that one seat is enough to tell of a change, and how long that takes.
const WATCHES_PER_SEAT: usize = 10;
const TELLING: Duration = Duration::from_millis(5);
/// No request takes more seats, however many its level has.
const SEATS_MAX: u32 = 10;
/// The part of a level's seats that one request may take, in percent.
const PART_MAX: u32 = 15;
/// How long a request is expected to run, before it is known.
const EXPECTED: Duration = Duration::from_millis(3);

/// What a request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// While it runs.
    pub seats: u32,
    /// After it was answered, for `linger`: those who watch are told then.
    pub last_seats: u32,
    pub linger: Duration,
}

impl Work {
    pub const ONE: Self = Self { seats: 1, last_seats: 0, linger: Duration::ZERO };

    /// Seats that are held from its start to the end of its lingering.
    #[must_use]
    pub fn widest(&self) -> u32 {
        self.seats.max(self.last_seats)
    }

    /// In seat-nanoseconds, as expected before it has run.
    #[must_use]
    pub fn expected(&self) -> i128 {
        seat_time(self.seats, EXPECTED) + seat_time(self.last_seats, self.linger)
    }

    /// What it cost more than expected, or less.
    #[must_use]
    pub fn excess(&self, ran: Duration) -> i128 {
        seat_time(self.seats, ran) - seat_time(self.seats, EXPECTED)
    }
}

/// Seats held for a time, in seat-nanoseconds.
#[must_use]
pub fn seat_time(seats: u32, time: Duration) -> i128 {
    i128::from(seats) * time.as_nanos().cast_signed()
}

/// The seats of a level that one of its requests may take: a level of few seats is not for one request alone.
/// `hand` is the size of a hand of its queues; without queues only [`SEATS_MAX`] counts.
#[must_use]
pub fn seats_max(nominal: u32, hand: Option<u32>) -> u32 {
    let Some(hand) = hand else { return SEATS_MAX };
    (nominal * PART_MAX).div_ceil(100).min(nominal / hand.max(1)).clamp(1, SEATS_MAX)
}

/// A list, or a watch that begins with one, over a resource of so many objects. All of them are looked at, whichever
/// are asked for.
#[must_use]
pub fn list(objects: usize, seats_max: u32) -> Work {
    let seats = u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(u32::MAX);
    Work { seats: seats.clamp(1, seats_max), ..Work::ONE }
}

/// A write that so many watches are told of. Few of them cost nothing worth counting. What they cost is narrowed to the
/// seats that one request may take, and lasts the longer for it.
#[must_use]
pub fn write(watches: usize, seats_max: u32) -> Work {
    if watches < WATCHES_PER_SEAT {
        return Work::ONE;
    }
    let wide = u32::try_from(watches.div_ceil(WATCHES_PER_SEAT)).unwrap_or(u32::MAX);
    let last_seats = wide.min(seats_max);
    Work { seats: 1, last_seats, linger: TELLING * wide / last_seats }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_as_wide_as_what_they_look_at() {
        for (objects, seats_max, seats) in
            [(0, 10, 1), (100, 10, 1), (101, 10, 2), (950, 10, 10), (5000, 10, 10), (950, 3, 3)]
        {
            assert_eq!(list(objects, seats_max), Work { seats, ..Work::ONE }, "{objects}");
        }
    }

    #[test]
    fn writes_pay_for_those_who_watch() {
        let told = |last_seats, millis| Work { seats: 1, last_seats, linger: Duration::from_millis(millis) };
        for (watches, seats_max, expect) in [
            (9, 10, Work::ONE),
            (10, 10, told(1, 5)),
            (25, 10, told(3, 5)),
            (200, 10, told(10, 10)),
            (25, 1, told(1, 15)),
        ] {
            assert_eq!(write(watches, seats_max), expect, "{watches}");
        }
    }

    /// Upstream's levels with 600 seats, and with 60.
    #[test]
    fn one_request_does_not_take_a_level() {
        for (nominal, hand, expect) in
            [(98, Some(6), 10), (245, Some(6), 10), (25, Some(4), 4), (10, Some(6), 1), (3, Some(6), 1), (13, None, 10)]
        {
            assert_eq!(seats_max(nominal, hand), expect, "{nominal}");
        }
    }
}
