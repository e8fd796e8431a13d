//! Decides: how many seats a level asked for lately, from how many it asked for at each moment.

use std::time::Duration;

/// How often seats are lent anew at most (`borrowingAdjustmentPeriod`).
pub const PERIOD: Duration = Duration::from_secs(10);
/// What is left of a peak after one period: half of it after five minutes.
const SMOOTHING: f64 = 0.977;

/// Seats asked for, summed up over time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    now: f64,
    highest: f64,
    seconds: f64,
    sum: f64,
    squares: f64,
    smoothed: f64,
}

/// What was asked for since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Asked {
    pub highest: f64,
    /// Average and deviation, falling slowly.
    pub smoothed: f64,
}

impl Demand {
    pub fn set(&mut self, seats: u32) {
        self.now = f64::from(seats);
        self.highest = self.highest.max(self.now);
    }

    /// Nothing changed for so long.
    pub fn pass(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.seconds += seconds;
        self.sum += self.now * seconds;
        self.squares += self.now * self.now * seconds;
    }

    /// Looks, and begins anew. After a long time without a look only the present is a peak: nobody looks while nobody
    /// waits, and what was an hour ago is no reason to hold seats back.
    pub fn take(&mut self) -> Asked {
        let highest = if self.seconds > 2.0 * PERIOD.as_secs_f64() { self.now } else { self.highest };
        if self.seconds > 0.0 {
            let average = self.sum / self.seconds;
            let deviation = (self.squares / self.seconds - average * average).max(0.0).sqrt();
            let kept = SMOOTHING.powf(self.seconds / PERIOD.as_secs_f64());
            let envelope = average + deviation;
            self.smoothed = envelope.max(kept * self.smoothed + (1.0 - kept) * envelope);
        }
        *self = Self { now: self.now, highest: self.now, smoothed: self.smoothed, ..Self::default() };
        Asked { highest, smoothed: self.smoothed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_fade() {
        let mut demand = Demand::default();
        demand.set(10);
        demand.pass(Duration::from_secs(5));
        demand.set(0);
        demand.pass(Duration::from_secs(5));
        // 5 on average, 5 of deviation.
        assert_eq!(demand.take(), Asked { highest: 10.0, smoothed: 10.0 });
        demand.pass(PERIOD);
        assert_eq!(demand.take(), Asked { highest: 0.0, smoothed: 9.77 });
        demand.pass(PERIOD * 29);
        let asked = demand.take();
        assert!((4.9..5.1).contains(&asked.smoothed), "{asked:?}");
    }

    #[test]
    fn an_old_peak_is_none() {
        let mut demand = Demand::default();
        demand.set(50);
        demand.pass(Duration::from_secs(1));
        demand.set(2);
        demand.pass(Duration::from_secs(3600));
        assert_eq!(demand.take().highest, 2.0);
    }
}
