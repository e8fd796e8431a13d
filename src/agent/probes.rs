//! Loop: liveness, readiness and startup probes: one task per probe of a running container, on a timer of its own period.
//!
//! ```text
//! container runs ─▶ startup probe ─passed─▶ liveness and readiness probes      (at once where there is no startup probe)
//! each result ─▶ counted against its threshold ─▶ verdict changes ─▶ the pod's worker is woken
//! ```

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Pod, Probe};
use tokio::task::{AbortHandle, JoinSet};

use super::context::NodeContext;
use super::events::Kind as EventKind;
use super::http_get::{self, Get};
use super::pod::observed::Observed;
use super::pod::table::Wake;
use super::pod::{Role, containers, field_path, host_network, spec};
use crate::clock;
use crate::cri::State;

/// Of an exec probe's output, for the event.
const OUTPUT_BYTES: usize = 10 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Liveness,
    Readiness,
    Startup,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Liveness => "Liveness",
            Kind::Readiness => "Readiness",
        }
    }

    /// As the container has it.
    #[must_use]
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Kind::Liveness => container.liveness_probe.as_ref(),
            Kind::Readiness => container.readiness_probe.as_ref(),
            Kind::Startup => container.startup_probe.as_ref(),
        }
    }
}

/// What probes have found out about containers, by container id. Nothing yet is the initial verdict: alive, not ready,
/// not started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts(BTreeMap<(String, Kind), bool>);

impl Verdicts {
    #[must_use]
    pub fn liveness_failed(&self, id: &str) -> bool {
        self.get(id, Kind::Liveness) == Some(false)
    }

    #[must_use]
    pub fn startup_failed(&self, id: &str) -> bool {
        self.get(id, Kind::Startup) == Some(false)
    }

    #[must_use]
    pub fn started(&self, container: &Container, id: &str) -> bool {
        container.startup_probe.is_none() || self.get(id, Kind::Startup) == Some(true)
    }

    #[must_use]
    pub fn ready(&self, container: &Container, id: &str) -> bool {
        let ready = container.readiness_probe.is_none() || self.get(id, Kind::Readiness) == Some(true);
        ready && self.started(container, id)
    }

    fn get(&self, id: &str, kind: Kind) -> Option<bool> {
        self.0.get(&(id.to_owned(), kind)).copied()
    }

    pub fn set(&mut self, id: &str, kind: Kind, verdict: bool) -> bool {
        self.0.insert((id.to_owned(), kind), verdict) != Some(verdict)
    }
}

/// The probes of one pod; they end when this is dropped.
pub struct Probes {
    cx: Arc<NodeContext>,
    wake: Arc<Wake>,
    verdicts: Arc<Mutex<Verdicts>>,
    tasks: JoinSet<()>,
    running: HashMap<(String, Kind), AbortHandle>,
}

impl Probes {
    #[must_use]
    pub fn new(cx: Arc<NodeContext>, wake: Arc<Wake>) -> Probes {
        Probes { cx, wake, verdicts: Arc::default(), tasks: JoinSet::new(), running: HashMap::new() }
    }

    #[must_use]
    pub fn verdicts(&self) -> Verdicts {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// After a restart of the agent: what the API was told about containers that still run holds until a probe says
    /// otherwise, so that no ready pod leaves its Services.
    pub fn remember(&self, pod: &Pod, observed: &Observed) {
        let Some(status) = &pod.status else { return };
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let told = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        for told in told {
            let Some(current) = observed.current(&told.name).filter(|c| c.state == State::Running) else { continue };
            if told.container_id.as_deref() != Some(&format!("containerd://{}", current.id)) {
                continue;
            }
            if told.ready {
                verdicts.set(&current.id, Kind::Readiness, true);
            }
            if told.started == Some(true) {
                verdicts.set(&current.id, Kind::Startup, true);
            }
        }
    }

    /// Starts what is due for the containers that run, stops the probes of those that don't.
    pub fn sync(&mut self, pod: &Arc<Pod>, observed: &Observed) {
        let verdicts = self.verdicts();
        let mut wanted = HashMap::new();
        for (role, container) in containers(pod) {
            let current = observed.current(&container.name).filter(|c| c.state == State::Running);
            let Some(current) = current.filter(|_| role != Role::Init) else { continue };
            let started = verdicts.started(container, &current.id);
            for kind in [Kind::Startup, Kind::Liveness, Kind::Readiness] {
                // A startup probe is over once it passed; the others wait for that.
                if kind.of(container).is_some() && (kind == Kind::Startup) != started {
                    wanted.insert((current.id.clone(), kind), (role, container, current.started_at));
                }
            }
        }
        self.running.retain(|key, task| {
            let keep = wanted.contains_key(key);
            if !keep {
                task.abort();
            }
            keep
        });
        for (key, (role, container, started_at)) in wanted {
            let Some(probe) = key.1.of(container) else { continue };
            if self.running.contains_key(&key) {
                continue;
            }
            let task = Task {
                cx: self.cx.clone(),
                pod: pod.clone(),
                role,
                container: container.clone(),
                probe: probe.clone(),
                kind: key.1,
                id: key.0.clone(),
                pod_ip: pod_ip(&self.cx, pod, observed),
                started_at,
                verdicts: self.verdicts.clone(),
                wake: self.wake.clone(),
            };
            self.running.insert(key, self.tasks.spawn(task.run()));
        }
        while self.tasks.try_join_next().is_some() {}
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.0.retain(|(id, _), _| observed.containers.iter().any(|container| container.id == *id));
    }

    pub fn stop(&mut self) {
        self.running.clear();
        self.tasks.abort_all();
    }
}

fn pod_ip(cx: &NodeContext, pod: &Pod, observed: &Observed) -> String {
    match observed.ready_sandbox().and_then(|sandbox| sandbox.ips.first()) {
        Some(ip) if !host_network(pod) => ip.clone(),
        _ => cx.node_ip().to_string(),
    }
}

struct Task {
    cx: Arc<NodeContext>,
    pod: Arc<Pod>,
    role: Role,
    container: Container,
    probe: Probe,
    kind: Kind,
    id: String,
    pod_ip: String,
    started_at: Option<jiff::Timestamp>,
    verdicts: Arc<Mutex<Verdicts>>,
    wake: Arc<Wake>,
}

impl Task {
    async fn run(self) {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).filter(|v| *v > 0).unwrap_or(default))
        };
        let delay = seconds(self.probe.initial_delay_seconds, 0);
        let age = self.started_at.map_or(Duration::ZERO, |at| clock::now().duration_since(at).unsigned_abs());
        tokio::time::sleep(delay.saturating_sub(age)).await;
        let period = seconds(self.probe.period_seconds, 10);
        let mut timer = tokio::time::interval(period);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut row = Row::default();
        loop {
            timer.tick().await;
            let result = self.attempt(seconds(self.probe.timeout_seconds, 1)).await;
            self.cx.probe_counts.count(&self.pod, &self.container.name, self.kind.name(), result.is_ok());
            if let Err(message) = &result {
                let field = field_path(self.role, &self.container.name);
                let message = format!("{:?} probe failed: {message}", self.kind);
                self.cx.events.container(&self.pod, field, EventKind::Warning, "Unhealthy", message);
            }
            let threshold = match result.is_ok() {
                true => self.probe.success_threshold.unwrap_or(1),
                false => self.probe.failure_threshold.unwrap_or(3),
            };
            if let Some(verdict) = row.count(result.is_ok(), threshold) {
                let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                if verdicts.set(&self.id, self.kind, verdict) {
                    self.wake.report(|_| {});
                }
            }
        }
    }

    async fn attempt(&self, timeout: Duration) -> Result<(), String> {
        if let Some(exec) = &self.probe.exec {
            return self.exec(exec.command.as_deref().unwrap_or_default(), timeout).await;
        }
        if let Some(action) = &self.probe.http_get {
            let get = http_request(&self.container, action, &self.pod_ip, "kube-probe/1.36")?;
            let status = http_get::get(get, timeout).await?;
            return match status.as_u16() {
                200..400 => Ok(()),
                code => Err(format!("HTTP probe failed with statuscode: {code}")),
            };
        }
        if let Some(action) = &self.probe.tcp_socket {
            let port = spec::port_number(&self.container, &action.port).ok_or("invalid port")?;
            let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(&self.pod_ip);
            return http_get::connect(host, port, timeout).await.map(drop);
        }
        if let Some(action) = &self.probe.grpc {
            let service = action.service.clone().unwrap_or_default();
            return super::grpc_health::check(&self.pod_ip, action.port, service, timeout).await;
        }
        Err("missing probe handler".into())
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Result<(), String> {
        let scope = HashMap::new();
        let command: Vec<String> = command.iter().map(|word| super::pod::env::expand(word, &scope)).collect();
        match self.cx.runtime.exec(&self.id, &command, timeout).await {
            Ok(result) if result.exit_code == 0 => Ok(()),
            Ok(result) => {
                let mut output = result.stdout;
                output.extend(result.stderr);
                output.truncate(OUTPUT_BYTES);
                Err(String::from_utf8_lossy(&output).into_owned())
            }
            Err(crate::cri::Error::TimedOut { .. }) => {
                let shown = command.join(" ");
                Err(format!("command timed out: {shown:?} timed out after {}s", timeout.as_secs()))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The request that a probe or a hook describes.
pub fn http_request(
    container: &Container,
    action: &HTTPGetAction,
    pod_ip: &str,
    user_agent: &'static str,
) -> Result<Get, String> {
    let port = spec::port_number(container, &action.port).ok_or_else(|| format!("invalid port: {:?}", action.port))?;
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let headers = action.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone()));
    Ok(Get {
        tls: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        host: action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip).to_owned(),
        port,
        path,
        headers: headers.collect(),
        user_agent,
    })
}

/// Results in a row.
#[derive(Default)]
struct Row {
    last: Option<bool>,
    length: i32,
}

impl Row {
    /// The verdict, once enough results in a row agree.
    fn count(&mut self, result: bool, threshold: i32) -> Option<bool> {
        if self.last == Some(result) {
            self.length = self.length.saturating_add(1);
        } else {
            self.last = Some(result);
            self.length = 1;
        }
        (self.length >= threshold).then_some(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_results_in_a_row() {
        let mut row = Row::default();
        let results = [false, false, true, false, false, false, true, true];
        let verdicts = results.map(|result| row.count(result, if result { 2 } else { 3 }));
        assert_eq!(verdicts, [None, None, None, None, None, Some(false), None, Some(true)]);
    }

    #[test]
    fn readiness_waits_for_startup() {
        let probe = Some(Probe::default());
        let container = Container { startup_probe: probe.clone(), readiness_probe: probe, ..Container::default() };
        let mut verdicts = Verdicts::default();
        verdicts.set("id", Kind::Readiness, true);
        assert!(!verdicts.ready(&container, "id"));
        verdicts.set("id", Kind::Startup, true);
        assert!(verdicts.ready(&container, "id") && verdicts.started(&container, "id"));
        assert!(verdicts.ready(&Container::default(), "other"), "nothing to wait for");
    }
}
