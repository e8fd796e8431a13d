//! Tests: containers that get other resources while they run.

use serde_json::{Value, json};

use super::{create, get, is_ready, until};
use crate::lab::{IMAGE, Lab};

/// CPU and memory of a container in millicores and mebibytes: requested, and its limits; 0 names none.
type Amounts = [u32; 4];

fn resources([cpu, memory, cpu_limit, memory_limit]: Amounts) -> Value {
    let list = |cpu: u32, memory: u32| {
        let mut list = json!({});
        if cpu > 0 {
            list["cpu"] = format!("{cpu}m").into();
        }
        if memory > 0 {
            list["memory"] = format!("{memory}Mi").into();
        }
        list
    };
    let mut out = json!({});
    for (name, list) in [("requests", list(cpu, memory)), ("limits", list(cpu_limit, memory_limit))] {
        if list != json!({}) {
            out[name] = list;
        }
    }
    out
}

fn containers(all: &[Amounts]) -> Value {
    let each =
        all.iter().enumerate().map(|(n, amounts)| json!({"name": format!("c{n}"), "resources": resources(*amounts)}));
    each.collect()
}

/// What each container runs with.
fn told(pod: &Value) -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|c| (c["name"].as_str().unwrap_or_default().to_owned(), c["resources"].clone()))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn settled(pod: &Value, wanted: &[Amounts]) -> bool {
    let wanted: Vec<(String, Value)> =
        wanted.iter().enumerate().map(|(n, amounts)| (format!("c{n}"), resources(*amounts))).collect();
    let resizing = pod["status"]["conditions"].to_string().contains("PodResize");
    told(pod) == wanted && !resizing && is_ready(pod)
}

fn start(lab: &Lab, name: &str, before: &[Amounts]) {
    let mut all = containers(before);
    for container in all.as_array_mut().unwrap() {
        (container["image"], container["imagePullPolicy"]) = (IMAGE.into(), "Never".into());
        container["command"] = json!(["sleep", "100000"]);
    }
    create(
        lab,
        &[&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": all}})],
    );
    until(lab, &format!("pod/{name}"), |pod| settled(pod, before));
}

/// A pod whose containers get other amounts, and back; none is restarted.
fn check(lab: &Lab, name: &str, before: &[Amounts], after: &[Amounts]) {
    start(lab, name, before);
    for wanted in [after, before] {
        let patch = json!({"spec": {"containers": containers(wanted)}}).to_string();
        lab.kubectl(&["patch", "pod", name, "--subresource=resize", "-p", &patch]);
        let pod = until(lab, &format!("pod/{name}"), |pod| settled(pod, wanted));
        for status in pod["status"]["containerStatuses"].as_array().unwrap() {
            assert_eq!(status["restartCount"], 0, "{name}: {status:#}");
        }
    }
    lab.kubectl(&["delete", "pod", name]);
}

pub fn many_containers_are_resized_together(lab: &Lab) {
    let three = [[10, 20, 10, 20], [20, 30, 20, 30], [30, 40, 30, 40]];
    check(lab, "resize-more", &three, &[[20, 30, 20, 30], [30, 40, 30, 40], [40, 50, 40, 50]]);
    check(
        lab,
        "resize-less",
        &[[40, 50, 40, 50], three[1], three[2]],
        &[[20, 50, 20, 50], [10, 30, 10, 30], [20, 40, 20, 40]],
    );
    check(lab, "resize-mixed", &three, &[[20, 20, 20, 20], [10, 40, 10, 40], [30, 30, 30, 30]]);
    let six =
        [[10, 20, 20, 40], [10, 20, 20, 40], [10, 20, 0, 0], [10, 20, 20, 40], [10, 20, 20, 40], [10, 20, 20, 40]];
    let other =
        [[15, 20, 30, 40], [5, 20, 15, 40], [20, 20, 0, 0], [10, 30, 20, 50], [15, 30, 25, 50], [5, 30, 15, 40]];
    check(lab, "resize-six", &six, &other);
    // The kernel has no less than two shares.
    check(lab, "resize-same", &[[2, 0, 10, 0]], &[[1, 0, 5, 0]]);
}

pub fn a_resize_is_read_and_replaced(lab: &Lab) {
    start(lab, "resize-put", &[[10, 20, 20, 40]]);
    let at = "/api/v1/namespaces/default/pods/resize-put";
    let raw = |path: &str| serde_json::from_str::<Value>(&lab.kubectl(&["get", "--raw", path])).unwrap();
    let mut wanted = raw(&format!("{at}/resize"));
    wanted["spec"]["containers"][0]["resources"] = resources([20, 20, 30, 40]);
    let path = lab.dir.join("resize.json");
    std::fs::write(&path, wanted.to_string()).unwrap();
    lab.kubectl(&["replace", "--raw", &format!("{at}/resize"), "-f", &path.display().to_string()]);
    until(lab, "pod/resize-put", |pod| settled(pod, &[[20, 20, 30, 40]]));
    assert_eq!(raw(&format!("{at}/resize")), raw(at));
    assert_eq!(get(lab, "pod/resize-put")["status"]["containerStatuses"][0]["restartCount"], 0);
    lab.kubectl(&["delete", "pod", "resize-put"]);
}
