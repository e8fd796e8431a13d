//! The kubelet endpoint as monitoring and administrators use it: who may ask, figures, logs of nodes, `kubectl logs`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::lab::{IMAGE, Lab, wait_for};
use crate::support::skip;

const NODE: &str = "/api/v1/nodes/m1/proxy";

#[test]
fn a_node_is_watched_and_asked() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let lab = Lab::with_server(1);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "busy"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "c", "image": IMAGE,
            "command": ["/bin/sh", "-c", "echo out; echo err >&2; while true; do echo tick; sleep 0.2; done"],
            "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
            "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
        }]},
    });
    lab.apply(&pod.to_string());
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/busy", "--timeout=60s"]);

    through_the_server(&lab);
    figures(&lab);
    who_may_ask(&lab);
    logs(&lab);
}

fn raw(lab: &Lab, path: &str) -> String {
    lab.kubectl(&["get", "--raw", &format!("{NODE}{path}")])
}

fn through_the_server(lab: &Lab) {
    assert_eq!(raw(lab, "/healthz"), "ok");
    let list = |path: &str| -> Value { serde_json::from_str(&raw(lab, path)).unwrap() };
    for path in ["/pods", "/runningpods/"] {
        let pods = list(path);
        let names: Vec<_> = pods["items"].as_array().unwrap().iter().map(|p| &p["metadata"]["name"]).collect();
        assert!(names.contains(&&json!("busy")), "{path}: {names:?}");
    }
    let config = list("/configz");
    assert_eq!(config["kubeletconfig"]["maxPods"], 110);
    assert_eq!(config["kubeletconfig"]["clusterDNS"], json!(["10.43.0.10"]));
    let summary = list("/stats/summary");
    let node = &summary["node"];
    assert!(
        node["fs"]["capacityBytes"].as_u64().unwrap() > 0 && node["memory"]["workingSetBytes"].as_u64().unwrap() > 0
    );
    let busy = summary["pods"].as_array().unwrap().iter().find(|p| p["podRef"]["name"] == "busy").unwrap();
    assert!(busy["containers"][0]["logs"]["usedBytes"].as_u64().unwrap() > 0, "{busy}");
    assert!(busy["network"]["interfaces"].as_array().is_some_and(|i| !i.is_empty()), "{busy}");
    let token = &busy["volume"][0];
    assert!(token["name"].as_str().is_some_and(|name| name.starts_with("kube-api-access-")), "{busy}");
    assert!(token["usedBytes"].as_u64().unwrap() > 0 && token["capacityBytes"].as_u64().unwrap() > 0, "{busy}");
    let little = list("/stats/summary?only_cpu_and_memory=true");
    let busy = little["pods"].as_array().unwrap().iter().find(|p| p["podRef"]["name"] == "busy").unwrap();
    assert!(busy["volume"].is_null() && busy["cpu"]["usageCoreNanoSeconds"].is_u64(), "{busy}");

    // The machine's logs; the lab shares them with who runs it.
    let folder = raw(lab, "/logs/");
    assert!(folder.contains("<pre>") && folder.contains("</pre>"), "{folder}");
    let escape = lab.kubectl_output(&["get", "--raw", &format!("{NODE}/logs/..%2f..%2fetc%2fpasswd")]);
    assert!(!escape.status.success(), "{escape:?}");

    let ran =
        lab.kubectl(&["create", "--raw", &format!("{NODE}/run/default/busy/c?cmd=echo+hello"), "-f", "/dev/null"]);
    assert_eq!(ran, "hello\n");
    // runc without CRIU, and containerd before 2.0, cannot.
    let checkpoint =
        lab.kubectl_output(&["create", "--raw", &format!("{NODE}/checkpoint/default/busy/c"), "-f", "/dev/null"]);
    let text =
        format!("{}{}", String::from_utf8_lossy(&checkpoint.stdout), String::from_utf8_lossy(&checkpoint.stderr));
    assert!(
        text.contains("checkpointing of default/busy/c failed") || text.contains("checkpoint-busy_default-c-"),
        "{text}"
    );
}

/// The value of a sample whose line has all of these.
fn sample(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = text.lines().find(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|l| line.contains(l))
    })?;
    let after = line.rsplit_once('}').map_or_else(|| line.split_once(' ').map(|(_, v)| v), |(_, v)| Some(v))?;
    after.split_whitespace().next()?.parse().ok()
}

fn figures(lab: &Lab) {
    let own = ["container=\"c\"", "namespace=\"default\"", "pod=\"busy\""];
    let check = |text: &str, name: &str, labels: &[&str]| {
        let value = sample(text, name, labels).unwrap_or_else(|| panic!("{name} {labels:?} is not in:\n{text}"));
        assert!(value.is_finite(), "{name}");
        value
    };
    let text = raw(lab, "/metrics");
    assert!(check(&text, "kubelet_running_pods", &[]) >= 1.0);
    assert!(check(&text, "kubelet_running_containers", &["container_state=\"running\""]) >= 1.0);
    check(&text, "kubelet_node_name", &["node=\"m1\""]);
    assert!(check(&text, "process_resident_memory_bytes", &[]) > 1e6);

    let text = raw(lab, "/metrics/resource");
    assert!(check(&text, "container_cpu_usage_seconds_total", &own) > 0.0);
    assert!(check(&text, "container_memory_working_set_bytes", &own) > 0.0);
    assert!(check(&text, "pod_memory_working_set_bytes", &own[1..]) > 0.0);
    assert!(check(&text, "node_cpu_usage_seconds_total", &[]) > 0.0);
    assert!(check(&text, "container_start_time_seconds", &own) > 1.7e9);
    assert!(check(&text, "resource_scrape_error", &[]).abs() < 0.5);

    let text = raw(lab, "/metrics/cadvisor");
    assert!(check(&text, "container_cpu_usage_seconds_total", &[&own[..], &["cpu=\"total\""]].concat()) > 0.0);
    assert!(check(&text, "container_memory_working_set_bytes", &own) > 0.0);
    assert!((check(&text, "container_spec_memory_limit_bytes", &own) - 67_108_864.0).abs() < 1.0);
    assert!((check(&text, "container_spec_cpu_quota", &own) - 50_000.0).abs() < 1.0);
    check(&text, "container_cpu_cfs_periods_total", &own);
    check(&text, "container_fs_usage_bytes", &own);
    assert!(check(&text, "container_network_receive_bytes_total", &["interface=\"eth0\"", own[1], own[2]]) > 0.0);
    assert!(check(&text, "machine_memory_bytes", &[]) > 1e8);

    wait_for("a probe's count", || {
        sample(
            &raw(lab, "/metrics/probes"),
            "prober_probe_total",
            &["probe_type=\"Readiness\"", "result=\"successful\""],
        )
    });
    // Every line is one that Prometheus reads.
    for path in ["/metrics", "/metrics/resource", "/metrics/cadvisor", "/metrics/probes"] {
        let text = raw(lab, path);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let value = line
                .rsplit_once('}')
                .map_or(line, |(_, rest)| rest)
                .split_whitespace()
                .find_map(|w| w.parse::<f64>().ok());
            assert!(value.is_some(), "{path}: {line}");
        }
    }
}

/// Directly, as Prometheus does.
fn ask(lab: &Lab, path: &str, token: Option<&str>) -> (String, String) {
    let mut command: Command = lab.machines[0].command("curl".as_ref());
    command.args(["-sk", "--max-time", "20", "-w", "\n%{http_code}"]).arg(format!("https://127.0.0.1:10250{path}"));
    if let Some(token) = token {
        command.arg("-H").arg(format!("Authorization: Bearer {token}"));
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, code) = text.rsplit_once('\n').unwrap();
    (code.to_owned(), body.to_owned())
}

fn who_may_ask(lab: &Lab) {
    for account in ["monitor", "nobody", "fine"] {
        lab.kubectl(&["create", "serviceaccount", account]);
    }
    let grant = |account: &str, resource: &str, verb: &str| {
        let (verb, resource) = (format!("--verb={verb}"), format!("--resource={resource}"));
        lab.kubectl(&["create", "clusterrole", account, &verb, &resource]);
        let (role, subject) = (format!("--clusterrole={account}"), format!("--serviceaccount=default:{account}"));
        lab.kubectl(&["create", "clusterrolebinding", account, &role, &subject]);
    };
    grant("monitor", "nodes/metrics,nodes/stats", "get");
    grant("fine", "nodes/pods,nodes/healthz,nodes/configz", "get");
    let token = |account: &str| lab.kubectl(&["create", "token", account]).trim().to_owned();
    let (monitor, nobody, fine) = (token("monitor"), token("nobody"), token("fine"));
    let check = |path: &str, token: Option<&str>, expect: &str| {
        let (code, body) = ask(lab, path, token);
        assert_eq!(code, expect, "{path}: {body}");
        body
    };
    for path in ["/pods", "/metrics", "/healthz", "/exec/default/busy/c?command=id"] {
        assert_eq!(check(path, None, "401"), "Unauthorized");
    }
    check("/pods", Some("not a token"), "401");
    let text = check("/metrics/cadvisor", Some(&nobody), "403");
    let expect =
        "Forbidden (user=system:serviceaccount:default:nobody, verb=get, resource=nodes, subresource(s)=[metrics])\n";
    assert_eq!(text, expect);
    check("/metrics/cadvisor", Some(&monitor), "200");
    check("/stats/summary", Some(&monitor), "200");
    let text = check("/pods", Some(&monitor), "403");
    assert!(text.contains("subresource(s)=[pods proxy]"), "{text}");
    check("/containerLogs/default/busy/c", Some(&monitor), "403");
    for path in ["/pods", "/runningpods/", "/healthz", "/configz"] {
        check(path, Some(&fine), "200");
    }
    check("/metrics", Some(&fine), "403");
}

fn logs(lab: &Lab) {
    let log = |more: &[&str]| lab.kubectl(&[&["logs", "busy"][..], more].concat());
    assert!(log(&[]).starts_with("out\n") || log(&[]).contains("\nout\n"));
    assert_eq!(log(&["--limit-bytes=2"]).len(), 2);
    assert_eq!(log(&["--tail=3"]), "tick\ntick\ntick\n");
    assert_eq!(log(&["--since-time=2999-01-01T00:00:00Z"]), "");
    let stamped = log(&["--timestamps", "--tail=1"]);
    assert!(
        stamped
            .split(' ')
            .next()
            .is_some_and(|t| t.ends_with('Z') && t.len() == "2006-01-02T15:04:05.000000000Z".len()),
        "{stamped}"
    );
    let of = |stream: &str| {
        lab.kubectl(&["get", "--raw", &format!("/api/v1/namespaces/default/pods/busy/log?stream={stream}")])
    };
    assert_eq!(of("Stderr"), "err\n");
    assert!(!of("Stdout").contains("err"));
    let previous = lab.kubectl_output(&["logs", "--previous", "busy"]);
    let text = String::from_utf8_lossy(&previous.stderr).into_owned();
    assert!(text.contains("previous terminated container \"c\" in pod \"busy\" not found"), "{text}");
}
