//! Effects: work on volumes that goes on when the pod goes that asked for it: one call about a volume at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

#[derive(Default)]
pub struct Work {
    /// By what names a volume. Held during calls about it.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Work {
    pub fn lock_of(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = lock(&self.locks);
        // Those that nobody holds are made again when they are needed.
        locks.retain(|_, held| Arc::strong_count(held) > 1);
        Arc::clone(locks.entry(name.to_owned()).or_default())
    }

    /// Runs what must not stop half-way when whoever asked for it goes. `None` when the agent stops.
    pub async fn finish<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let (tell, told) = oneshot::channel();
        self.begin(async move {
            // Nobody may be left to hear it.
            let _ = tell.send(work.await);
        });
        told.await.ok()
    }

    /// The same, when nobody waits for it.
    pub fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(work);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
