//! A disruption budget with real pods: what it does not allow is refused, and allowed when there are more.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::conformance::running_of;
use crate::lab::{IMAGE, Lab, wait_for};

pub fn a_budget_is_kept(lab: &Lab) {
    let labels = json!({"app": "guarded"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "guarded"}, "spec": {
        "replicas": 2, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": IMAGE}]}}}});
    lab.apply(&deployment.to_string());
    lab.kubectl(&["create", "pdb", "guarded", "--selector=app=guarded", "--min-available=2"]);
    let before: BTreeSet<String> = running_of(lab, "app=guarded", 2).into_iter().collect();
    let allowed = |expect: &Value| {
        wait_for("the budget to be counted", || {
            let budget = lab.json(&["get", "pdb", "guarded"]).ok()?;
            (budget["status"]["disruptionsAllowed"] == *expect && budget["status"]["currentHealthy"] != 0)
                .then_some(budget)
        })
    };
    let counted = allowed(&json!(0));
    assert_eq!(counted["status"]["conditions"][0]["reason"], "InsufficientPods", "{counted}");
    let victim = before.first().unwrap();
    let evict = || {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": victim}});
        let path = lab.dir.join("eviction.json");
        std::fs::write(&path, eviction.to_string()).unwrap();
        let url = format!("/api/v1/namespaces/default/pods/{victim}/eviction");
        lab.kubectl_output(&["create", "--raw", &url, "-f", &path.display().to_string()])
    };
    let refused = evict();
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && told.contains("violate the pod's disruption budget"), "{told}");
    lab.kubectl(&["scale", "deployment/guarded", "--replicas=3"]);
    allowed(&json!(1));
    let evicted = evict();
    assert!(evicted.status.success(), "{}", String::from_utf8_lossy(&evicted.stderr));
    wait_for("another pod in its place", || {
        let now: BTreeSet<String> = running_of(lab, "app=guarded", 3).into_iter().collect();
        (!now.contains(victim)).then_some(())
    });
    let line = wait_for("the budget to be whole again", || {
        let shown = lab.kubectl(&["get", "pdb", "guarded", "--no-headers"]);
        let columns: Vec<String> = shown.split_whitespace().map(str::to_owned).collect();
        (columns.get(3).map(String::as_str) == Some("1")).then_some(columns)
    });
    assert_eq!(line[..4], ["guarded", "2", "N/A", "1"]);
    lab.kubectl(&["delete", "deployment/guarded", "pdb/guarded"]);
}
