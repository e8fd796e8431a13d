//! Decides: which endpoints share a slice, so that few slices are written when few pods change.
//!
//! ```text
//! 1. who is in a slice stays there
//! 2. slices that are written anyway take who is new, the fullest first
//! 3. what is left goes into one slice that has room for all of it, the fullest such, or into new ones
//! ```
//!
//! As upstream's `reconcileByPortMapping`.

use std::collections::HashMap;

use k8s_openapi::api::discovery::v1::Endpoint;

/// Endpoints of one slice (`--max-endpoints-per-slice`).
pub const MAX_PER_SLICE: usize = 100;

/// A slice that there is.
pub struct Existing<'a> {
    pub endpoints: &'a [Endpoint],
    /// It is written whatever becomes of its endpoints.
    pub dirty: bool,
}

/// What is to be in slices.
#[derive(Debug, Default, PartialEq)]
pub struct Packed {
    /// Of those that there are; one that is empty can go.
    pub kept: Vec<Vec<Endpoint>>,
    pub new: Vec<Vec<Endpoint>>,
}

/// The same pod at the same address, whatever its state.
fn identity(endpoint: &Endpoint) -> (&[String], &str) {
    let uid = endpoint.target_ref.as_ref().and_then(|t| t.uid.as_deref());
    (&endpoint.addresses, uid.unwrap_or_default())
}

/// `keep_hints`: endpoints that stay keep the hints that they have.
#[must_use]
pub fn pack(existing: &[Existing<'_>], wanted: &[Endpoint], keep_hints: bool) -> Packed {
    let mut rest: HashMap<_, usize> = wanted.iter().enumerate().map(|(at, e)| (identity(e), at)).collect();
    let mut kept: Vec<Vec<Endpoint>> = Vec::with_capacity(existing.len());
    let (mut written, mut unchanged) = (Vec::new(), Vec::new());
    for (slot, slice) in existing.iter().enumerate() {
        let mut dirty = slice.dirty;
        let mut stay = Vec::with_capacity(slice.endpoints.len());
        for old in slice.endpoints {
            let Some(at) = rest.remove(&identity(old)) else { continue };
            let mut endpoint = wanted[at].clone();
            if keep_hints {
                endpoint.hints.clone_from(&old.hints);
            }
            dirty |= endpoint != *old;
            stay.push(endpoint);
        }
        dirty |= stay.len() != slice.endpoints.len();
        if dirty && !stay.is_empty() {
            written.push(slot);
        } else if !dirty {
            unchanged.push(slot);
        }
        kept.push(stay);
    }
    // In the order they came in: the same pods make the same slices.
    let mut left: Vec<usize> = rest.into_values().collect();
    left.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
    let fill = |slice: &mut Vec<Endpoint>, left: &mut Vec<usize>| {
        while slice.len() < MAX_PER_SLICE
            && let Some(at) = left.pop()
        {
            slice.push(wanted[at].clone());
        }
    };
    written.sort_by_key(|slot| std::cmp::Reverse(kept[*slot].len()));
    for slot in written {
        fill(&mut kept[slot], &mut left);
    }
    let mut new = Vec::new();
    while !left.is_empty() {
        let fits = |slot: &&usize| left.len() < MAX_PER_SLICE && kept[**slot].len() + left.len() <= MAX_PER_SLICE;
        if let Some(slot) = unchanged.iter().filter(fits).max_by_key(|slot| kept[**slot].len()).copied() {
            fill(&mut kept[slot], &mut left);
        } else {
            let mut slice = Vec::new();
            fill(&mut slice, &mut left);
            new.push(slice);
        }
    }
    Packed { kept, new }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoint(i: usize, ready: bool) -> Endpoint {
        serde_json::from_value(json!({
            "addresses": [format!("10.{}.{}.{}", i / 62_500, i / 250 % 250, i % 250)],
            "conditions": { "ready": ready },
            "targetRef": { "kind": "Pod", "uid": format!("u{i}") },
        }))
        .unwrap()
    }

    fn endpoints(of: impl IntoIterator<Item = usize>) -> Vec<Endpoint> {
        of.into_iter().map(|i| endpoint(i, true)).collect()
    }

    /// Sizes of the slices that there are and of new ones, and how many of the former are written.
    fn check(name: &str, existing: &[Vec<Endpoint>], wanted: &[Endpoint], want: (&[usize], &[usize], usize)) {
        let slices: Vec<Existing<'_>> = existing.iter().map(|e| Existing { endpoints: e, dirty: false }).collect();
        let packed = pack(&slices, wanted, false);
        let sizes = |all: &[Vec<Endpoint>]| all.iter().map(Vec::len).collect::<Vec<_>>();
        let written = existing.iter().zip(&packed.kept).filter(|(old, new)| old != new).count();
        assert_eq!(
            (sizes(&packed.kept), sizes(&packed.new), written),
            (want.0.to_vec(), want.1.to_vec(), want.2),
            "{name}"
        );
        let mut all: Vec<&Endpoint> = packed.kept.iter().chain(&packed.new).flatten().collect();
        all.sort_by_key(|e| identity(e));
        let mut wanted: Vec<&Endpoint> = wanted.iter().collect();
        wanted.sort_by_key(|e| identity(e));
        assert_eq!(all, wanted, "{name}: each endpoint once");
    }

    #[test]
    fn few_slices_are_written() {
        check("new", &[], &endpoints(0..250), (&[], &[100, 100, 50], 0));
        check("as they are", &[endpoints(0..3), endpoints(3..9)], &endpoints(0..9), (&[3, 6], &[], 0));
        let mut changed = endpoints(0..9);
        changed[4] = endpoint(4, false);
        check("one changes", &[endpoints(0..3), endpoints(3..9)], &changed, (&[3, 6], &[], 1));
        check("one goes", &[endpoints(0..3), endpoints(3..9)], &endpoints(1..9), (&[2, 6], &[], 1));
        check(
            "one comes: where it is fullest",
            &[endpoints(0..3), endpoints(3..9)],
            &endpoints(0..10),
            (&[3, 7], &[], 1),
        );
        check(
            "one goes, one comes: only one is written",
            &[endpoints(0..3), endpoints(3..9)],
            &endpoints(1..10),
            (&[3, 6], &[], 1),
        );
        check("the last goes", &[endpoints(0..1), endpoints(1..9)], &endpoints(1..9), (&[0, 8], &[], 1));
        // Two writes would do without a new slice; so does one with it.
        let nearly = [endpoints(0..90), endpoints(90..180)];
        check("no room for all in one", &nearly, &endpoints(0..200), (&[90, 90], &[20], 0));
        check("room for all in one", &nearly, &endpoints(0..190), (&[90, 100], &[], 1));
        check("a slice and more", &[endpoints(0..50)], &endpoints(0..170), (&[70], &[100], 1));
    }

    #[test]
    fn one_of_five_thousand_is_one_write() {
        let slices: Vec<Vec<Endpoint>> = (0..50).map(|n| endpoints(n * 100..n * 100 + 100)).collect();
        let full: Vec<usize> = vec![100; 50];
        let mut changed = endpoints(0..5000);
        changed[4321] = endpoint(4321, false);
        check("changes", &slices, &changed, (&full, &[], 1));
        changed.remove(4321);
        let mut fewer = full.clone();
        fewer[43] = 99;
        check("goes", &slices, &changed, (&fewer, &[], 1));
        changed.push(endpoint(5000, true));
        check("is replaced", &slices, &changed, (&full, &[], 1));
        check("comes", &slices, &endpoints(0..5001), (&full, &[1], 0));
    }

    #[test]
    fn what_is_written_anyway_takes_who_is_new() {
        let slice = [endpoints(0..10)];
        let relabelled = [Existing { endpoints: &slice[0], dirty: true }];
        assert_eq!(pack(&relabelled, &endpoints(0..105), false).kept[0].len(), 100);
        let mut hinted = endpoint(1, true);
        hinted.hints = Some(serde_json::from_value(json!({ "forZones": [{ "name": "z" }] })).unwrap());
        let there = [hinted.clone()];
        let existing = [Existing { endpoints: &there, dirty: false }];
        assert_eq!(pack(&existing, &[endpoint(1, true)], true).kept[0], [hinted]);
        assert_eq!(pack(&existing, &[endpoint(1, true)], false).kept[0][0].hints, None);
    }
}
