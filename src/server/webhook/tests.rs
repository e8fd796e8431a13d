//! Tables of the addresses that are called, and of bundles. Calls over a network are in `tests/api/webhooks.rs`.

use super::*;

fn service(path: &str, port: u16) -> Target {
    Target::Service(ServiceTarget { namespace: "x".into(), name: "hook".into(), path: path.into(), port })
}

#[test]
fn addresses_are_written_as_upstream_writes_them() {
    let url = |target: &Target, millis| target.url(Duration::from_millis(millis)).map_err(|e| e.to_string());
    for (target, millis, expect) in [
        (service("", 443), 10_000, "https://hook.x.svc:443/?timeout=10s"),
        (service("/a//b/../c/", 8443), 9_001, "https://hook.x.svc:8443/a/c?timeout=10s"),
        (Target::Url("https://h.example/mutate".into()), 30_000, "https://h.example/mutate?timeout=30s"),
        (Target::Url("https://[::1]:8443".into()), 1_000, "https://[::1]:8443/?timeout=1s"),
    ] {
        assert_eq!(url(&target, millis), Ok(expect.to_owned()));
    }
    let nowhere = url(&Target::Url(String::new()), 1);
    assert_eq!(nowhere, Err("webhook configuration must have either service or URL".into()));
}

#[test]
fn a_service_has_port_443_unless_it_says_otherwise() {
    let given = |port| admission::WebhookClientConfig {
        service: Some(admission::ServiceReference { name: "hook".into(), namespace: "x".into(), port, path: None }),
        ..Default::default()
    };
    assert_eq!(ClientConfig::from(&given(None)).target, service("", 443));
    assert_eq!(ClientConfig::from(&given(Some(8443))).target, service("", 8443));
}

#[test]
fn a_bundle_that_is_none_is_an_error() {
    let why = trust::config(b"no PEM").unwrap_err();
    assert_eq!(why, "unable to load root certificates: unable to parse bytes as PEM block");
}
