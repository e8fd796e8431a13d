//! Tests: probes, and what follows from them.

use std::cell::Cell;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use super::{Case, container, create, get, is_ready, until};
use crate::lab::Lab;

/// Where the machine itself answers gRPC's health checks.
const GRPC_PORT: u16 = 9555;

const ALIVE: [&str; 4] = ["live-http", "live-tcp", "live-exec", "live-grpc"];
const DYING: [&str; 3] = ["dies-http", "dies-exec", "dies-grpc"];

/// The pods whose probes take their time.
pub fn begin(lab: &Lab) {
    lab.machines[0].in_network(serve_health);
    let serve = "mkdir /w; touch /w/healthz; exec httpd -f -p 8080 -h /w";
    let stops = "mkdir /w; touch /w/healthz; (sleep 4; rm /w/healthz) & exec httpd -f -p 8080 -h /w";
    let every_second = |probe: &Value, delay: i64, threshold: i64| {
        let mut probe = probe.clone();
        crate::lab::merge(
            &mut probe,
            &json!({"periodSeconds": 1, "initialDelaySeconds": delay, "failureThreshold": threshold}),
        );
        probe
    };
    let live = |probe: Value| json!({"livenessProbe": every_second(&probe, 2, 1)});
    let http = || json!({"httpGet": {"path": "/healthz", "port": 8080}});
    let exec = || json!({"exec": {"command": ["cat", "/tmp/health"]}});
    let grpc = |port: u16| json!({"grpc": {"port": port}});
    let always = json!({"restartPolicy": "Always"});
    let on_host = json!({"hostNetwork": true});
    let sleep = "exec sleep 100000";
    let ready = |probe: &Value, delay| json!({"readinessProbe": every_second(probe, delay, 1)});
    let cases = [
        Case::new("live-http", serve, "").container(&live(http())),
        Case::new("live-tcp", stops, "").container(&live(json!({"tcpSocket": {"port": 8080}}))),
        Case::new("live-exec", "touch /tmp/health; exec sleep 100000", "").container(&live(exec())),
        Case::new("live-grpc", sleep, "").container(&live(grpc(GRPC_PORT))).spec(&on_host),
        Case::new("dies-http", stops, "").container(&live(http())),
        Case::new("dies-exec", "touch /tmp/health; sleep 4; rm /tmp/health; exec sleep 100000", "")
            .container(&live(exec())),
        Case::new("dies-grpc", sleep, "").container(&live(grpc(GRPC_PORT + 1))).spec(&on_host),
        Case::new("late", serve, "").container(&ready(&http(), 8)),
        Case::new("unready", sleep, "").container(&ready(&json!({"exec": {"command": ["false"]}}), 0)),
    ];
    let pods: Vec<Value> = cases.into_iter().map(|case| case.spec(&always).pod).collect();
    create(lab, &pods.iter().collect::<Vec<_>>());
}

pub fn liveness_restarts(lab: &Lab) {
    let restarts = |pod: &Value| container(pod)["restartCount"].as_i64().unwrap();
    // Twice, and the count only grows.
    let most = Cell::new(0);
    until(lab, "pod/dies-http", |pod| {
        assert!(restarts(pod) >= most.replace(restarts(pod)), "{pod:#}");
        most.get() >= 2
    });
    for name in DYING {
        until(lab, &format!("pod/{name}"), |pod| restarts(pod) >= 1);
    }
    for name in ALIVE {
        let pod = get(lab, &format!("pod/{name}"));
        assert!(restarts(&pod) == 0 && is_ready(&pod), "{name}: {pod:#}");
    }
}

pub fn readiness_is_told(lab: &Lab) {
    let late = until(lab, "pod/late", is_ready);
    let time = |text: &Value| text.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let conditions = late["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
    let waited =
        time(&ready["lastTransitionTime"]).duration_since(time(&container(&late)["state"]["running"]["startedAt"]));
    assert!(waited.as_secs() >= 7, "ready {waited:?} after its start, with whole seconds on both sides");
    let unready = get(lab, "pod/unready");
    assert!(!is_ready(&unready) && container(&unready)["ready"] == false, "{unready:#}");
    assert_eq!(container(&unready)["restartCount"], 0);
    let mut all = vec!["delete", "pod", "late", "unready", "--wait=false"];
    all.extend(ALIVE.iter().chain(&DYING));
    lab.kubectl(&all);
}

/// Says `SERVING` to every check of `grpc.health.v1.Health`, for as long as the test runs.
fn serve_health() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("0.0.0.0", GRPC_PORT)).await.unwrap();
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = hyper::service::service_fn(async |_| {
                // Not compressed, two bytes long: the first field is 1.
                let body = Full::new(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]));
                let trailers = http::HeaderMap::from_iter([(
                    http::HeaderName::from_static("grpc-status"),
                    http::HeaderValue::from_static("0"),
                )]);
                let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
                Ok::<_, std::convert::Infallible>(
                    http::Response::builder().header("content-type", "application/grpc").body(body).unwrap(),
                )
            });
            connections.spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer));
        }
    });
}
