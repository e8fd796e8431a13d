//! Decides: what an eviction says, word for word as the kubelet says it.

use k8s_openapi::api::core::v1::Pod;

use super::measure::Usage;
use super::signals::Signals;
use crate::agent::pod::{containers, name, pod_spec};
use crate::api::quantity::{Format, Quantity};
use crate::config::eviction::{Signal, Threshold};

/// What a signal is about.
#[must_use]
pub fn resource(signal: Signal) -> &'static str {
    match signal {
        Signal::MemoryAvailable | Signal::AllocatableMemoryAvailable => "memory",
        Signal::NodefsAvailable | Signal::ImagefsAvailable => "ephemeral-storage",
        Signal::NodefsInodesFree | Signal::ImagefsInodesFree => "inodes",
        Signal::PidAvailable => "pids",
    }
}

/// Why a pod had to go: what was short, by how much, and which of its containers used more than they asked for.
#[must_use]
pub fn starved(pod: &Pod, usage: Option<&Usage>, signal: Signal, starved: &[Threshold], signals: &Signals) -> String {
    let short = resource(signal);
    let mut text = format!("The node was low on resource: {short}. ");
    let same = starved.iter().find(|threshold| resource(threshold.signal) == short);
    if let Some((threshold, seen)) = same.and_then(|threshold| Some((threshold, signals.get(&threshold.signal)?))) {
        let format = if matches!(short, "inodes" | "pids") { Format::Decimal } else { Format::Binary };
        let quantity = Quantity::from_bytes(threshold.value.of(seen.capacity));
        let available = Quantity::from_units(seen.available, format);
        text += &format!("Threshold quantity: {quantity}, available: {available}. ");
    }
    let Some(usage) = usage else { return text };
    let own = pod_spec(pod).resources.as_ref().and_then(|own| own.requests.as_ref()?.get(short));
    if let Some(own) = own.filter(|_| short == "memory") {
        let used = Quantity::from_bytes(usage.memory_bytes());
        text += &larger("Pod", name(pod), used, &own.0, short);
    }
    for (container, of) in &usage.containers {
        let used = match short {
            "memory" => of.memory_bytes,
            "ephemeral-storage" => of.rootfs.bytes.saturating_add(of.logs.bytes),
            _ => continue,
        };
        let Some((_, spec)) = containers(pod).find(|(_, spec)| spec.name == *container) else { continue };
        let asked = spec.resources.as_ref().and_then(|own| own.requests.as_ref()?.get(short));
        let asked = asked.map_or("0", |quantity| quantity.0.as_str());
        let used = Quantity::from_bytes(used);
        if Quantity::parse(asked).is_ok_and(|asked| used > asked) {
            text += &larger("Container", container, used, asked, short);
        }
    }
    text
}

fn larger(kind: &str, name: &str, used: Quantity, asked: &str, resource: &str) -> String {
    format!("{kind} {name} was using {used}, request is {asked}, has larger consumption of {resource}. ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::agent::eviction::measure::{Disk, OfContainer};
    use crate::agent::eviction::signals::Observation;
    use crate::config::eviction::Amount;

    #[test]
    fn as_the_kubelet_words_it() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "a", "resources": {"requests": {"memory": "64Mi"}}}, {"name": "b"}]}}))
        .expect("valid");
        let of = |mebibytes: i64| OfContainer {
            memory_bytes: mebibytes << 20,
            rootfs: Disk { bytes: mebibytes << 10, inodes: 1 },
            logs: Disk::default(),
        };
        let usage =
            Usage { containers: [("a".to_owned(), of(65)), ("b".to_owned(), of(1))].into(), ..Usage::default() };
        let threshold = |signal, value| Threshold { signal, value, grace: Duration::ZERO, min_reclaim: None };
        let memory = threshold(Signal::MemoryAvailable, Amount::Units(100 << 20));
        let disk = threshold(Signal::NodefsAvailable, Amount::Percent(5.0));
        let inodes = threshold(Signal::NodefsInodesFree, Amount::Percent(5.0));
        let signals = Signals::from([
            (Signal::MemoryAvailable, Observation { available: 50 << 20, capacity: 1 << 30 }),
            (Signal::NodefsAvailable, Observation { available: 1025, capacity: 100 << 10 }),
            (Signal::NodefsInodesFree, Observation { available: 3, capacity: 1000 }),
        ]);
        let all = [memory, disk, inodes];
        let said = |signal| starved(&pod, Some(&usage), signal, &all, &signals);
        assert_eq!(
            said(Signal::MemoryAvailable),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container a was using \
             65Mi, request is 64Mi, has larger consumption of memory. Container b was using 1Mi, request is 0, has \
             larger consumption of memory. "
        );
        assert_eq!(
            said(Signal::NodefsAvailable),
            "The node was low on resource: ephemeral-storage. Threshold quantity: 5Ki, available: 1025. Container a \
             was using 65Ki, request is 0, has larger consumption of ephemeral-storage. Container b was using 1Ki, \
             request is 0, has larger consumption of ephemeral-storage. "
        );
        assert_eq!(
            said(Signal::NodefsInodesFree),
            "The node was low on resource: inodes. Threshold quantity: 50, available: 3. "
        );
        assert_eq!(starved(&pod, None, Signal::PidAvailable, &all, &signals), "The node was low on resource: pids. ");
    }
}
