//! Decides: whether the counters that devices of a pool share leave room for one more of them.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::resource::v1::Device;

use super::Taken;
use super::capacity::amount;
use super::pools::Pool;
use crate::api::quantity::Quantity;

/// What is left, by counter set and counter.
type Left<'a> = BTreeMap<(&'a str, &'a str), Quantity>;

/// What is left in each pool where it was asked for.
#[derive(Default)]
pub struct Counters<'a>(HashMap<usize, Left<'a>>);

impl<'a> Counters<'a> {
    /// Takes what a device of a pool consumes, if that is left.
    pub fn take(&mut self, number: usize, pool: &Pool<'a>, device: &'a Device, taken: &Taken<'a>) -> bool {
        let left = self.0.entry(number).or_insert_with(|| left(pool, taken));
        let enough = consumption(device).all(|(counter, n)| left.get(&counter).is_some_and(|has| n <= *has));
        if enough {
            for (counter, n) in consumption(device) {
                *left.entry(counter).or_default() -= n;
            }
        }
        enough
    }

    /// Gives it back.
    pub fn give_back(&mut self, number: usize, device: &'a Device) {
        if let Some(left) = self.0.get_mut(&number) {
            for (counter, n) in consumption(device) {
                *left.entry(counter).or_default() += n;
            }
        }
    }
}

#[must_use]
pub fn is_counted(device: &Device) -> bool {
    device.consumes_counters.as_ref().is_some_and(|c| !c.is_empty())
}

fn consumption(device: &Device) -> impl Iterator<Item = ((&str, &str), Quantity)> {
    let sets = device.consumes_counters.iter().flatten();
    sets.flat_map(|set| {
        let counters = set.counters.iter();
        counters.map(|(name, counter)| {
            ((set.counter_set.as_str(), name.as_str()), amount(&counter.value).unwrap_or_default())
        })
    })
}

/// What the pool has, without what its devices that are in use consume, wherever they are.
fn left<'a>(pool: &Pool<'a>, taken: &Taken<'a>) -> Left<'a> {
    let mut left = Left::new();
    for set in pool.slices.iter().flat_map(|s| s.spec.shared_counters.iter().flatten()) {
        for (name, counter) in &set.counters {
            left.insert((&set.name, name), amount(&counter.value).unwrap_or_default());
        }
    }
    let devices = pool.slices.iter().flat_map(|s| s.spec.devices.iter().flatten());
    for device in devices.filter(|d| taken.has((pool.driver, pool.name, &d.name))) {
        for (counter, n) in consumption(device) {
            *left.entry(counter).or_default() -= n;
        }
    }
    left
}
