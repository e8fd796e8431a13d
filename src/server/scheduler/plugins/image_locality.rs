//! Decides: `ImageLocality`: nodes that have the pod's images already, so far as others have them too.

use super::{Cycle, MAX_SCORE};

const MIB: i64 = 1 << 20;
/// Less than this is not worth a thought.
const LEAST: i64 = 23 * MIB;
/// More than this, for each container, is worth no more.
const MOST: i64 = 1000 * MIB;

/// The bytes of an image count by the share of nodes that have it, lest a node that was first gets everything.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "bytes, as upstream reckons")]
pub fn scores(cycle: &Cycle, slots: &[usize]) -> Option<Vec<i64>> {
    let wanted = &cycle.wants.images;
    let known: Vec<(u32, f64)> = wanted
        .iter()
        .filter_map(|name| cycle.snapshot.image(name))
        .map(|(number, on)| (number, on as f64 / cycle.node_count.max(1) as f64))
        .collect();
    if known.is_empty() {
        // As good as everyone's zero.
        return None;
    }
    let most = MOST * i64::try_from(wanted.len()).unwrap_or(1);
    let score = |slot: &usize| {
        let node = cycle.snapshot.node(*slot);
        let there = known.iter().filter_map(|(number, share)| Some((node.image(*number)? as f64 * share) as i64));
        MAX_SCORE * (there.sum::<i64>().clamp(LEAST, most) - LEAST) / (most - LEAST)
    };
    Some(slots.iter().map(score).collect())
}
