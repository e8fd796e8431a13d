//! Effects: how full a volume is, as its driver says (`csi_client.go`, `nodeGetVolumeStatsV1`).

use std::path::Path;

use super::v1::volume_usage::Unit;
use super::v1::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse};
use super::{Csi, call};
use crate::agent::volumes::Filled;

impl Csi {
    /// What the driver says of a volume that is published at `path`; `None` from one that says nothing of volumes.
    ///
    /// # Errors
    /// The driver is not there, or what it answered instead.
    pub async fn measure(&self, driver: &str, handle: &str, path: &Path) -> Result<Option<Filled>, String> {
        // It may be away for long, and whoever asks waits: so not for its registration.
        let known = self.drivers.borrow().get(driver).cloned();
        let known = known.ok_or_else(|| super::driver::Error::NotRegistered(driver.to_owned()).to_string())?;
        if !known.can.stats {
            return Ok(None);
        }
        let request = NodeGetVolumeStatsRequest {
            volume_id: handle.to_owned(),
            volume_path: path.display().to_string(),
            staging_target_path: String::new(),
        };
        let answer = call::within(known.node().node_get_volume_stats(request)).await;
        parse(&answer.map_err(|error| error.to_string())?).map(Some)
    }
}

fn parse(answer: &NodeGetVolumeStatsResponse) -> Result<Filled, String> {
    if answer.usage.is_empty() {
        return Err("failed to get usage from response. usage is nil".into());
    }
    let mut filled = Filled::default();
    for usage in &answer.usage {
        let [available, total, used] =
            [usage.available, usage.total, usage.used].map(|n| u64::try_from(n).unwrap_or(0));
        match usage.unit() {
            Unit::Bytes => {
                (filled.available_bytes, filled.capacity_bytes, filled.used_bytes) = (available, total, used);
            }
            Unit::Inodes => (filled.inodes_free, filled.inodes, filled.inodes_used) = (available, total, used),
            Unit::Unknown => {}
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::csi::v1::VolumeUsage;

    #[test]
    fn bytes_and_inodes_are_told_apart() {
        let usage = |unit: Unit, available, total, used| VolumeUsage { available, total, used, unit: unit.into() };
        let answer = |usage| NodeGetVolumeStatsResponse { usage };
        let both = vec![usage(Unit::Bytes, 1, 3, 2), usage(Unit::Inodes, 4, 9, 5), usage(Unit::Unknown, 7, 7, 7)];
        let expect =
            Filled { capacity_bytes: 3, available_bytes: 1, used_bytes: 2, inodes: 9, inodes_free: 4, inodes_used: 5 };
        assert_eq!(parse(&answer(both)), Ok(expect));
        assert_eq!(parse(&answer(vec![usage(Unit::Bytes, -1, 3, 4)])).map(|f| f.available_bytes), Ok(0));
        assert!(parse(&answer(Vec::new())).is_err());
    }
}
