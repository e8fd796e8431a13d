//! Tables: addresses, and the kinds of the group.

use serde_json::{Value, json};

use super::address::{self, Block};
use super::ingress::IngressKind;
use super::ingress_class::IngressClassKind;
use super::ip_address::IpAddressKind;
use super::network_policy::NetworkPolicyKind;
use super::service_cidr::ServiceCidrKind;
use crate::api::user::User;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part, Strategy, Typed};

fn made(strategy: &dyn Strategy, mut object: Value) -> Value {
    let row = strategy.resource();
    object["apiVersion"] = row.api_version().into();
    object["kind"] = row.kind.into();
    let metadata = &mut object["metadata"];
    if metadata["name"].is_null() {
        metadata["name"] = "a".into();
    }
    if row.namespaced {
        metadata["namespace"] = "b".into();
    }
    strategy.defaults(&mut object).unwrap();
    strategy.prepare_create(&Context::new(User::default()), &mut object).unwrap();
    object
}

fn check(kind: impl Kind, object: Value, expect: &[&str]) -> Value {
    let strategy = Typed(kind);
    let object = made(&strategy, object);
    let errors = strategy.prepare_create(&Context::new(User::default()), &mut object.clone()).unwrap().errors;
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    object
}

/// Updates `part` of `old` with everything of `change`.
fn update(kind: impl Kind, part: Part, old: &Value, change: &Value, expect: &[&str]) -> Value {
    let (strategy, cx) = (Typed(kind), Context::new(User::default()));
    let mut new = old.clone();
    json_patch::merge(&mut new, change);
    strategy.defaults(&mut new).unwrap();
    let errors = strategy.prepare_update(&cx, part, &mut new, old).unwrap().errors;
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    new
}

#[test]
fn cidrs_and_addresses() {
    let check = |problems: Vec<String>, expect: &[&str]| assert_eq!(problems, expect);
    check(address::cidr("10.0.0.0/8"), &[]);
    check(address::cidr("0.0.0.0/0"), &[]);
    check(address::cidr("FD00:0::/8"), &[]);
    let invalid = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/+8", "::/129"] {
        check(address::cidr(text), &[invalid]);
    }
    let zeros = "must not have leading 0s in IP or prefix length";
    check(address::cidr("010.0.0.0/8"), &[zeros]);
    check(address::cidr("10.0.0.0/08"), &[zeros]);
    check(address::cidr("::ffff:10.0.0.0/104"), &["must not have an IPv4-mapped IPv6 address"]);
    check(address::cidr("10.0.0.1/8"), &["must not have bits set beyond the prefix length"]);
    check(address::canonical_cidr("FD00:0::/8"), &["must be in canonical form (\"fd00::/8\")"]);
    check(address::canonical_ip("fd00::1"), &[]);
    check(address::canonical_ip("FD00::1"), &["must be in canonical form (\"fd00::1\")"]);
    let contains = |a: &str, b: &str| Block::parse(a).unwrap().strictly_contains(Block::parse(b).unwrap());
    assert!(contains("0.0.0.0/0", "10.0.0.0/8"));
    assert!(contains("fd00::/8", "fd00:1::/32"));
    assert!(!contains("10.0.0.0/8", "10.0.0.0/8"));
    assert!(!contains("10.0.0.0/8", "11.0.0.0/16"));
    assert!(!contains("0.0.0.0/0", "fd00::/8"));
}

fn backend() -> Value {
    json!({"service": {"name": "web", "port": {"number": 80}}})
}

fn one_path(path: Value) -> Value {
    json!({"spec": {"rules": [{"http": {"paths": [path]}}]}})
}

#[test]
fn ingresses() {
    let made = check(
        IngressKind,
        json!({"spec": {"defaultBackend": backend()}, "status": {"loadBalancer": {"ingress": [{"ip": "1.1.1.1"}]}}}),
        &[],
    );
    assert_eq!((&made["status"], &made["metadata"]["generation"]), (&json!({"loadBalancer": {}}), &json!(1)));
    check(IngressKind, json!({}), &["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]);
    check(
        IngressKind,
        json!({"spec": {"defaultBackend": backend(), "ingressClassName": "A", "tls": [
            {"hosts": ["a.b", "*.b", "*"], "secretName": ""}, {"secretName": "a/b"}]}}),
        &[
            "spec.tls[0].hosts[2]: Invalid value: \"*\": a wildcard DNS-1123 subdomain must start with '*.', followed \
             by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end \
             with an alphanumeric character (e.g. '*.example.com', regex used for validation is \
             '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.tls[1].secretName: Invalid value: \"a/b\": a lowercase RFC 1123 subdomain must consist of lower case \
             alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.ingressClassName: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case \
             alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ],
    );
    check(
        IngressKind,
        json!({"spec": {"rules": [{"host": "10.0.0.1"}, {"host": "*.a.b", "http": {"paths": []}}]}}),
        &[
            "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            "spec.rules[1].http.paths: Required value",
        ],
    );
    let long = format!("*.{}", "a.".repeat(126));
    check(
        IngressKind,
        json!({"spec": {"rules": [{"host": format!("{long}a")}]}}),
        &[&format!("spec.rules[0].host: Invalid value: \"{long}a\": must be no more than 253 bytes")],
    );
}

#[test]
fn paths_of_ingresses() {
    const AT: &str = "spec.rules[0].http.paths[0]";
    let path = |kind: &str, path: &str, expect: &[&str]| {
        let expect: Vec<String> = expect.iter().map(|message| format!("{AT}.path{message}")).collect();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        check(IngressKind, one_path(json!({"pathType": kind, "path": path, "backend": backend()})), &expect);
    };
    path("Prefix", "/a", &[]);
    path("ImplementationSpecific", "", &[]);
    path("ImplementationSpecific", "/a//b", &[]);
    path("ImplementationSpecific", "a", &[": Invalid value: \"a\": must be an absolute path"]);
    path("Exact", "", &[": Invalid value: \"\": must be an absolute path"]);
    path(
        "Prefix",
        "/a//b/../c%2f/..",
        &[
            ": Invalid value: \"/a//b/../c%2f/..\": must not contain '//'",
            ": Invalid value: \"/a//b/../c%2f/..\": must not contain '/../'",
            ": Invalid value: \"/a//b/../c%2f/..\": must not contain '%2f'",
            ": Invalid value: \"/a//b/../c%2f/..\": cannot end with '/..'",
        ],
    );
    path(
        "Some",
        "/",
        &["Type: Unsupported value: \"Some\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""],
    );
    check(
        IngressKind,
        one_path(json!({"path": "/", "backend": {}})),
        &[&format!("{AT}.pathType: Required value: pathType must be specified")],
    );
}

#[test]
fn backends_of_ingresses() {
    const AT: &str = "spec.defaultBackend";
    let backend = |backend: Value, expect: &[&str]| {
        let expect: Vec<String> = expect.iter().map(|message| format!("{AT}{message}")).collect();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        check(IngressKind, json!({"spec": {"defaultBackend": backend}}), &expect)
    };
    let made = backend(json!({"service": {"name": "1web"}}), &[": Required value: port name or number is required"]);
    assert_eq!(made["spec"]["defaultBackend"]["service"]["port"], json!({}));
    backend(json!({}), &[": Invalid value: \"\": resource or service backend is required"]);
    let reference = json!({"kind": "Bucket", "name": "b"});
    backend(json!({"resource": reference}), &[]);
    backend(
        json!({"resource": reference, "service": {"name": "web"}}),
        &[": Invalid value: \"\": cannot set both resource and service backends"],
    );
    backend(
        json!({"resource": {"kind": "", "name": "a/b"}}),
        &[".resource.kind: Required value", ".resource.name: Invalid value: \"a/b\": may not contain '/'"],
    );
    backend(
        json!({"service": {"name": "", "port": {"number": 80, "name": "http"}}}),
        &[".service.name: Required value", ": Invalid value: \"\": cannot set both port name & port number"],
    );
    backend(
        json!({"service": {"name": "a.b", "port": {"number": 65536}}}),
        &[
            ".service.name: Invalid value: \"a.b\": must not contain dots",
            ".service.port.number: Invalid value: 65536: must be between 1 and 65535, inclusive",
        ],
    );
    backend(
        json!({"service": {"name": "a", "port": {"name": "80"}}}),
        &[".service.port.name: Invalid value: \"80\": must contain at least one letter (a-z)"],
    );
}

#[test]
fn classes_and_status_of_ingresses() {
    let annotated =
        |spec: Value| json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}, "spec": spec});
    let made = check(IngressKind, annotated(json!({"defaultBackend": backend()})), &[]);
    assert_eq!(
        Typed(IngressKind).prepare_create(&Context::new(User::default()), &mut made.clone()).unwrap().warnings,
        ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]
    );
    check(
        IngressKind,
        annotated(json!({"defaultBackend": backend(), "ingressClassName": "y"})),
        &[
            "annotations.kubernetes.io/ingress.class: Invalid value: \"x\": must match `ingressClassName` when both are \
           specified",
        ],
    );
    // What a create refuses, an update lets pass.
    let old = update(IngressKind, Part::Spec, &made, &json!({"spec": {"ingressClassName": "y"}}), &[]);
    assert_eq!(old["metadata"]["generation"], 2);
    assert!(
        Typed(IngressKind)
            .prepare_create(&Context::new(User::default()), &mut old.clone())
            .unwrap()
            .warnings
            .is_empty()
    );
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "hostname": "a.b"}]}}});
    assert_eq!(update(IngressKind, Part::Spec, &old, &status, &[]), old);
    let new = update(IngressKind, Part::Status, &old, &status, &[]);
    assert_eq!((&new["status"], &new["metadata"]), (&status["status"], &old["metadata"]));
    update(
        IngressKind,
        Part::Status,
        &old,
        &json!({"status": {"loadBalancer": {"ingress": [{"ip": "010.0.0.1", "hostname": "10.0.0.1"}]}}}),
        &[
            "status.loadBalancer.ingress[0].ip: Invalid value: \"010.0.0.1\": must not have leading 0s",
            "status.loadBalancer.ingress[0].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP \
             address",
        ],
    );
}

#[test]
fn ingress_classes() {
    let class = |parameters: Value| json!({"spec": {"controller": "a.b/c", "parameters": parameters}});
    let old = check(IngressClassKind, class(json!({"kind": "K", "name": "n"})), &[]);
    assert_eq!((&old["spec"]["parameters"]["scope"], &old["metadata"]["generation"]), (&json!("Cluster"), &json!(1)));
    check(IngressClassKind, json!({}), &["spec.controller: Required value"]);
    for text in ["a", "/a", "a/"] {
        let message = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        let expect = format!("spec.controller: Invalid value: \"{text}\": {message}");
        check(IngressClassKind, json!({"spec": {"controller": text}}), &[&expect]);
    }
    check(
        IngressClassKind,
        json!({"spec": {"controller": "a.b/c d"}}),
        &["spec.controller: Invalid value: \"c d\": Invalid path (regex used for validation is \
           '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"],
    );
    check(
        IngressClassKind,
        json!({"spec": {"controller": format!("a/{}", "b".repeat(249))}}),
        &["spec.controller: Too long: may not be more than 250 bytes"],
    );
    check(
        IngressClassKind,
        class(json!({"apiGroup": "x", "scope": "Namespace"})),
        &[
            "spec.parameters.kind: Required value",
            "spec.parameters.name: Required value",
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
        ],
    );
    check(
        IngressClassKind,
        class(json!({"kind": "K", "name": "n", "scope": "Namespace", "namespace": "a.b"})),
        &["spec.parameters.namespace: Invalid value: \"a.b\": must not contain dots"],
    );
    check(
        IngressClassKind,
        class(json!({"kind": "K", "name": "n", "namespace": "a"})),
        &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
    );
    check(
        IngressClassKind,
        class(json!({"kind": "K", "name": "n", "scope": "World"})),
        &["spec.parameters.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespace\""],
    );
    let new = update(IngressClassKind, Part::Spec, &old, &json!({"spec": {"parameters": null}}), &[]);
    assert_eq!(new["metadata"]["generation"], 2);
    update(
        IngressClassKind,
        Part::Spec,
        &old,
        &json!({"spec": {"controller": "a.b/d"}}),
        &["spec.controller: Invalid value: \"a.b/d\": field is immutable"],
    );
}

#[test]
fn defaults_of_network_policies() {
    let made = check(NetworkPolicyKind, json!({"spec": {"ingress": [{"ports": [{"port": 80}]}]}}), &[]);
    assert_eq!(
        made["spec"],
        json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"ports": [{"port": 80, "protocol": "TCP"}]}]})
    );
    assert_eq!(made["metadata"]["generation"], 1);
    let made = check(NetworkPolicyKind, json!({"spec": {"egress": [{}]}}), &[]);
    assert_eq!(made["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let new = update(NetworkPolicyKind, Part::Spec, &made, &json!({"spec": {"egress": null}}), &[]);
    assert_eq!(new["metadata"]["generation"], 2);
}

#[test]
fn rules_of_network_policies() {
    let port = |port: Value, expect: &[&str]| {
        let expect: Vec<String> = expect.iter().map(|e| format!("spec.ingress[0].ports[0].{e}")).collect();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        check(NetworkPolicyKind, json!({"spec": {"ingress": [{"ports": [port]}]}}), &expect);
    };
    port(json!({"port": 80, "endPort": 90, "protocol": "SCTP"}), &[]);
    port(json!({"port": "http"}), &[]);
    port(
        json!({"protocol": "X"}),
        &["protocol: Unsupported value: \"X\": supported values: \"TCP\", \"UDP\", \"SCTP\""],
    );
    port(
        json!({"port": 0, "endPort": -1}),
        &[
            "port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "endPort: Invalid value: -1: must be greater than or equal to `port`",
            "endPort: Invalid value: -1: must be between 1 and 65535, inclusive",
        ],
    );
    port(
        json!({"port": "a", "endPort": 1}),
        &["endPort: Invalid value: 1: may not be specified when `port` is non-numeric"],
    );
    port(json!({"endPort": 1}), &["endPort: Invalid value: 1: may not be specified when `port` is not specified"]);

    let peer = |peer: Value, expect: &[&str]| {
        let expect: Vec<String> = expect.iter().map(|e| format!("spec.egress[0].to[0]{e}")).collect();
        let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
        check(NetworkPolicyKind, json!({"spec": {"egress": [{"to": [peer]}]}}), &expect)
    };
    peer(json!({"podSelector": {}, "namespaceSelector": {}}), &[]);
    peer(json!({}), &[": Required value: must specify a peer"]);
    peer(json!({"ipBlock": {"cidr": ""}}), &[".ipBlock.cidr: Required value"]);
    peer(
        json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}),
        &[": Forbidden: may not specify both ipBlock and another peer"],
    );
    peer(
        json!({"ipBlock": {"cidr": "10.0.0.1/8", "except": ["10.1.0.0/16", "10.0.0.0/8", "x"]}}),
        &[
            ".ipBlock.cidr: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
            ".ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
            ".ipBlock.except[2]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
    let made = peer(json!({"ipBlock": {"cidr": "FD00::/8", "except": ["fd00:0:1::/48"]}}), &[]);
    assert_eq!(
        Typed(NetworkPolicyKind).prepare_create(&Context::new(User::default()), &mut made.clone()).unwrap().warnings,
        ["spec.egress[0].to[0].ipBlock.cidr: IPv6 CIDR value \"FD00::/8\" should be in RFC 5952 canonical format \
             (\"fd00::/8\")"]
    );
    check(
        NetworkPolicyKind,
        json!({"spec": {"policyTypes": ["Ingress", "Both"],
            "podSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}}),
        &[
            "spec.podSelector.matchExpressions[0].operator: Invalid value: \"Is\": not a valid selector operator",
            "spec.policyTypes[1]: Unsupported value: \"Both\": supported values: \"Ingress\", \"Egress\"",
        ],
    );
    check(
        NetworkPolicyKind,
        json!({"spec": {"policyTypes": ["Ingress", "Egress", "Both"]}}),
        &[
            "spec.policyTypes: Invalid value: [\"Ingress\",\"Egress\",\"Both\"]: may not specify more than two policyTypes",
        ],
    );
}

#[test]
fn service_cidrs() {
    let of = |cidrs: &[&str]| json!({"spec": {"cidrs": cidrs}});
    let mut given = of(&["10.0.0.0/16"]);
    given["status"] = json!({"conditions": [{
        "type": "Ready", "status": "True", "reason": "", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    let old = check(ServiceCidrKind, given.clone(), &[]);
    assert_eq!(old["status"], json!({}));
    check(ServiceCidrKind, of(&["10.0.0.0/16", "fd00::/112"]), &[]);
    check(ServiceCidrKind, json!({}), &["spec.cidrs: Required value: at least one CIDR required"]);
    check(
        ServiceCidrKind,
        of(&["a", "b", "c"]),
        &["spec.cidrs: Invalid value: {\"CIDRs\":[\"a\",\"b\",\"c\"]}: may only hold up to 2 values"],
    );
    check(
        ServiceCidrKind,
        of(&["10.0.0.0/16", "10.1.0.0/16"]),
        &["spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"10.1.0.0/16\"]: may specify no more than one IP for each IP \
           family, i.e 192.168.0.0/24 and 2001:db8::/64"],
    );
    check(
        ServiceCidrKind,
        of(&["FD00::/112"]),
        &["spec.cidrs[0]: Invalid value: \"FD00::/112\": must be in canonical form (\"fd00::/112\")"],
    );
    let spec = |cidrs: &[&str], expect: &[&str]| {
        update(ServiceCidrKind, Part::Spec, &old, &of(cidrs), expect);
    };
    spec(&["10.0.0.0/16", "fd00::/112"], &[]);
    spec(&["10.1.0.0/16"], &["spec.cidrs[0]: Invalid value: \"10.1.0.0/16\": field is immutable"]);
    spec(
        &["10.1.0.0/16", "x"],
        &[
            "spec.cidrs[0]: Invalid value: \"10.1.0.0/16\": field is immutable",
            "spec.cidrs[1]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        ],
    );
    spec(&[], &["spec.cidrs: Invalid value: []: field is immutable"]);
    given["spec"] = of(&["10.9.0.0/16"])["spec"].clone();
    given["metadata"] = json!({"labels": {"a": "b"}});
    let new = update(ServiceCidrKind, Part::Status, &old, &given, &[]);
    assert_eq!((&new["spec"], &new["metadata"]), (&old["spec"], &old["metadata"]));
    assert_eq!(new["status"]["conditions"][0]["type"], "Ready");
    let new = update(ServiceCidrKind, Part::Spec, &old, &json!({"status": given["status"]}), &[]);
    assert_eq!(new, old);
}

#[test]
fn ip_addresses() {
    let of = |name: &str, parent: Value| json!({"metadata": {"name": name}, "spec": {"parentRef": parent}});
    let service = || json!({"resource": "services", "namespace": "default", "name": "web"});
    let old = check(IpAddressKind, of("10.0.0.1", service()), &[]);
    check(IpAddressKind, of("fd00::1", service()), &[]);
    let wrong = |name: &str, message: &str| {
        let expect = format!("metadata.name: Invalid value: \"{name}\": {message}");
        check(IpAddressKind, of(name, service()), &[&expect]);
    };
    wrong("a", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    wrong("FD00::1", "must be in canonical form (\"fd00::1\")");
    check(IpAddressKind, json!({"metadata": {"name": "10.0.0.1"}}), &["spec.parentRef: Required value"]);
    check(
        IpAddressKind,
        of("10.0.0.1", json!({"group": "x/y", "resource": "a/b", "namespace": ".."})),
        &[
            "spec.parentRef.group: Invalid value: \"x/y\": a lowercase RFC 1123 subdomain must consist of lower case \
             alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.parentRef.resource: Invalid value: \"a/b\": may not contain '/'",
            "spec.parentRef.name: Required value",
            "spec.parentRef.namespace: Invalid value: \"..\": may not be '..'",
        ],
    );
    update(IpAddressKind, Part::Spec, &old, &json!({"metadata": {"labels": {"a": "b"}}}), &[]);
    update(
        IpAddressKind,
        Part::Spec,
        &old,
        &json!({"spec": {"parentRef": {"name": "other"}}}),
        &["spec.parentRef: Invalid value: {\"Group\":\"\",\"Resource\":\"services\",\"Namespace\":\"default\",\
           \"Name\":\"other\"}: field is immutable"],
    );
}
