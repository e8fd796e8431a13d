//! Effects: takes a pod's iSCSI volumes away again, and what nobody uses any more; by the records on disk, so that it does
//! not matter which agent mounted them.

use std::sync::Arc;
use std::time::Duration;

use super::records::{Place, User};
use super::{Iscsi, session};
use crate::agent::volumes::teardown;

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(30);

impl Iscsi {
    /// Whether a pod has volumes, or wants some.
    #[must_use]
    pub fn has_volumes(&self, uid: &str) -> bool {
        self.records.all().iter().any(|place| place.users().iter().any(|user| user.uid == uid))
    }

    /// Takes away all iSCSI volumes of a pod whose containers are gone. Fine when there are none.
    ///
    /// # Errors
    /// What keeps one of them; the others are gone. To be tried again.
    pub async fn release(self: &Arc<Iscsi>, uid: &str) -> Result<(), String> {
        let mut of_pod = Vec::new();
        for place in self.records.all() {
            of_pod.extend(place.users().into_iter().filter(|user| user.uid == uid).map(|user| (place.clone(), user)));
        }
        if of_pod.is_empty() {
            return Ok(());
        }
        let subpaths = self.records.kubelet.join("pods").join(uid).join("volume-subpaths");
        tokio::task::spawn_blocking(move || teardown::unmount_below(&subpaths))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("subPath not unmounted: {error}"))?;
        let mut first = Ok(());
        for (place, user) in of_pod {
            let iscsi = Arc::clone(self);
            let result = self.work.finish(async move { iscsi.one(&place, &user).await }).await;
            first = first.and(result.unwrap_or_else(|| Err("the agent stops".into())));
        }
        first
    }

    /// One volume of one pod, and the volume itself when that was the last pod.
    async fn one(&self, place: &Place, user: &User) -> Result<(), String> {
        let lock = self.work.lock_of(&place.key());
        let _held = lock.lock().await;
        let named = |error: String| {
            format!("UnmountVolume.TearDown failed for volume {:?} pod {:?}: {error}", user.volume, user.uid)
        };
        let folder = self.records.target(user, false);
        self.mounter().unmount(&folder).await.map_err(named)?;
        // The folder is empty, or there is none; the device is a link.
        let removed = [std::fs::remove_dir(&folder), std::fs::remove_file(self.records.target(user, true))];
        for result in removed {
            super::records::gone(result).map_err(|error| named(error.to_string()))?;
        }
        place.remove(user).map_err(|error| named(error.to_string()))?;
        self.detach(place).await
    }

    /// With the volume's lock held. Does nothing while a pod has the volume, or wants it.
    async fn detach(&self, place: &Place) -> Result<(), String> {
        if !place.users().is_empty() {
            return Ok(());
        }
        let disk = place.read();
        let volume = disk.as_ref().map(|disk| disk.volume.clone()).unwrap_or_default();
        let named = |error: String| format!("UnmountDevice failed for volume {volume:?}: {error}");
        self.mounter().unmount(&place.global()).await.map_err(named)?;
        // Without a record nothing was begun.
        if let Some(disk) = disk {
            session::detach(self, place, &disk).await.map_err(named)?;
        }
        place.forget().map(drop).map_err(|error| named(error.to_string()))
    }

    /// Volumes of pods that are not known any more, and those without any: an agent that was killed between two steps
    /// leaves them.
    pub fn remove_unused(self: &Arc<Iscsi>, is_known: impl Fn(&str) -> bool) {
        for place in self.records.all() {
            let users = place.users();
            let gone: Vec<User> = users.iter().filter(|user| !is_known(&user.uid)).cloned().collect();
            if gone.is_empty() && !users.is_empty() {
                continue;
            }
            let iscsi = Arc::clone(self);
            self.work.begin(async move {
                let mut delay = FIRST_RETRY;
                while let Err(error) = iscsi.remove(&place, &gone).await {
                    tracing::warn!(error, "an iSCSI volume that nobody uses stays; trying again");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(LAST_RETRY);
                }
            });
        }
    }

    async fn remove(&self, place: &Place, gone: &[User]) -> Result<(), String> {
        for user in gone {
            self.one(place, user).await?;
        }
        let lock = self.work.lock_of(&place.key());
        let _held = lock.lock().await;
        self.detach(place).await
    }

    /// All of them: skiff is uninstalled, and no pod runs any more.
    ///
    /// # Errors
    /// What keeps one of them; the others are gone.
    pub async fn remove_all(&self) -> Result<(), String> {
        let mut first = Ok(());
        for place in self.records.all() {
            first = first.and(self.remove(&place, &place.users()).await);
        }
        first
    }
}
