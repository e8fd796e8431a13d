//! Decides: whether a node under pressure takes one more pod.

use k8s_openapi::api::core::v1::{Pod, Toleration};

use super::{REASON, is_critical};
use crate::agent::cgroups::{Qos, qos};
use crate::agent::node_info::Pressure;
use crate::agent::pod::admit::Refusal;
use crate::agent::pod::pod_spec;

const MEMORY_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// Critical pods always; while only memory is short all but those that ask for none.
#[must_use]
pub fn refusal(pod: &Pod, pressure: Pressure) -> Option<Refusal> {
    let message = match (pressure.memory, pressure.disk, pressure.pid) {
        (false, false, false) => return None,
        (true, false, false) => "The node had condition: [MemoryPressure]. ",
        (false, true, false) => "The node had condition: [DiskPressure]. ",
        (false, false, true) => "The node had condition: [PIDPressure]. ",
        (true, true, false) => "The node had condition: [MemoryPressure DiskPressure]. ",
        (true, false, true) => "The node had condition: [MemoryPressure PIDPressure]. ",
        (false, true, true) => "The node had condition: [DiskPressure PIDPressure]. ",
        (true, true, true) => "The node had condition: [MemoryPressure DiskPressure PIDPressure]. ",
    };
    if is_critical(pod) {
        return None;
    }
    let only_memory = !pressure.disk && !pressure.pid;
    let tolerates = || pod_spec(pod).tolerations.iter().flatten().any(tolerates_memory_pressure);
    if only_memory && (qos(pod) != Qos::BestEffort || tolerates()) {
        return None;
    }
    Some(Refusal { reason: REASON, message: message.to_owned() })
}

fn tolerates_memory_pressure(toleration: &Toleration) -> bool {
    let text = |field: &Option<String>| field.as_deref().unwrap_or_default().to_owned();
    let (key, effect, value) = (text(&toleration.key), text(&toleration.effect), text(&toleration.value));
    let exists = toleration.operator.as_deref() == Some("Exists");
    let key_fits = key == MEMORY_TAINT || (key.is_empty() && exists);
    key_fits && (effect.is_empty() || effect == "NoSchedule") && (exists || value.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MEMORY: Pressure = Pressure { memory: true, disk: false, pid: false };
    const DISK: Pressure = Pressure { memory: false, disk: true, pid: false };
    const BOTH: Pressure = Pressure { memory: true, disk: true, pid: false };

    fn check(spec: Value, pressure: Pressure, expect: Option<&str>) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("valid");
        let found = refusal(&pod, pressure);
        assert_eq!(found.map(|refusal| refusal.message.to_string()).as_deref(), expect, "{spec} {pressure:?}");
    }

    #[test]
    fn under_memory_pressure_only_those_that_ask_for_nothing_are_refused() {
        let best_effort = json!({"containers": [{"name": "c"}]});
        let burstable = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1m"}}}]});
        let memory = Some("The node had condition: [MemoryPressure]. ");
        let disk = Some("The node had condition: [DiskPressure]. ");
        check(best_effort.clone(), MEMORY, memory);
        check(burstable.clone(), MEMORY, None);
        check(burstable.clone(), DISK, disk);
        check(burstable.clone(), BOTH, Some("The node had condition: [MemoryPressure DiskPressure]. "));
        check(burstable, Pressure { memory: false, ..MEMORY }, None);
        for (toleration, expect) in [
            (json!({"key": MEMORY_TAINT, "operator": "Exists"}), None),
            (json!({"operator": "Exists"}), None),
            (json!({"key": MEMORY_TAINT, "operator": "Exists", "effect": "NoExecute"}), memory),
            (json!({"key": "another", "operator": "Exists"}), memory),
        ] {
            let mut spec = best_effort.clone();
            spec["tolerations"] = json!([toleration]);
            check(spec.clone(), MEMORY, expect);
            check(spec, DISK, disk);
        }
        check(json!({"priority": 2_000_000_000, "containers": [{"name": "c"}]}), BOTH, None);
    }
}
