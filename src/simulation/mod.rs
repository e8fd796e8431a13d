//! Tests: a whole cluster in one thread and in no time: the server over the memory store, all controllers, the scheduler
//! and nodes, with a clock that jumps to whatever happens next. The network between them loses requests and answers, delays
//! and repeats; each of them is killed in the middle of what it does; the wall clock is set; nodes die and come back.
//!
//! - [`random`]: everything that is left to chance comes from one seed, so a seed is one history, to the byte
//! - [`weather`]: the way between a component and the server; [`world`]: the components; [`node`]: nodes
//! - [`wanted`]: what users want; [`story`]: what happens; [`checks`]: what may never be, after each commit;
//!   [`settled`]: what must be in the end
//! - [`disks`]: what local volumes hold
//!
//! Each seed runs in a process of its own, for there is state in a process that is made once. A failure prints its seed.
//! `SKIFF_SIM_SEED=42` runs one seed and `SKIFF_SIM_SEEDS=1000` so many of them;
//! `SKIFF_SIM_STEPS=200` makes them longer, `SKIFF_SIM_LOG=1` logs, which changes nothing else.

mod checks;
mod disks;
mod node;
mod random;
mod settled;
mod story;
mod wanted;
mod weather;
mod world;

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use self::checks::{CONTROLLERS, SCHEDULER};
use self::random::Dice;
use self::world::World;
use crate::clock::{self, simulated};

/// Seeds of an ordinary run.
const SEEDS: u64 = 4;
/// Things that happen in one history.
const STEPS: u64 = 40;
/// In one that is only compared with itself.
const FEW_STEPS: u64 = 8;
/// Long enough for a key that failed again and again to have its next turn.
const SETTLES: Duration = Duration::from_secs(3600);
/// Nothing is written for so long: it has settled.
const QUIET: Duration = Duration::from_secs(150);
const IDLE: Duration = Duration::from_secs(900);
/// Of real time.
const HANGS: Duration = Duration::from_secs(300);
/// Requests of all in one second, on average of a minute, that nothing explains but a loop.
const BUSY: u64 = 400;

fn asked(name: &str) -> Option<u64> {
    #[allow(clippy::disallowed_methods, reason = "how many seeds is asked of the tests, not of the program")]
    std::env::var(name).ok()?.parse().ok()
}

async fn watch_over(world: &World, time: Duration) -> Result<(), String> {
    let (end, mut before) = (clock::instant() + time, world.weather.requests.load(Relaxed));
    let mut looked = 0;
    while clock::instant() < end {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if let Some(twins) = story::twins(world) {
            world.checks.fail(twins);
        }
        if let Some(wrong) = world.disks.wrong() {
            world.checks.fail(wrong);
        }
        if let Some(wrong) = world.checks.wrong() {
            return Err(wrong);
        }
        looked += 1;
        if looked % 60 == 0 {
            let requests = world.weather.requests.load(Relaxed);
            too_many(requests - before)?;
            before = requests;
        }
    }
    Ok(())
}

/// Requests of a minute.
fn too_many(requests: u64) -> Result<(), String> {
    if requests > 60 * BUSY { Err(format!("{requests} requests in a minute")) } else { Ok(()) }
}

#[test]
fn a_loop_is_told() {
    assert_eq!(too_many(24_000), Ok(()));
    assert_eq!(too_many(24_001), Err("24001 requests in a minute".to_owned()));
}

async fn history(seed: u64, steps: u64) -> Result<u64, String> {
    simulated::set("2026-01-01T00:00:00Z".parse().unwrap());
    let began = clock::instant();
    let mut world = World::new(Dice::new(seed));
    world.start(CONTROLLERS);
    world.start(SCHEDULER);
    story::NODES.iter().for_each(|name| world.add_node(name));
    watch_over(&world, Duration::from_secs(20)).await?;
    wanted::begin(&world).await;
    world.weather.set_bad(true);
    world.crashes.store(true, Relaxed);
    for number in 1..=steps {
        story::step(&mut world, number).await;
        let most = if world.dice.chance(200) { 120_000 } else { 10_000 };
        watch_over(&world, world.dice.millis(0, most)).await?;
        if world.dice.chance(300) {
            story::recover(&mut world).await;
        }
    }
    world.weather.set_bad(false);
    world.crashes.store(false, Relaxed);
    story::recover(&mut world).await;
    story::suspend(&world).await;
    let end = clock::instant() + SETTLES;
    while world.checks.quiet() < QUIET || settled::unfinished(&world.checks, &world.disks).is_some() {
        watch_over(&world, Duration::from_secs(10)).await?;
        if clock::instant() >= end {
            let left = settled::unfinished(&world.checks, &world.disks)
                .unwrap_or_else(|| "something is written again and again".into());
            world.checks.fail(format!("it does not settle: {left}"));
        }
    }
    watch_over(&world, IDLE).await?;
    if world.checks.quiet() < IDLE {
        return Err("something was written although nothing happened".into());
    }
    let requests = world.weather.requests.load(Relaxed);
    println!("{requests} requests in {} simulated seconds", began.elapsed().as_secs());
    Ok(world.checks.digest())
}

/// One history in this process, as its parent asks for it.
#[test]
fn one_seed() {
    let Some(seed) = asked("SKIFF_SIM_CHILD") else { return };
    if asked("SKIFF_SIM_LOG").is_some() {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    }
    let run = move || {
        random::decide_by(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(history(seed, asked("SKIFF_SIM_STEPS").unwrap_or(STEPS)))
    };
    let (sender, done) = std::sync::mpsc::sync_channel(1);
    let thread = std::thread::spawn(move || sender.send(run()));
    // What loops without waiting for anything lets no simulated time pass.
    let ended = done.recv_timeout(HANGS);
    assert_ne!(ended, Err(std::sync::mpsc::RecvTimeoutError::Timeout), "no end after {HANGS:?}: something loops");
    thread.join().expect("it ends").expect("somebody listens");
    let digest = ended.expect("a result").unwrap_or_else(|wrong| panic!("{wrong}"));
    println!("history {digest:016x}");
}

fn child(seed: u64, steps: u64) -> Output {
    let itself = std::env::current_exe().unwrap();
    let arguments = ["--exact", "simulation::one_seed", "--nocapture"];
    let environment = [("SKIFF_SIM_CHILD", seed.to_string()), ("SKIFF_SIM_STEPS", steps.to_string())];
    Command::new(itself).args(arguments).envs(environment).output().unwrap()
}

fn run(seed: u64, steps: u64) -> Result<String, String> {
    let output = child(seed, steps);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let digest = out.lines().find_map(|l| l.split_once("history ").map(|(_, digest)| digest.to_owned()));
    match (output.status.success(), digest) {
        (true, Some(digest)) => Ok(digest),
        _ => Err(format!("{out}{err}\nSKIFF_SIM_SEED={seed} does it again")),
    }
}

#[test]
fn a_cluster_keeps_its_promises_whatever_befalls_it() {
    let (first, last) = match (asked("SKIFF_SIM_SEED"), asked("SKIFF_SIM_SEEDS")) {
        (Some(seed), more) => (seed, seed + more.unwrap_or(1) - 1),
        (None, more) => (1, more.unwrap_or(SEEDS)),
    };
    let steps = asked("SKIFF_SIM_STEPS").unwrap_or(STEPS);
    let next = AtomicU64::new(first);
    let work = || {
        let mut failed = Vec::new();
        while let Some(seed) = Some(next.fetch_add(1, Relaxed)).filter(|seed| *seed <= last) {
            if let Err(wrong) = run(seed, steps) {
                eprintln!("{wrong}");
                failed.push(seed);
            }
        }
        failed
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut failed: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    failed.sort_unstable();
    assert!(failed.is_empty(), "seeds {failed:?}");
}

#[test]
fn a_seed_is_one_history() {
    assert_eq!(run(1, FEW_STEPS).unwrap(), run(1, FEW_STEPS).unwrap());
}
