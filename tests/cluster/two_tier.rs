//! The story that everything else hangs on: a two-tier application comes up, answers, scales, rolls, and survives.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::{Lab, Machine, wait_for};
use crate::support::{images, skip};

const NODE_PORT: u16 = 30080;

/// An HTTP server: the backend tells its secret, the frontend asks the backend by its Service name.
fn application(version: &str) -> Vec<u8> {
    let backend = format!(
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\necho \"{version} $GREETING from $HOSTNAME\"\n"
    );
    let frontend = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\ncurl -sm 5 http://backend:8080/cgi-bin/who || echo failed\n";
    // PID 1 ignores SIGTERM unless it says otherwise.
    let serve = "#!/bin/sh\ntrap 'exit 0' TERM\nhttpd -f -p 8080 -h /www &\nwait\n";
    let files: [(&str, u32, &[u8]); 4] = [
        ("www/cgi-bin/who", 0o755, backend.as_bytes()),
        ("www/cgi-bin/front", 0o755, frontend.as_bytes()),
        ("www/index.html", 0o644, b"ok\n"),
        ("serve", 0o755, serve.as_bytes()),
    ];
    images::busybox(&format!("test.local/app:{version}"), &json!({"Cmd": ["/serve"]}), &files)
}

const MANIFEST: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: backend, labels: {app: backend}}
spec:
  replicas: 2
  selector: {matchLabels: {app: backend}}
  template:
    metadata: {labels: {app: backend}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: app
        image: test.local/app:v1
        envFrom: [{secretRef: {name: greeting}}]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /index.html, port: http}, periodSeconds: 1}
        lifecycle: {preStop: {exec: {command: [sleep, '2']}}}
        resources: {requests: {cpu: 10m, memory: 8Mi}, limits: {memory: 64Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: backend}
spec: {selector: {app: backend}, ports: [{port: 8080, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: frontend, labels: {app: frontend}}
spec:
  replicas: 1
  selector: {matchLabels: {app: frontend}}
  template:
    metadata: {labels: {app: frontend}}
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: app
        image: test.local/app:v1
        ports: [{containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {exec: {command: [sleep, '2']}}}
---
apiVersion: v1
kind: Service
metadata: {name: frontend}
spec: {type: NodePort, selector: {app: frontend}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
";

/// One request, as any client outside the cluster sends it.
fn get(ip: Ipv4Addr, port: u16, path: &str) -> Result<String, String> {
    let text = |e: std::io::Error| e.to_string();
    let address = SocketAddr::from((ip, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(text)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("no answer: {answer:?}"))?;
    if head.contains(" 200 ") { Ok(body.to_owned()) } else { Err(head.to_owned()) }
}

fn ask(from: &Machine, ip: Ipv4Addr) -> Result<String, String> {
    from.in_network(move || get(ip, NODE_PORT, "/cgi-bin/front")).join().unwrap()
}

/// Requests one after another until told to stop; counts those that failed.
struct Load {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU32>,
    total: Arc<AtomicU32>,
    thread: std::thread::JoinHandle<()>,
}

impl Load {
    fn start(from: &Machine, ip: Ipv4Addr) -> Self {
        let (stop, failed, total): (Arc<AtomicBool>, Arc<AtomicU32>, Arc<AtomicU32>) = Default::default();
        let (s, f, t) = (stop.clone(), failed.clone(), total.clone());
        let thread = from.in_network(move || {
            while !s.load(Ordering::Relaxed) {
                match get(ip, NODE_PORT, "/cgi-bin/front") {
                    Ok(body) if body.contains("hello from") => {}
                    other => {
                        eprintln!("request failed: {other:?}");
                        f.fetch_add(1, Ordering::Relaxed);
                    }
                }
                t.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { stop, failed, total, thread }
    }

    /// (failed, total)
    fn end(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        (self.failed.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

fn pods(lab: &Lab, selector: &str) -> Vec<Value> {
    let list = lab.json(&["get", "pods", "-l", selector]).unwrap_or_default();
    list["items"].as_array().cloned().unwrap_or_default()
}

fn ready_pods(lab: &Lab, selector: &str) -> usize {
    let ready = |p: &&Value| crate::lab::condition(p, "Ready").is_some_and(|s| s == "True");
    pods(lab, selector).iter().filter(ready).count()
}

fn restarts(pod: &Value) -> i64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or_default()
}

#[test]
fn a_two_tier_application_comes_up_rolls_and_survives() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    // Two nodes and a client outside the cluster.
    let mut lab = Lab::new(3);
    lab.image("v1.tar", &application("v1"));
    lab.image("v2.tar", &application("v2"));
    lab.server(&[]);
    let server_ip = lab.machines[0].ip;

    // Comes up, and answers through the NodePort.
    let env_file = lab.dir.join("greeting.env");
    std::fs::write(&env_file, "GREETING=hello\n").unwrap();
    let from_file = format!("--from-env-file={}", env_file.display());
    lab.kubectl(&["create", "secret", "generic", "greeting", &from_file]);
    lab.apply(MANIFEST);
    lab.kubectl(&["rollout", "status", "deployment/backend", "--timeout=60s"]);
    lab.kubectl(&["rollout", "status", "deployment/frontend", "--timeout=60s"]);
    // Ready pods reach the ruleset and the names a moment later.
    wait_for("an answer of the backend", || {
        let answer = ask(&lab.machines[2], server_ip).ok()?;
        answer.starts_with("v1 hello from backend-").then_some(())
    });
    // From the node itself, too.
    assert!(ask(&lab.machines[0], server_ip).is_ok());

    // What kubectl shows.
    let table = lab.kubectl(&["get", "deployments"]);
    assert!(
        table.starts_with("NAME       READY   UP-TO-DATE   AVAILABLE   AGE\nbackend    2/2     2            2"),
        "{table}"
    );
    let name = pods(&lab, "app=backend")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let described = lab.kubectl(&["describe", "pod", &name]);
    for part in [
        "Successfully assigned default/backend-",
        "Container created",
        "Container started",
        "QoS Class:                   Burstable",
    ] {
        assert!(described.contains(part), "{part} is not in:\n{described}");
    }
    assert_eq!(lab.kubectl(&["exec", &name, "--", "sh", "-c", "echo $GREETING"]), "hello\n");
    let failed = lab.kubectl_output(&["exec", &name, "--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7), "{failed:?}");

    // Scales.
    lab.kubectl(&["scale", "deployment/backend", "--replicas=5"]);
    wait_for("5 backends", || (ready_pods(&lab, "app=backend") == 5).then_some(()));

    // Rolls to a new image without a failed request, and back.
    let load = Load::start(&lab.machines[2], server_ip);
    lab.kubectl(&["set", "image", "deployment/backend", "app=test.local/app:v2"]);
    lab.kubectl(&["rollout", "status", "deployment/backend", "--timeout=90s"]);
    wait_for("the new version", || ask(&lab.machines[2], server_ip).ok()?.starts_with("v2 ").then_some(()));
    let (failed, total) = load.end();
    assert!(total > 20, "only {total} requests were made");
    assert_eq!(failed, 0, "of {total} requests");
    let history = lab.kubectl(&["rollout", "history", "deployment/backend"]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    // kubectl itself warns that the deployment was applied.
    assert!(lab.kubectl_output(&["rollout", "undo", "deployment/backend"]).status.success());
    lab.kubectl(&["rollout", "status", "deployment/backend", "--timeout=90s"]);
    wait_for("the old version", || ask(&lab.machines[2], server_ip).ok()?.starts_with("v1 ").then_some(()));

    // Survives the death of a container.
    let victim = pods(&lab, "app=frontend")[0].clone();
    let victim_name = victim["metadata"]["name"].as_str().unwrap();
    lab.kubectl_output(&["exec", victim_name, "--", "sh", "-c", "kill -9 -1"]);
    wait_for("the restart of the frontend", || {
        let pod = lab.json(&["get", "pod", victim_name]).ok()?;
        (restarts(&pod) == 1 && crate::lab::condition(&pod, "Ready").as_deref() == Some("True")).then_some(())
    });
    wait_for("an answer after the restart", || ask(&lab.machines[2], server_ip).ok());
    let previous = lab.kubectl_output(&["logs", victim_name, "--previous"]);
    assert!(previous.status.success(), "{previous:?}");

    // Survives the death of server and agent (one process here): no container restarts, nothing acknowledged is lost.
    // The pods of the roll-back are gone by then: 5 backends and the frontend.
    wait_for("six pods", || (pods(&lab, "app").len() == 6).then_some(()));
    let before: Vec<(Value, i64)> =
        pods(&lab, "app").iter().map(|p| (p["metadata"]["uid"].clone(), restarts(p))).collect();
    lab.kubectl(&["create", "configmap", "last-write", "--from-literal=a=b"]);
    lab.machines[0].kill();
    assert!(ask(&lab.machines[2], server_ip).is_ok(), "traffic flows without the server");
    lab.machines[0].restart();
    lab.node_ready("m1");
    assert!(lab.json(&["get", "configmap", "last-write"]).is_ok());
    let after: Vec<(Value, i64)> =
        pods(&lab, "app").iter().map(|p| (p["metadata"]["uid"].clone(), restarts(p))).collect();
    assert_eq!(before, after);

    // A second node joins and takes work; pods and Services reach each other across.
    lab.join(2);
    lab.kubectl(&["scale", "deployment/backend", "--replicas=8"]);
    wait_for("8 backends", || (ready_pods(&lab, "app=backend") == 8).then_some(()));
    let nodes: std::collections::BTreeSet<String> =
        pods(&lab, "app=backend").iter().map(|p| p["spec"]["nodeName"].as_str().unwrap().to_owned()).collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    let second = lab.machines[1].ip;
    wait_for("an answer through the second node", || ask(&lab.machines[2], second).ok());
    let remote = pods(&lab, "app=backend").into_iter().find(|p| p["spec"]["nodeName"] == "m2").unwrap();
    let remote_ip = remote["status"]["podIP"].as_str().unwrap();
    let frontend = pods(&lab, "app=frontend")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let url = format!("http://{remote_ip}:8080/cgi-bin/who");
    assert!(lab.kubectl(&["exec", &frontend, "--", "curl", "-sm", "5", &url]).contains("hello from"));
    let remote_name = remote["metadata"]["name"].as_str().unwrap();
    let through = lab.kubectl(&["exec", remote_name, "--", "curl", "-sm", "5", "http://frontend/cgi-bin/front"]);
    assert!(through.contains("hello from"), "{through}");

    // The second node's agent dies: its pods go on.
    lab.machines[1].kill();
    let still = lab.kubectl(&["exec", &frontend, "--", "curl", "-sm", "5", &url]);
    assert!(still.contains("hello from"), "{still}");
    lab.machines[1].restart();
    wait_for("the agent's return", || {
        let pod = lab.json(&["get", "pod", remote_name]).ok()?;
        (lab.kubectl_output(&["exec", remote_name, "--", "true"]).status.success() && restarts(&pod) == 0).then_some(())
    });

    // Goes away when told to.
    lab.kubectl(&["delete", "deployment,service", "--all", "--timeout=60s"]);
    wait_for("no pods", || pods(&lab, "app").is_empty().then_some(()));
}
