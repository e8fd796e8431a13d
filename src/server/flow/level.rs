//! Effects: a priority level at work: its queues under a lock, and the turns that are taken in it. What is dropped, at
//! whatever point, gives back its seat or its place.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::config::Schema;
use super::demand::Asked;
use super::queues::{Arrival, Granted, Limits, Queues, Refusal, Seat, Ticket};
use super::work::Work;
use crate::clock;

/// The name of the level whose requests run at once, and of no other.
pub const EXEMPT: &str = "exempt";

#[derive(Debug)]
pub struct Level {
    pub name: Box<str>,
    kind: Kind,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a level is made once, in an Arc, and looked at with each request")]
enum Kind {
    /// No lock: nothing is decided here.
    Exempt(Exempt),
    Limited(Mutex<Queues<Waiter>>),
}

#[derive(Debug, Default)]
pub struct Exempt {
    running: AtomicU32,
    highest: AtomicU32,
    dispatched: AtomicU64,
}

/// Who waits for a seat.
#[derive(Debug)]
pub struct Waiter {
    pub schema: Arc<Schema>,
    tell: oneshot::Sender<Turn>,
    pub details: Details,
}

/// What is shown of a request that waits.
#[derive(Clone, Debug, Default)]
pub struct Details {
    pub flow: String,
    pub user: String,
    pub verb: String,
    pub path: String,
    pub namespace: String,
    pub name: String,
    /// `v1`, `apps/v1`.
    pub api_version: String,
    pub resource: String,
    pub subresource: String,
}

/// The right to run; ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    schema: Arc<Schema>,
    /// None in the exempt level.
    seat: Option<Seat>,
}

/// A place in a queue; left when it is dropped.
#[derive(Debug)]
pub struct Place {
    schema: Arc<Schema>,
    ticket: Option<Ticket>,
    pub told: oneshot::Receiver<Turn>,
}

pub enum Admission {
    Turn(Turn),
    Place(Place),
    Refused,
}

impl Level {
    #[must_use]
    pub fn new(name: &str, now: Instant) -> Self {
        let kind = match name {
            EXEMPT => Kind::Exempt(Exempt::default()),
            _ => Kind::Limited(Mutex::new(Queues::new(now))),
        };
        Self { name: name.into(), kind }
    }

    #[must_use]
    pub fn is_exempt(&self) -> bool {
        matches!(self.kind, Kind::Exempt(_))
    }

    /// Changes what it allows. Those who may run now are told.
    pub fn limit(&self, now: Instant, limits: Limits) {
        if let Kind::Limited(queues) = &self.kind {
            let granted = lock(queues).limit(now, limits);
            tell(granted);
        }
    }

    /// The seats that were asked for since the last look, and the queues as they are allowed now.
    pub fn asked(&self, now: Instant) -> Asked {
        match &self.kind {
            Kind::Limited(queues) => lock(queues).asked(now),
            Kind::Exempt(exempt) => {
                let running = exempt.running.load(Ordering::Relaxed);
                let highest = exempt.highest.swap(running, Ordering::Relaxed);
                Asked { highest: f64::from(highest), smoothed: 0.0 }
            }
        }
    }

    /// Nothing waits or runs.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        match &self.kind {
            Kind::Limited(queues) => {
                let queues = lock(queues);
                queues.running() == 0 && queues.waiting() == 0
            }
            Kind::Exempt(exempt) => exempt.running.load(Ordering::Relaxed) == 0,
        }
    }

    /// `None` for the exempt level, of which only [`Level::exempt`] is known: running and dispatched.
    pub fn queues(&self) -> Option<MutexGuard<'_, Queues<Waiter>>> {
        match &self.kind {
            Kind::Limited(queues) => Some(lock(queues)),
            Kind::Exempt(_) => None,
        }
    }

    #[must_use]
    pub fn exempt(&self) -> (u32, u64) {
        match &self.kind {
            Kind::Exempt(e) => (e.running.load(Ordering::Relaxed), e.dispatched.load(Ordering::Relaxed)),
            Kind::Limited(_) => (0, 0),
        }
    }
}

/// Takes a turn, or a place in a queue, for a request of `schema`.
pub fn admit(
    schema: &Arc<Schema>,
    now: Instant,
    work: impl FnOnce() -> Work,
    flow: u64,
    details: impl FnOnce() -> Details,
) -> Admission {
    let queues = match &schema.level.kind {
        Kind::Limited(queues) => queues,
        Kind::Exempt(exempt) => {
            let running = exempt.running.fetch_add(1, Ordering::Relaxed) + 1;
            exempt.highest.fetch_max(running, Ordering::Relaxed);
            exempt.dispatched.fetch_add(1, Ordering::Relaxed);
            return Admission::Turn(Turn::new(schema.clone(), None));
        }
    };
    let work = work();
    let mut told = None;
    let who = || {
        let (tell, receiver) = oneshot::channel();
        told = Some(receiver);
        schema.series.inqueue.inc();
        Waiter { schema: schema.clone(), tell, details: details() }
    };
    let (arrival, granted) = lock(queues).arrive(now, work, flow, who);
    tell(granted);
    match (arrival, told) {
        (Arrival::Runs(seat), _) => Admission::Turn(Turn::new(schema.clone(), Some(seat))),
        (Arrival::Waits(ticket), Some(told)) => {
            Admission::Place(Place { schema: schema.clone(), ticket: Some(ticket), told })
        }
        (Arrival::Refused(Refusal::ConcurrencyLimit), _) => {
            schema.series.concurrency_limit.inc();
            Admission::Refused
        }
        (Arrival::Refused(Refusal::QueueFull) | Arrival::Waits(_), _) => {
            schema.series.queue_full.inc();
            Admission::Refused
        }
    }
}

impl Turn {
    fn new(schema: Arc<Schema>, seat: Option<Seat>) -> Self {
        schema.series.dispatched.inc();
        schema.series.executing.inc();
        Self { schema, seat }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.schema.series.executing.dec();
        match (&self.schema.level.kind, self.seat.take()) {
            (Kind::Limited(queues), Some(seat)) => {
                let granted = lock(queues).end(clock::instant(), seat);
                tell(granted);
            }
            (Kind::Exempt(exempt), _) => {
                exempt.running.fetch_sub(1, Ordering::Relaxed);
            }
            (Kind::Limited(_), None) => {}
        }
    }
}

impl Place {
    /// Waits no longer. The turn, when it came at the last moment.
    #[must_use]
    pub fn leave(mut self) -> Option<Turn> {
        self.give_up();
        self.told.try_recv().ok()
    }

    fn give_up(&mut self) {
        let (Some(ticket), Kind::Limited(queues)) = (self.ticket.take(), &self.schema.level.kind) else { return };
        let (left, granted) = lock(queues).leave(clock::instant(), ticket);
        if left.is_some() {
            self.schema.series.inqueue.dec();
            self.schema.series.time_out.inc();
        }
        tell(granted);
    }
}

/// A turn that was given before, or is on its way, goes back with the receiver or with the sender that finds it gone.
impl Drop for Place {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Not under the lock: a turn that nobody takes is given back at once.
fn tell(granted: Granted<Waiter>) {
    for (waiter, seat) in granted {
        waiter.schema.series.inqueue.dec();
        let turn = Turn::new(waiter.schema, Some(seat));
        let _ = waiter.tell.send(turn);
    }
}

fn lock(queues: &Mutex<Queues<Waiter>>) -> MutexGuard<'_, Queues<Waiter>> {
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}
