//! Tables and properties: the queues of one level, with a clock that is given.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use crate::clock;
use crate::server::flow::queues::{Arrival, Granted, Limits, Queues, Queuing, Refusal, Seat, Ticket};
use crate::server::flow::work::Work;

const MILLI: Duration = Duration::from_millis(1);

fn work(seats: u32) -> Work {
    Work { seats, ..Work::ONE }
}

/// A level with what runs in it.
struct Bench {
    queues: Queues<u32>,
    now: Instant,
    running: BTreeMap<u32, Seat>,
    tickets: BTreeMap<u32, Ticket>,
}

impl Bench {
    fn new(seats: u32, queuing: Option<(u32, u32, u32)>) -> Self {
        let now = clock::instant();
        let mut queues = Queues::new(now);
        let queuing =
            queuing.map(|(queues, hand_size, queue_length_limit)| Queuing { queues, hand_size, queue_length_limit });
        assert!(queues.limit(now, Limits { seats, queuing }).is_empty());
        Self { queues, now, running: BTreeMap::new(), tickets: BTreeMap::new() }
    }

    fn granted(&mut self, granted: Granted<u32>) -> Vec<u32> {
        let names = granted.iter().map(|(name, _)| *name).collect();
        for (name, seat) in granted {
            self.tickets.remove(&name).expect("it waited");
            assert!(self.running.insert(name, seat).is_none());
        }
        names
    }

    /// `run`, `wait`, or why it is refused.
    fn arrive(&mut self, name: u32, flow: u64, work: Work) -> &'static str {
        let (arrival, granted) = self.queues.arrive(self.now, work, flow, || name);
        let outcome = match arrival {
            Arrival::Runs(seat) => {
                self.running.insert(name, seat);
                "run"
            }
            Arrival::Waits(ticket) => {
                self.tickets.insert(name, ticket);
                "wait"
            }
            Arrival::Refused(Refusal::ConcurrencyLimit) => "concurrency-limit",
            Arrival::Refused(Refusal::QueueFull) => "queue-full",
        };
        self.granted(granted);
        outcome
    }

    /// Who runs then.
    fn end(&mut self, name: u32) -> Vec<u32> {
        let seat = self.running.remove(&name).expect("it runs");
        let granted = self.queues.end(self.now, seat);
        self.granted(granted)
    }

    fn leave(&mut self, name: u32) -> Vec<u32> {
        let ticket = self.tickets.remove(&name).expect("it waits");
        let (left, granted) = self.queues.leave(self.now, ticket);
        assert_eq!(left, Some(name));
        self.granted(granted)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn without_queues_what_is_too_much_is_refused() {
    let mut bench = Bench::new(2, None);
    assert_eq!([1, 2, 3].map(|n| bench.arrive(n, 0, Work::ONE)), ["run", "run", "concurrency-limit"]);
    assert!(bench.end(1).is_empty());
    assert_eq!(bench.arrive(3, 0, Work::ONE), "run");
    assert_eq!((bench.queues.counts().dispatched, bench.queues.counts().rejected), (3, 1));
}

#[test]
fn a_queue_takes_so_many() {
    let mut bench = Bench::new(1, Some((4, 1, 2)));
    assert_eq!([1, 2, 3, 4].map(|n| bench.arrive(n, 0, Work::ONE)), ["run", "wait", "wait", "queue-full"]);
    // Of another flow, with another queue.
    assert_eq!(bench.arrive(5, 1, Work::ONE), "wait");
    assert!(bench.leave(2).is_empty());
    assert_eq!(bench.arrive(6, 0, Work::ONE), "wait");
    assert_eq!(bench.queues.counts().cancelled, 1);
}

/// Each flow has its turn, however many requests the other one has.
#[test]
fn flows_take_turns() {
    let mut bench = Bench::new(1, Some((2, 1, 50)));
    assert_eq!(bench.arrive(0, 0, Work::ONE), "run");
    for name in 1..=10 {
        assert_eq!(bench.arrive(name, 0, Work::ONE), "wait");
    }
    for name in 101..=103 {
        assert_eq!(bench.arrive(name, 1, Work::ONE), "wait");
    }
    let mut order = vec![0];
    for _ in 0..8 {
        bench.pass(3 * MILLI);
        let last = *order.last().unwrap();
        order.extend(bench.end(last));
    }
    assert_eq!(order, [0, 101, 1, 102, 2, 103, 3, 4, 5]);
}

/// A flow whose requests take long is charged for it: the quick one has as much of the time.
#[test]
fn flows_share_time_and_not_numbers() {
    let mut bench = Bench::new(1, Some((2, 1, 500)));
    for name in 0..100 {
        bench.arrive(name, 0, Work::ONE);
        bench.arrive(1000 + name, 1, Work::ONE);
    }
    let (mut slow, mut quick) = (0, 0);
    while slow < 10 {
        let name = *bench.running.keys().next().unwrap();
        if name < 1000 {
            slow += 1;
            bench.pass(30 * MILLI);
        } else {
            quick += 1;
            bench.pass(3 * MILLI);
        }
        bench.end(name);
    }
    assert!((80..=100).contains(&quick), "{quick} quick ones while 10 slow ones ran");
}

/// A wide request waits until there is room, and is not overtaken meanwhile.
#[test]
fn wide_requests_get_their_room() {
    let mut bench = Bench::new(4, Some((2, 1, 50)));
    assert_eq!([1, 2, 3].map(|n| bench.arrive(n, 0, Work::ONE)), ["run"; 3]);
    assert_eq!(bench.arrive(10, 1, work(3)), "wait");
    assert_eq!(bench.arrive(4, 0, Work::ONE), "wait");
    bench.pass(3 * MILLI);
    assert_eq!((bench.end(1), bench.end(2)), (vec![], vec![10]));
    assert_eq!((bench.queues.seats(), bench.end(3)), (4, vec![4]));
    // Wider than the level: alone.
    let mut bench = Bench::new(2, Some((2, 1, 50)));
    assert_eq!(bench.arrive(1, 0, Work::ONE), "run");
    assert_eq!(bench.arrive(2, 1, work(9)), "wait");
    assert_eq!(bench.end(1), [2]);
    assert_eq!(bench.arrive(3, 1, Work::ONE), "wait");
    assert_eq!(bench.end(2), [3]);
}

/// When the one at the head gives up, those behind it may fit.
#[test]
fn who_leaves_makes_room() {
    let mut bench = Bench::new(3, Some((1, 1, 50)));
    assert_eq!(bench.arrive(1, 0, work(2)), "run");
    assert_eq!(bench.arrive(2, 0, work(3)), "wait");
    assert_eq!(bench.arrive(3, 0, Work::ONE), "wait");
    assert_eq!(bench.leave(2), [3]);
}

/// After a write its seats are kept for a while, but never from others when nothing else runs.
#[test]
fn writes_linger() {
    let told = Work { seats: 1, last_seats: 2, linger: 5 * MILLI };
    let mut bench = Bench::new(3, Some((2, 1, 50)));
    assert_eq!(bench.arrive(1, 0, told), "run");
    assert_eq!(bench.arrive(2, 0, Work::ONE), "run");
    bench.end(1);
    assert_eq!(bench.queues.seats(), 3, "its seats linger");
    assert_eq!(bench.arrive(3, 0, Work::ONE), "wait");
    bench.pass(5 * MILLI);
    assert_eq!(bench.arrive(4, 1, Work::ONE), "wait");
    // Their time was up when the next one came, so both run.
    assert_eq!((bench.tickets.len(), bench.queues.seats()), (0, 3));
    let mut bench = Bench::new(2, Some((2, 1, 50)));
    assert_eq!(bench.arrive(1, 0, told), "run");
    assert_eq!(bench.arrive(2, 1, Work::ONE), "wait");
    assert_eq!(bench.end(1), [2], "nothing else runs");
}

#[test]
fn limits_change_under_way() {
    let mut bench = Bench::new(1, Some((8, 2, 50)));
    for name in 0..4 {
        bench.arrive(name, u64::from(name), Work::ONE);
    }
    let more = Limits { seats: 3, ..bench.queues.limits() };
    let granted = bench.queues.limit(bench.now, more);
    assert_eq!(bench.granted(granted).len(), 2);
    // Without queues from now on: what waits goes on waiting, what comes does not.
    let none = Limits { seats: 1, queuing: None };
    assert!(bench.queues.limit(bench.now, none).is_empty());
    assert_eq!(bench.arrive(9, 0, Work::ONE), "concurrency-limit");
    let names: Vec<u32> = bench.running.keys().copied().collect();
    let next: Vec<u32> = names.into_iter().flat_map(|n| bench.end(n)).collect();
    assert_eq!((next.len(), bench.tickets.len()), (1, 0));
}

#[test]
fn a_level_does_not_hold_on_to_its_queues() {
    let mut bench = Bench::new(1, Some((10_000_000, 2, 50)));
    for flow in 0..40_u32 {
        bench.arrive(flow, u64::from(flow) * 7919, Work::ONE);
    }
    assert!(bench.queues.in_use().len() <= 40);
    while let Some(name) = bench.running.keys().next().copied() {
        bench.end(name);
    }
    assert!(bench.queues.in_use().is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Arrive { flow: u64, seats: u32, last_seats: u32 },
    End(usize),
    Leave(usize),
    Pass(u64),
    Limit(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u64..6, 1_u32..5, 0_u32..5).prop_map(|(flow, seats, last_seats)| Step::Arrive { flow, seats, last_seats }),
        4 => (0_usize..64).prop_map(Step::End),
        1 => (0_usize..64).prop_map(Step::Leave),
        2 => (0_u64..20).prop_map(Step::Pass),
        1 => (1_u32..9).prop_map(Step::Limit),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    /// Never more seats than there are, a request that is too wide apart, which runs alone; nothing is lost; and nobody
    /// waits while nothing runs.
    #[test]
    fn seats_and_requests_add_up(steps in steps(), queued in any::<bool>()) {
        let mut seats = 4;
        let mut bench = Bench::new(seats, queued.then_some((4, 2, 5)));
        let (mut name, mut came, mut gone, mut refused) = (0, 0, 0, 0);
        for step in steps {
            match step {
                Step::Arrive { flow, seats: wide, last_seats } => {
                    name += 1;
                    came += 1;
                    let work = Work { seats: wide, last_seats, linger: 7 * MILLI * u32::from(last_seats > 0) };
                    match bench.arrive(name, flow * 31, work) {
                        "run" => prop_assert!(bench.queues.seats() <= seats || bench.queues.running() == 1),
                        "wait" => {}
                        _ => refused += 1,
                    }
                }
                Step::End(n) => {
                    if let Some(name) = bench.running.keys().nth(n % bench.running.len().max(1)).copied() {
                        let next = bench.end(name);
                        gone += 1;
                        prop_assert!(next.is_empty() || bench.queues.seats() <= seats || bench.queues.running() == 1);
                    }
                }
                Step::Leave(n) => {
                    if let Some(name) = bench.tickets.keys().nth(n % bench.tickets.len().max(1)).copied() {
                        bench.leave(name);
                        gone += 1;
                    }
                }
                Step::Pass(millis) => bench.pass(Duration::from_millis(millis)),
                Step::Limit(n) => {
                    seats = n;
                    let limits = Limits { seats, ..bench.queues.limits() };
                    let granted = bench.queues.limit(bench.now, limits);
                    bench.granted(granted);
                }
            }
            let queues = &bench.queues;
            prop_assert_eq!(queues.running() as usize, bench.running.len());
            prop_assert_eq!(queues.waiting(), bench.tickets.len());
            prop_assert_eq!(came, gone + refused + bench.running.len() + bench.tickets.len());
            prop_assert!(queues.running() > 0 || queues.waiting() == 0, "they wait for nothing");
            let of_queues: u32 = queues.in_use().iter().map(|q| q.seats).sum();
            prop_assert_eq!(of_queues, if queued { queues.seats() } else { 0 });
        }
        while let Some(name) = bench.running.keys().next().copied() {
            bench.end(name);
        }
        prop_assert_eq!((bench.queues.seats(), bench.queues.waiting(), bench.queues.in_use().len()), (0, 0, 0));
    }

    /// However noisy the others are: a request waits for so many others at most as each of the other queues may have
    /// before it, which is its share of the time that passes meanwhile.
    #[test]
    fn nobody_starves(noise in prop::collection::vec((0_u64..3, 1_u64..12), 300), seats in 1_u32..4, wide in 1_u32..4) {
        let mut bench = Bench::new(seats, Some((4, 1, 400)));
        let mut order = VecDeque::new();
        for (name, (flow, _)) in (0..).zip(&noise) {
            if bench.arrive(name, *flow, Work::ONE) == "run" {
                order.push_back(name);
            }
        }
        let modest = 10_000;
        prop_assert_eq!(bench.arrive(modest, 3, work(wide.min(seats))), "wait");
        let mut ended = 0;
        let mut left = noise.iter().map(|(_, millis)| *millis).cycle();
        while !bench.running.contains_key(&modest) {
            let name = order.pop_front().expect("something runs");
            bench.pass(Duration::from_millis(left.next().unwrap()));
            order.extend(bench.end(name).into_iter().filter(|n| *n != modest));
            ended += 1;
            prop_assert!(ended <= 24, "{ended} went before it");
        }
    }
}
