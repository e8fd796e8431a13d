//! Loop: runs the components of a process and stops them in order.
//!
//! Components are added in the order data flows; they are stopped in the reverse of it, each stage waited for before
//! the next, so that whatever a component needs outlives it. The first component that fails stops everything.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A stage that has not stopped by then is aborted.
const STAGE_DEADLINE: Duration = Duration::from_secs(10);

/// Why a process ends.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{component} failed: {message}")]
    Failed { component: &'static str, message: String },
    #[error("{component} ended by itself; this is a bug")]
    Ended { component: &'static str },
}

struct Stage {
    stop: CancellationToken,
    deadline: Duration,
    tasks: JoinSet<(&'static str, Result<(), String>)>,
}

/// Owns every long-lived task of the process.
#[derive(Default)]
pub struct Supervisor {
    stages: Vec<Stage>,
}

impl Supervisor {
    /// Opens a stage: components added from now on stop before all earlier ones.
    pub fn stage(&mut self) {
        self.stages.push(Stage { stop: CancellationToken::new(), deadline: STAGE_DEADLINE, tasks: JoinSet::new() });
    }

    /// Gives the newest stage so much more time to stop.
    ///
    /// # Panics
    /// When no stage was opened.
    pub fn patience(&mut self, more: Duration) {
        self.stages.last_mut().expect("a stage was opened").deadline += more;
    }

    /// How long it may take to stop everything.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.stages.iter().map(|stage| stage.deadline).sum()
    }

    /// Starts a component in the newest stage.
    ///
    /// # Panics
    /// When no stage was opened.
    pub fn add<E: std::error::Error, F: Future<Output = Result<(), E>> + Send + 'static>(
        &mut self,
        component: &'static str,
        start: impl FnOnce(CancellationToken) -> F,
    ) {
        let stage = self.stages.last_mut().expect("a stage was opened");
        let run = start(stage.stop.clone());
        stage.tasks.spawn(async move { (component, run.await.map_err(|e| chain(&e))) });
    }

    /// Waits for `signal` or a failure, then stops everything.
    ///
    /// # Errors
    /// The failure of the first component that ended before it was told to.
    pub async fn run(mut self, signal: impl Future<Output = ()>) -> Result<(), Failure> {
        let failed = {
            let any = futures::future::select_all(self.stages.iter_mut().map(|s| Box::pin(ended(&mut s.tasks))));
            tokio::select! {
                (failure, ..) = any => Some(failure),
                () = signal => None,
            }
        };
        if let Some(failure) = &failed {
            tracing::error!(%failure, "stopping");
        }
        while let Some(stage) = self.stages.pop() {
            stop(stage).await;
        }
        failed.map_or(Ok(()), Err)
    }
}

async fn ended(tasks: &mut JoinSet<(&'static str, Result<(), String>)>) -> Failure {
    match tasks.join_next().await {
        Some(Ok((component, Ok(())))) => Failure::Ended { component },
        Some(Ok((component, Err(message)))) => Failure::Failed { component, message },
        Some(Err(error)) => Failure::Failed { component: "a component", message: error.to_string() },
        None => std::future::pending().await,
    }
}

async fn stop(mut stage: Stage) {
    stage.stop.cancel();
    let all = async { while stage.tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(stage.deadline, all).await.is_err() {
        tracing::warn!(left = stage.tasks.len(), "components did not stop in time and are aborted");
        stage.tasks.shutdown().await;
    }
}

/// Ends when the process is asked to stop (SIGTERM, SIGINT).
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::warn!("signals cannot be received: only SIGKILL will stop this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("asked to stop");
}

/// An error with its causes, in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn the_last_stage_stops_first() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut supervisor = Supervisor::default();
        for name in ["store", "listener"] {
            let order = order.clone();
            supervisor.stage();
            supervisor.add(name, |stop| async move {
                stop.cancelled().await;
                order.lock().unwrap().push(name);
                Ok::<_, Failure>(())
            });
        }
        supervisor.run(std::future::ready(())).await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["listener", "store"]);
    }

    #[test]
    fn stages_that_need_longer_are_waited_for() {
        let mut supervisor = Supervisor::default();
        assert_eq!(supervisor.longest(), Duration::ZERO);
        supervisor.stage();
        supervisor.stage();
        supervisor.patience(Duration::from_secs(300));
        assert_eq!(supervisor.longest(), Duration::from_secs(320));
    }

    #[tokio::test]
    async fn a_failure_stops_the_others_and_is_returned() {
        let mut supervisor = Supervisor::default();
        supervisor.stage();
        supervisor.add("good", |stop| async move {
            stop.cancelled().await;
            Ok::<_, Failure>(())
        });
        supervisor.add("bad", |_| async { Err(Failure::Ended { component: "x" }) });
        let error = supervisor.run(std::future::pending()).await.unwrap_err();
        assert!(error.to_string().starts_with("bad failed: x ended"), "{error}");
    }
}
