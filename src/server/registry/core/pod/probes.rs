//! Decides: probes and lifecycle hooks of a container.

use k8s_openapi::api::core::v1::{
    ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid, not_negative};

/// What a probe or a hook does: exactly one of these.
#[derive(Default)]
struct Action<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Liveness,
    Readiness,
    Startup,
}

pub fn probe(errors: &mut Errors, path: &Path, role: Role, probe: Option<&Probe>) {
    let Some(probe) = probe else { return };
    let action = Action {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    check_action(errors, path, &action, None);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        not_negative(errors, &path.child(field), i64::from(value.unwrap_or_default()));
    }
    let grace = path.child("terminationGracePeriodSeconds");
    if let Some(seconds) = probe.termination_grace_period_seconds {
        if seconds <= 0 {
            errors.push(FieldError::invalid(&grace, &seconds, "must be greater than 0"));
        }
        if role == Role::Readiness {
            errors.push(FieldError::invalid(&grace, &seconds, "must not be set for readinessProbes"));
        }
    }
    let successes = probe.success_threshold.unwrap_or_default();
    if role != Role::Readiness && successes != 1 {
        errors.push(FieldError::invalid(&path.child("successThreshold"), &successes, "must be 1"));
    }
}

/// `grace` is the pod's termination grace period in seconds: no hook may sleep longer.
pub fn lifecycle(errors: &mut Errors, path: &Path, lifecycle: &Lifecycle, grace: Option<i64>, os: Option<&str>) {
    for (field, handler) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(LifecycleHandler { exec, http_get, sleep, tcp_socket }) = handler {
            let action = Action {
                exec: exec.as_ref(),
                http_get: http_get.as_ref(),
                tcp_socket: tcp_socket.as_ref(),
                grpc: None,
                sleep: sleep.as_ref(),
            };
            check_action(errors, &path.child(field), &action, grace);
        }
    }
    if lifecycle.stop_signal.is_some() && os.is_none() {
        let message = "may not be set for containers with empty `spec.os.name`";
        errors.push(FieldError::forbidden(&path.child("stopSignal"), message));
    }
}

fn check_action(errors: &mut Errors, path: &Path, action: &Action<'_>, grace: Option<i64>) {
    let present = [
        ("exec", action.exec.is_some()),
        ("httpGet", action.http_get.is_some()),
        ("tcpSocket", action.tcp_socket.is_some()),
        ("grpc", action.grpc.is_some()),
        ("sleep", action.sleep.is_some()),
    ];
    let mut present = present.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
    let Some(first) = present.next() else {
        errors.push(FieldError::required(path, "must specify a handler type"));
        return;
    };
    let at = path.child(first);
    match first {
        "exec" => {
            if action.exec.is_some_and(|e| e.command.as_ref().is_none_or(Vec::is_empty)) {
                errors.push(FieldError::required(&at.child("command"), ""));
            }
        }
        "httpGet" => action.http_get.into_iter().for_each(|http| http_get(errors, &at, http)),
        "tcpSocket" => action.tcp_socket.into_iter().for_each(|tcp| port(errors, &at.child("port"), &tcp.port)),
        "grpc" => {
            if let Some(grpc) = action.grpc {
                port(errors, &at.child("port"), &IntOrString::Int(grpc.port));
            }
        }
        _ => {
            if let (Some(sleep), Some(grace)) = (action.sleep, grace)
                && !(0..=grace).contains(&sleep.seconds)
            {
                let message = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.push(FieldError::invalid(&at, &sleep.seconds, &message));
            }
        }
    }
    for more in present {
        errors.push(FieldError::forbidden(&path.child(more), "may not specify more than 1 handler type"));
    }
}

fn http_get(errors: &mut Errors, path: &Path, http: &HTTPGetAction) {
    if http.path.as_deref().unwrap_or_default().is_empty() {
        errors.push(FieldError::required(&path.child("path"), ""));
    }
    port(errors, &path.child("port"), &http.port);
    let scheme = http.scheme.as_deref().unwrap_or_default();
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errors.push(FieldError::not_supported(&path.child("scheme"), &scheme, &["HTTP", "HTTPS"]));
    }
    for header in http.http_headers.iter().flatten() {
        invalid(errors, &path.child("httpHeaders"), &header.name, format::http_header(&header.name));
    }
}

/// A port by number or by the name that a container gave it.
pub fn port(errors: &mut Errors, path: &Path, port: &IntOrString) {
    match port {
        IntOrString::Int(number) => invalid(errors, path, number, format::port_number(*number)),
        IntOrString::String(name) => invalid(errors, path, name, format::port_name(name)),
    }
}
