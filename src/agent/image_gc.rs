//! Decides and effects: images that nobody uses are removed when their disk fills, the one that was not used for the
//! longest time first. Those in use by containers or by volumes, imported from an archive of this node, or pinned stay
//! (`pkg/kubelet/images/image_gc_manager.go`).

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::context::NodeContext;
use super::events::Kind as EventKind;
use super::eviction::signals::Observation;
use super::pod::table::PodEntry;
use super::pod::{is_final, pod_spec};
use crate::config::kubelet::ImageGc as Policy;
use crate::cri::in_use::Mounts;
use crate::cri::{Image, images_dir, pause};
use crate::{clock, cri};

/// What is known of the images, and when they were used.
#[derive(Default)]
pub struct ImageGc {
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    /// By image id.
    records: HashMap<String, Record>,
    mounts: Mounts,
    /// When images were looked at for the first time; those that were there then are old.
    began: Option<Instant>,
    failed: bool,
}

#[derive(Clone, Debug)]
struct Record {
    /// `None`: before the agent started.
    seen: Option<Instant>,
    used: Option<Instant>,
}

/// An image as the plan needs it.
#[derive(Clone, Debug)]
struct Candidate {
    id: String,
    bytes: u64,
    /// In use, imported or pinned.
    stays: bool,
    record: Record,
}

impl ImageGc {
    /// Looks at the disk of the images, and removes as many as the policy says. What fails is told.
    pub async fn collect(&self, cx: &NodeContext) {
        let mut memory = self.memory.lock().await;
        let result = memory.collect(cx).await;
        let failed_before = std::mem::replace(&mut memory.failed, result.is_err());
        let Err(error) = result else { return };
        tracing::warn!(error, "image garbage collection failed");
        // Once is nothing: the runtime may be starting.
        if failed_before {
            cx.events.node(&cx.config.node_name, EventKind::Warning, "ImageGCFailed", error);
        }
    }

    /// Removes every image that may go.
    ///
    /// # Errors
    /// What the runtime said.
    pub async fn remove_unused(&self, cx: &NodeContext) -> Result<u64, String> {
        let mut memory = self.memory.lock().await;
        let policy = cx.config.kubelet.image_gc;
        let images = memory.look(cx).await.map_err(|error| error.to_string())?;
        memory.remove(cx, &surplus(&images, u64::MAX, policy.min_age, clock::instant())).await
    }
}

impl Memory {
    async fn collect(&mut self, cx: &NodeContext) -> Result<(), String> {
        let policy = cx.config.kubelet.image_gc;
        let images = self.look(cx).await.map_err(|error| error.to_string())?;
        let now = clock::instant();
        let old = expired(&images, &policy, self.began, now);
        if !old.is_empty() {
            self.remove(cx, &old).await?;
        }
        let directory = cx.images.directory().await.map_err(|error| error.to_string())?;
        let Some(disk) = cx.gauges.imagefs(&directory).filter(|disk| disk.capacity > 0) else {
            let message = "invalid capacity 0 on image filesystem";
            cx.events.node(&cx.config.node_name, EventKind::Warning, "InvalidDiskCapacity", message);
            return Err(message.into());
        };
        let Some(wanted) = to_free(disk, &policy) else { return Ok(()) };
        let images: Vec<Candidate> =
            images.into_iter().filter(|image| old.iter().all(|gone| gone.id != image.id)).collect();
        let freed = self.remove(cx, &surplus(&images, wanted, policy.min_age, now)).await?;
        if freed < wanted {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found \
                 {freed} bytes eligible to free."
            );
            cx.events.node(&cx.config.node_name, EventKind::Warning, "FreeDiskSpaceFailed", message.clone());
            return Err(message);
        }
        Ok(())
    }

    /// Brings the records up to date.
    async fn look(&mut self, cx: &NodeContext) -> cri::Result<Vec<Candidate>> {
        let images = cx.images.list().await?;
        // After the images: what came meanwhile is not looked at.
        let mut used = self.mounts.used(&*cx.runtime).await?;
        for reference in volumes(&cx.pods.entries()) {
            used.extend(cx.images.find(&reference).await?.map(|image| image.id));
        }
        let now = clock::instant();
        let imported = images_dir::imported(&cx.config.data_dir);
        let seen = self.began.map(|_| now);
        self.began.get_or_insert(now);
        self.records.retain(|id, _| images.iter().any(|image| image.id == *id));
        let mut found = Vec::with_capacity(images.len());
        for image in images {
            let in_use = names(&image).any(|name| used.contains(name));
            let record = self.records.entry(image.id.clone()).or_insert(Record { seen, used: None });
            if in_use {
                record.used = Some(now);
            }
            let stays =
                in_use || image.pinned || names(&image).any(|name| name == pause::NAME || imported.contains(name));
            found.push(Candidate { id: image.id, bytes: image.size_bytes, stays, record: record.clone() });
        }
        Ok(found)
    }

    /// Removes these, and returns how many bytes they had.
    async fn remove(&mut self, cx: &NodeContext, doomed: &[Candidate]) -> Result<u64, String> {
        let (mut freed, mut problems) = (0, Vec::new());
        for image in doomed {
            match cx.images.remove(&image.id).await {
                Ok(()) => {
                    tracing::info!(image = image.id, bytes = image.bytes, "image removed: nobody uses it");
                    self.records.remove(&image.id);
                    freed += image.bytes;
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        match problems.is_empty() {
            true => Ok(freed),
            false => Err(format!(
                "wanted to free images, but freed {freed} bytes space with errors in image deletion: {}",
                problems.join(", ")
            )),
        }
    }
}

/// The images that volumes of pods are, as the pods name them. Those of a pod that waits for its other volumes are mounted
/// nowhere yet.
fn volumes(pods: &[PodEntry]) -> BTreeSet<String> {
    let alive = pods.iter().filter(|entry| !is_final(&entry.status));
    let volumes = alive.flat_map(|entry| pod_spec(&entry.pod).volumes.iter().flatten());
    volumes.filter_map(|volume| volume.image.as_ref()?.reference.clone()).collect()
}

fn names(image: &Image) -> impl Iterator<Item = &str> {
    std::iter::once(&image.id).chain(&image.tags).chain(&image.digests).map(String::as_str)
}

/// Bytes that must go when the disk is fuller than it may be.
fn to_free(disk: Observation, policy: &Policy) -> Option<u64> {
    let (capacity, available) = (i128::from(disk.capacity), i128::from(disk.available.min(disk.capacity)));
    let used_percent = 100 - available * 100 / capacity;
    if used_percent < i128::from(policy.high_percent) {
        return None;
    }
    let wanted = capacity * i128::from(100 - policy.low_percent.min(100)) / 100 - available;
    u64::try_from(wanted).ok().filter(|wanted| *wanted > 0)
}

/// The images to remove until so many bytes are free.
fn surplus(images: &[Candidate], wanted: u64, min_age: Duration, now: Instant) -> Vec<Candidate> {
    let is_old = |image: &&Candidate| image.record.seen.is_none_or(|seen| now.duration_since(seen) >= min_age);
    let mut unused: Vec<&Candidate> = images.iter().filter(|image| !image.stays).filter(is_old).collect();
    unused.sort_by_cached_key(|image| (image.record.used, image.record.seen, image.id.clone()));
    let mut left = wanted;
    let mut doomed = Vec::new();
    for image in unused {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(image.bytes);
        doomed.push(image.clone());
    }
    doomed
}

/// The images that were not used for too long, whatever room there is. Nobody knows how long it was before the agent
/// started: until it runs for as long, none is too old.
fn expired(images: &[Candidate], policy: &Policy, began: Option<Instant>, now: Instant) -> Vec<Candidate> {
    let runs_long = began.is_some_and(|began| now.duration_since(began) > policy.max_age);
    if policy.max_age.is_zero() || !runs_long {
        return Vec::new();
    }
    let unused_for = |image: &Candidate| {
        let last = image.record.used.or(image.record.seen).or(began);
        last.map_or(Duration::ZERO, |last| now.duration_since(last))
    };
    images.iter().filter(|image| !image.stays && unused_for(image) > policy.max_age).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kubelet::Kubelet;

    fn image(id: &str, seen: Option<Instant>, used: Option<Instant>) -> Candidate {
        Candidate { id: id.into(), bytes: 100, stays: false, record: Record { seen, used } }
    }

    #[test]
    fn nothing_goes_below_the_high_mark_and_then_down_to_the_low_one() {
        let policy = Kubelet::default().image_gc;
        for (available, expect) in [(160, None), (151, Some(49)), (150, Some(50)), (0, Some(200)), (2000, None)] {
            let disk = Observation { available, capacity: 1000 };
            assert_eq!(to_free(disk, &policy), expect, "{available}");
        }
    }

    #[test]
    fn the_one_that_was_not_used_for_longest_goes_first() {
        let now = clock::instant() + Duration::from_secs(10_000);
        let ago = |seconds: u64| Some(now - Duration::from_secs(seconds));
        let mut in_use = image("in-use", None, None);
        in_use.stays = true;
        let images = [
            image("used-lately", None, ago(5)),
            image("young", ago(119), None),
            image("never-used", ago(120), None),
            image("old-and-never-used", None, None),
            in_use,
            image("used-long-ago", ago(9000), ago(500)),
        ];
        let doomed = |wanted: u64| -> Vec<String> {
            surplus(&images, wanted, Duration::from_secs(120), now).into_iter().map(|image| image.id).collect()
        };
        assert_eq!(doomed(0), Vec::<String>::new());
        assert_eq!(doomed(101), ["old-and-never-used", "never-used"]);
        assert_eq!(doomed(u64::MAX), ["old-and-never-used", "never-used", "used-long-ago", "used-lately"]);
    }

    #[test]
    fn unused_images_expire_once_the_agent_ran_for_as_long() {
        let began = clock::instant();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        let policy = Policy { max_age: Duration::from_secs(100), ..Kubelet::default().image_gc };
        let images = [image("a", None, None), image("b", None, Some(at(50))), image("c", Some(at(90)), None)];
        let old = |policy: &Policy, now: u64| -> Vec<String> {
            expired(&images, policy, Some(began), at(now)).into_iter().map(|image| image.id).collect()
        };
        assert_eq!(old(&policy, 100), Vec::<String>::new());
        assert_eq!(old(&policy, 101), ["a"]);
        assert_eq!(old(&policy, 151), ["a", "b"]);
        assert_eq!(old(&Kubelet::default().image_gc, 10_000), Vec::<String>::new());
    }
}
