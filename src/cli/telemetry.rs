//! Effects: logging, the async runtime, signals.

use std::future::Future;
use std::process::ExitCode;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::source::Values;
use crate::supervisor::chain;

/// Two workers serve a Pi; more would only hold memory.
const WORKERS: usize = 2;
/// Blocking threads: SQLite's readers, image archives. Idle ones end by themselves.
const BLOCKING_THREADS: usize = 16;

/// Runs a command to its end.
pub fn run<E: std::error::Error>(values: &Values, command: impl Future<Output = Result<(), E>>) -> ExitCode {
    let debug = values.get("debug").and_then(|v| v.last()).is_some_and(|v| v == "true");
    let (ours, others) =
        if debug { (LevelFilter::DEBUG, LevelFilter::INFO) } else { (LevelFilter::INFO, LevelFilter::WARN) };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    let levels = Targets::new().with_target("skiff", ours).with_default(others);
    tracing_subscriber::registry().with(lines).with(levels).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("skiff: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skiff: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}
