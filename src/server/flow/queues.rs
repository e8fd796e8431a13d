//! Decides: the fair queues of one priority level (`k8s.io/apiserver` flowcontrol/fairqueuing, whose `doc.go` has the
//! mathematics).
//!
//! ```text
//! arrives ─▶ the emptiest queue of its flow's hand ─▶ a seat is free and nobody waits: runs
//!                                                 └▶ waits ─▶ its queue is the least served: runs ─▶ (lingers) ─▶ ends
//!                                                          └▶ gives up
//! ```
//!
//! Fair is what would happen if all queues were served at once, each with the same part of the seats. `progress` is how
//! much each would have got by now, in seat-nanoseconds; a queue's `start` is where on that scale its next request
//! begins. The one that would end first goes first. A request is expected to run a few milliseconds; when it ends,
//! its queue is charged for what it really took.
//!
//! Only queues in use are kept: an idle one starts from the present anyway. So a level costs what runs and waits in it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::demand::{Asked, Demand};
use super::shuffle;
use super::work::{Work, seat_time};

/// Requests that wait in one level at most, however many queues it has and however long they may get. One that waits
/// holds a connection and its buffers, about 10 KiB.
pub const WAITING_MAX: usize = 4096;

/// How the requests of a level wait; fields as in `QueuingConfiguration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    pub queues: u32,
    pub hand_size: u32,
    pub queue_length_limit: u32,
}

/// What a level allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub seats: u32,
    /// Without it nothing waits.
    pub queuing: Option<Queuing>,
}

/// What becomes of a request that arrives.
#[derive(Debug)]
pub enum Arrival {
    Runs(Seat),
    Waits(Ticket),
    Refused(Refusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    ConcurrencyLimit,
    QueueFull,
}

/// The seats of a request that runs, to be given back by [`Queues::end`].
#[derive(Debug)]
#[must_use]
pub struct Seat {
    queue: Option<u32>,
    work: Work,
    started: Instant,
}

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    queue: u32,
    id: u64,
}

/// A request that waits, with whatever tells it that it may run.
#[derive(Debug)]
pub struct Waiting<W> {
    id: u64,
    pub who: W,
    pub work: Work,
    pub arrived: Instant,
    /// The progress when it arrived.
    arrival: i128,
}

#[derive(Debug)]
pub struct Queue<W> {
    pub index: u32,
    pub waiting: VecDeque<Waiting<W>>,
    pub running: u32,
    /// Of those that run and those that linger.
    pub seats: u32,
    pub start: i128,
}

/// Since the level is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub dispatched: u64,
    pub rejected: u64,
    pub cancelled: u64,
}

#[derive(Debug)]
struct Lingering {
    until: Instant,
    queue: Option<u32>,
    seats: u32,
}

/// All queues of a level.
#[derive(Debug)]
pub struct Queues<W> {
    limits: Limits,
    /// Those in use, by index.
    queues: Vec<Queue<W>>,
    lingering: Vec<Lingering>,
    now: Instant,
    progress: i128,
    /// The index that was served last.
    served: u32,
    arrivals: u64,
    running: u32,
    waiting: usize,
    seats: u32,
    seats_waiting: u32,
    demand: Demand,
    counts: Counts,
}

/// Those who may run now.
pub type Granted<W> = Vec<(W, Seat)>;

impl<W> Queues<W> {
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            limits: Limits::default(),
            queues: Vec::new(),
            lingering: Vec::new(),
            now,
            progress: 0,
            served: 0,
            arrivals: 0,
            running: 0,
            waiting: 0,
            seats: 0,
            seats_waiting: 0,
            demand: Demand::default(),
            counts: Counts::default(),
        }
    }

    /// A request of the flow `hash`. `who` is made only when it has to wait; others may get their seats by its arrival.
    pub fn arrive(&mut self, now: Instant, work: Work, hash: u64, who: impl FnOnce() -> W) -> (Arrival, Granted<W>) {
        self.advance(now);
        let seats = work.widest();
        let Some(queuing) = self.limits.queuing else {
            let arrival = if self.fits(seats) {
                Arrival::Runs(self.seat(None, work))
            } else {
                self.counts.rejected += 1;
                Arrival::Refused(Refusal::ConcurrencyLimit)
            };
            return (arrival, Vec::new());
        };
        let index = self.choose(hash, queuing);
        if self.waiting == 0 && self.seats < self.limits.seats && self.fits(seats) {
            let at = self.queue(index);
            self.queues[at].start += work.expected();
            return (Arrival::Runs(self.seat(Some(at), work)), Vec::new());
        }
        let length = self.position(index).map_or(0, |at| self.queues[at].waiting.len());
        let full = self.seats >= self.limits.seats && length >= queuing.queue_length_limit as usize;
        if full || self.waiting >= WAITING_MAX {
            self.counts.rejected += 1;
            return (Arrival::Refused(Refusal::QueueFull), Vec::new());
        }
        let (at, id) = (self.queue(index), self.arrivals);
        let one = Waiting { id, who: who(), work, arrived: now, arrival: self.progress };
        self.queues[at].waiting.push_back(one);
        self.queues[at].bound();
        self.waiting += 1;
        self.seats_waiting += seats;
        self.ask();
        (Arrival::Waits(Ticket { queue: index, id }), self.dispatch())
    }

    /// The request has run.
    pub fn end(&mut self, now: Instant, seat: Seat) -> Granted<W> {
        self.advance(now);
        self.running -= 1;
        if let Some(at) = seat.queue.and_then(|index| self.position(index)) {
            let queue = &mut self.queues[at];
            queue.running -= 1;
            queue.start += seat.work.excess(now.saturating_duration_since(seat.started));
            queue.bound();
        }
        if seat.work.linger.is_zero() {
            self.give_back(seat.queue, seat.work.widest());
        } else {
            let (until, seats) = (now + seat.work.linger, seat.work.widest());
            self.lingering.push(Lingering { until, queue: seat.queue, seats });
        }
        self.release();
        self.dispatch()
    }

    /// The request no longer wants to wait. `None` when it was given its seat already.
    pub fn leave(&mut self, now: Instant, ticket: Ticket) -> (Option<W>, Granted<W>) {
        self.advance(now);
        let found = self.position(ticket.queue).and_then(|at| {
            let place = self.queues[at].waiting.iter().position(|w| w.id == ticket.id)?;
            Some((at, self.queues[at].waiting.remove(place)?))
        });
        let Some((at, left)) = found else { return (None, Vec::new()) };
        self.waiting -= 1;
        self.seats_waiting -= left.work.widest();
        self.counts.rejected += 1;
        self.counts.cancelled += 1;
        self.queues[at].bound();
        self.forget(at);
        self.ask();
        (Some(left.who), self.dispatch())
    }

    /// What waits goes on waiting, whatever the limits are now.
    pub fn limit(&mut self, now: Instant, limits: Limits) -> Granted<W> {
        self.advance(now);
        self.limits = limits;
        self.dispatch()
    }

    /// How many seats were asked for since the last look.
    pub fn asked(&mut self, now: Instant) -> Asked {
        self.advance(now);
        self.demand.take()
    }

    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    #[must_use]
    pub fn in_use(&self) -> &[Queue<W>] {
        &self.queues
    }

    #[must_use]
    pub fn running(&self) -> u32 {
        self.running
    }

    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Of those that run and those that linger.
    #[must_use]
    pub fn seats(&self) -> u32 {
        self.seats
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Moves on to `now`, with the state as it has been since the last call.
    fn advance(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.now);
        if passed > Duration::ZERO {
            self.now = now;
            self.demand.pass(passed);
            let busy = self.queues.iter().filter(|q| q.running > 0 || !q.waiting.is_empty()).count();
            if busy > 0 {
                let seats = (self.seats + self.seats_waiting).min(self.limits.seats);
                self.progress += seat_time(seats, passed) / busy as i128;
            }
        }
        self.release();
    }

    /// Lingering seats are free when their time is up. They are free at once when nothing else runs: there would be
    /// nobody to notice that their time is up, and nothing that they keep from running too fast.
    fn release(&mut self) {
        let mut at = 0;
        while at < self.lingering.len() {
            if self.running == 0 || self.lingering[at].until <= self.now {
                let Lingering { queue, seats, .. } = self.lingering.swap_remove(at);
                self.give_back(queue, seats);
            } else {
                at += 1;
            }
        }
    }

    fn fits(&self, seats: u32) -> bool {
        // A request that is too wide for the level runs alone.
        self.seats + seats <= self.limits.seats || (seats > self.limits.seats && self.running == 0)
    }

    /// The queue of the hand in which the least work waits. Where to begin changes, so that of equals each has its
    /// turn.
    fn choose(&mut self, hash: u64, queuing: Queuing) -> u32 {
        let hand = shuffle::deal(hash, queuing.queues, queuing.hand_size);
        let cards = hand.cards();
        self.arrivals += 1;
        let first = (self.arrivals % cards.len().max(1) as u64) as usize;
        if self.waiting == 0 {
            return cards.get(first).copied().unwrap_or_default();
        }
        let turned = cards[first..].iter().chain(&cards[..first]);
        let work = |index: &&u32| -> i128 {
            let queue = self.position(**index).map(|at| &self.queues[at]);
            queue.into_iter().flat_map(|q| &q.waiting).map(|w| w.work.expected()).sum()
        };
        turned.min_by_key(work).copied().unwrap_or_default()
    }

    fn position(&self, index: u32) -> Option<usize> {
        self.queues.binary_search_by_key(&index, |q| q.index).ok()
    }

    /// The queue with this index, which begins now if it was idle.
    fn queue(&mut self, index: u32) -> usize {
        let start = self.progress;
        match self.queues.binary_search_by_key(&index, |q| q.index) {
            Ok(at) => {
                let queue = &mut self.queues[at];
                if queue.running == 0 && queue.waiting.is_empty() {
                    queue.start = start;
                }
                at
            }
            Err(at) => {
                self.queues.insert(at, Queue { index, waiting: VecDeque::new(), running: 0, seats: 0, start });
                at
            }
        }
    }

    fn seat(&mut self, queue: Option<usize>, work: Work) -> Seat {
        let seats = work.widest();
        let queue = queue.map(|at| {
            let queue = &mut self.queues[at];
            queue.running += 1;
            queue.seats += seats;
            queue.index
        });
        self.running += 1;
        self.seats += seats;
        self.counts.dispatched += 1;
        self.ask();
        Seat { queue, work, started: self.now }
    }

    fn give_back(&mut self, queue: Option<u32>, seats: u32) {
        self.seats -= seats;
        if let Some(at) = queue.and_then(|index| self.position(index)) {
            self.queues[at].seats -= seats;
            self.forget(at);
        }
        self.ask();
    }

    fn forget(&mut self, at: usize) {
        let queue = &self.queues[at];
        if queue.running == 0 && queue.seats == 0 && queue.waiting.is_empty() {
            self.queues.remove(at);
        }
    }

    fn ask(&mut self) {
        self.demand.set(self.seats + self.seats_waiting);
    }

    /// Gives out seats while the one whose turn it is fits. Narrower ones do not overtake it: it would starve.
    fn dispatch(&mut self) -> Granted<W> {
        let mut granted = Vec::new();
        while self.waiting > 0 && self.seats < self.limits.seats {
            let Some(at) = self.next() else { break };
            let fits = self.queues[at].waiting.front().is_some_and(|head| self.fits(head.work.widest()));
            if !fits {
                break;
            }
            let queue = &mut self.queues[at];
            let Some(head) = queue.waiting.pop_front() else { break };
            queue.start += head.work.expected();
            queue.bound();
            self.served = queue.index;
            self.waiting -= 1;
            self.seats_waiting -= head.work.widest();
            let seat = self.seat(Some(at), head.work);
            granted.push((head.who, seat));
        }
        granted
    }

    /// The queue whose oldest request would end first; of equals the first one after that served last.
    fn next(&self) -> Option<usize> {
        let first = self.queues.partition_point(|q| q.index <= self.served);
        let turned = (first..self.queues.len()).chain(0..first);
        let end = |at: &usize| self.queues[*at].waiting.front().map(|w| self.queues[*at].start + w.work.expected());
        turned.filter(|at| !self.queues[*at].waiting.is_empty()).min_by_key(end)
    }
}

impl<W> Queue<W> {
    /// A queue that was not served for want of requests has no claim on what it missed: nothing begins before it
    /// has arrived.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.start = self.start.max(oldest.arrival);
        }
    }

    /// Work that waits, in seat-nanoseconds.
    #[must_use]
    pub fn work(&self) -> i128 {
        self.waiting.iter().map(|w| w.work.expected()).sum()
    }
}
