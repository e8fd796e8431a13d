//! Figures of streams, printed: `sh tests/bench.sh`. Nothing here fails because a machine is slow.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use skiff::cri::Runtime as _;
use skiff::cri::client::Client;
use skiff::cri::containerd::Layout;

use crate::lab::{IMAGE, Lab, now, wait_for};
use crate::load::Target;
use crate::support::skip;

const EXECS: usize = 50;
/// Of the log that is read, in bytes.
const LOG: usize = 256 << 20;

#[test]
#[ignore = "prints figures; run by tests/bench.sh"]
fn streams() {
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root");
    }
    let lab = Lab::with_server(1);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bench"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "c", "image": IMAGE, "command": ["/bin/sh", "-c", "echo up; sleep 100000"],
        }]},
    });
    lab.apply(&pod.to_string());
    lab.kubectl(&["wait", "--for=condition=Ready", "pod/bench", "--timeout=60s"]);
    let pod = lab.json(&["get", "pod", "bench"]).unwrap();
    let id = pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().to_owned();
    println!("{}", floor(&Layout::new(&lab.machines[0].data_dir).socket(), id.trim_start_matches("containerd://")));
    let kubeconfig = lab.kubeconfig();
    let lines = lab.machines[0].in_network(move || rounds(&kubeconfig)).join().unwrap();
    println!("{lines}");

    let logs = lab.machines[0].data_dir.join("agent/log/pods");
    let folder = std::fs::read_dir(logs)
        .unwrap()
        .flatten()
        .map(|e| e.path())
        .find(|p| p.display().to_string().contains("default_bench_"));
    let log = folder.unwrap().join("c/0.log");
    wait_for("the first line", || std::fs::metadata(&log).ok().filter(|m| m.len() > 0));
    fill(&log);
    let kubeconfig = lab.kubeconfig();
    let lines = lab.machines[0].in_network(move || read_logs(&kubeconfig)).join().unwrap();
    println!("{lines}");
}

/// As a runtime writes it.
fn fill(log: &Path) {
    let mut text = String::new();
    while text.len() < 1 << 20 {
        let _ = writeln!(
            text,
            "2026-01-01T00:00:00.123456789Z stdout F {}",
            "a line of a log that is not very long. ".repeat(3)
        );
    }
    let mut file = std::fs::OpenOptions::new().append(true).open(log).unwrap();
    for _ in 0..LOG >> 20 {
        file.write_all(text.as_bytes()).unwrap();
    }
}

/// What the runtime itself takes for the same command, by one call.
fn floor(socket: &Path, id: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let command = ["echo", "hello"].map(str::to_owned);
    let times = runtime.block_on(async {
        let client = Client::new(socket);
        let mut times = Vec::new();
        for _ in 0..EXECS {
            let begin = now();
            let ran = client.exec(id, &command, Duration::from_secs(10)).await.unwrap();
            assert_eq!(ran.stdout, b"hello\n");
            times.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        times
    });
    shown("the runtime's own exec", times)
}

fn shown(what: &str, mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    format!("{what}: median {:.1} ms, p90 {:.1} ms", times[EXECS / 2], times[EXECS * 9 / 10])
}

/// A command that says one word: from the first byte of the connection to the word of how it ended.
fn rounds(kubeconfig: &Path) -> String {
    let target = Target::new(kubeconfig);
    let mut times = Vec::new();
    for _ in 0..EXECS {
        let begin = now();
        let mut stream = target.stream(&[b"http/1.1"]);
        stream
            .write_all(
                b"GET /api/v1/namespaces/default/pods/bench/exec?command=echo&command=hello&stdout=true&stderr=true HTTP/1.1\r\n\
                  host: skiff\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                  sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: v5.channel.k8s.io\r\n\r\n",
            )
            .unwrap();
        let (mut said, mut block) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&said).contains("\"status\":\"Success\"") {
            let count = stream.read(&mut block).unwrap();
            assert_ne!(count, 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&block[..count]);
        }
        assert!(String::from_utf8_lossy(&said).contains("hello\n"));
        times.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    shown("exec round trip", times)
}

#[allow(clippy::cast_precision_loss, reason = "printed")]
fn read_logs(kubeconfig: &Path) -> String {
    let target = Target::new(kubeconfig);
    let mut lines = String::new();
    for (what, query) in
        [("logs", ""), ("logs with timestamps", "?timestamps=true"), ("the last line of them", "?tailLines=1")]
    {
        let begin = now();
        let mut stream = target.stream(&[b"http/1.1"]);
        let request = format!(
            "GET /api/v1/namespaces/default/pods/bench/log{query} HTTP/1.1\r\nhost: skiff\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let (mut total, mut block) = (0, vec![0; 256 << 10]);
        loop {
            match stream.read(&mut block) {
                Ok(0) | Err(_) => break,
                Ok(count) => total += count,
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        let _ = writeln!(
            lines,
            "{what}: {:.0} MB in {:.3} s, {:.0} MB/s",
            total as f64 / 1e6,
            seconds,
            total as f64 / 1e6 / seconds
        );
    }
    lines
}
