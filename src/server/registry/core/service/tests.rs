//! Tables: defaults, validation and allocation of Services.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::ServiceKind;
use crate::api::status::Status;
use crate::api::user::User;
use crate::config::{Cidr, Cluster};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Part, Prepared, Reservation, Strategy, Typed};

fn strategy(services: &[Value]) -> Typed<ServiceKind> {
    let config = Cluster {
        cluster_cidr: Cidr { address: Ipv4Addr::new(10, 42, 0, 0), prefix: 16 },
        service_cidr: Cidr { address: Ipv4Addr::new(10, 43, 0, 0), prefix: 16 },
        cluster_dns: Ipv4Addr::new(10, 43, 0, 10),
        cluster_domain: "cluster.local".into(),
        node_ports: (30000, 32767),
    };
    let services: Vec<_> = services.iter().map(|s| serde_json::from_value(s.clone()).unwrap()).collect();
    Typed(ServiceKind::new(&config, services.into_iter()))
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")}, "spec": spec})
}

type Reserved = Option<Box<dyn Reservation>>;

fn prepare(strategy: &Typed<ServiceKind>, mut object: Value) -> Result<(Value, Prepared), Status> {
    strategy.defaults(&mut object)?;
    let prepared = strategy.prepare_create(&Context::new(User::default()), &mut object)?;
    Ok((object, prepared))
}

fn create(strategy: &Typed<ServiceKind>, object: Value) -> Result<(Value, Reserved), Status> {
    prepare(strategy, object).map(|(object, prepared)| (object, prepared.reserved))
}

fn kept(strategy: &Typed<ServiceKind>, object: Value) -> Value {
    let (object, reserved) = create(strategy, object).unwrap();
    reserved.into_iter().for_each(Reservation::keep);
    object
}

fn check(spec: Value, expect: &[&str]) {
    let strategy = strategy(&[]);
    let (_, Prepared { errors, .. }) = prepare(&strategy, service("a", spec)).unwrap();
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
}

fn refused(strategy: &Typed<ServiceKind>, object: Value, expect: &str) {
    match create(strategy, object) {
        Ok(_) => panic!("was allowed: {expect}"),
        Err(status) => assert_eq!(status.message(), expect),
    }
}

fn update(strategy: &Typed<ServiceKind>, old: &Value, mut new: Value) -> (Value, Reserved, Vec<String>) {
    let cx = Context::new(User::default());
    strategy.defaults(&mut new).unwrap();
    let Prepared { errors, reserved, .. } = strategy.prepare_update(&cx, Part::Spec, &mut new, old).unwrap();
    (new, reserved, errors.iter().map(ToString::to_string).collect())
}

#[test]
fn defaults() {
    let made = kept(&strategy(&[]), service("a", json!({"ports": [{"port": 80}]})));
    let spec = &made["spec"];
    for (field, value) in [
        ("type", json!("ClusterIP")),
        ("sessionAffinity", json!("None")),
        ("internalTrafficPolicy", json!("Cluster")),
        ("ipFamilies", json!(["IPv4"])),
        ("ipFamilyPolicy", json!("SingleStack")),
        ("ports", json!([{"port": 80, "protocol": "TCP", "targetPort": 80}])),
        ("clusterIPs", json!([spec["clusterIP"]])),
        ("externalTrafficPolicy", Value::Null),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    assert_eq!(made["status"], json!({"loadBalancer": {}}));
    let ip: Ipv4Addr = spec["clusterIP"].as_str().unwrap().parse().unwrap();
    assert!(ip > Ipv4Addr::new(10, 43, 1, 0), "{ip} is from the part for explicit use");

    let made = kept(&strategy(&[]), service("a", json!({"type": "LoadBalancer", "ports": [{"port": 80}]})));
    assert_eq!(made["spec"]["allocateLoadBalancerNodePorts"], true);
    assert_eq!(made["spec"]["externalTrafficPolicy"], "Cluster");
    assert!(made["spec"]["ports"][0]["nodePort"].as_i64().unwrap() >= 30086);
    let made = kept(&strategy(&[]), service("a", json!({"clusterIP": "None"})));
    assert_eq!(made["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(made["spec"]["ipFamilyPolicy"], "RequireDualStack");
}

#[test]
fn validation() {
    check(json!({"ports": [{"port": 80}]}), &[]);
    check(json!({}), &["spec.ports: Required value"]);
    check(json!({"clusterIP": "None"}), &[]);
    check(json!({"type": "ExternalName"}), &["spec.externalName: Required value"]);
    check(json!({"type": "ExternalName", "externalName": "example.com."}), &[]);
    check(
        json!({"ports": [{"port": 80}, {"port": 81}]}),
        &["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
    );
    check(
        json!({"ports": [{"port": 0, "protocol": "ICMP", "targetPort": 1}]}),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    check(
        json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]}),
        &["spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\
           \"TargetPort\":0,\"NodePort\":0}"],
    );
    check(
        json!({"ports": [{"port": 80, "nodePort": 30001}]}),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]}),
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
    check(
        json!({"clusterIP": "x", "ports": [{"port": 80}]}),
        &["spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"],
    );
    check(
        json!({"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}], "selector": {"a": "b"}}),
        &["spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack \
           services"],
    );
    check(
        json!({"type": "Node", "ports": [{"port": 80}]}),
        &["spec.type: Unsupported value: \"Node\": supported values: \"ClusterIP\", \"ExternalName\", \
           \"LoadBalancer\", \"NodePort\""],
    );
    check(
        json!({"ports": [{"port": 80}], "externalIPs": ["127.0.0.1"]}),
        &["spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, \
           ::1/128)"],
    );
}

#[test]
fn one_owner_for_an_address() {
    let existing = service("old", json!({"type": "ClusterIP", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"]}));
    let strategy = strategy(std::slice::from_ref(&existing));
    let asks = |name: &str, ip: &str| service(name, json!({"clusterIP": ip, "ports": [{"port": 80}]}));
    let taken = |name: &str, ip: &str, why: &str| {
        format!(
            "Service {name:?} is invalid: spec.clusterIPs: Invalid value: [{ip:?}]: failed to allocate IP {ip}: {why}"
        )
    };
    let allocated = "provided IP is already allocated";
    refused(&strategy, asks("a", "10.43.0.5"), &taken("a", "10.43.0.5", allocated));
    refused(&strategy, asks("a", "10.43.0.1"), &taken("a", "10.43.0.1", allocated));
    let range = "the provided IP (10.96.0.1) is not in the valid range. The range of valid IPs is 10.43.0.0/16";
    refused(&strategy, asks("a", "10.96.0.1"), &taken("a", "10.96.0.1", range));
    kept(&strategy, asks("kubernetes", "10.43.0.1"));
    kept(&strategy, asks("kube-dns", "10.43.0.10"));

    // Dropped without being kept: free again.
    drop(create(&strategy, asks("b", "10.43.0.6")).unwrap());
    let made = kept(&strategy, asks("c", "10.43.0.6"));
    refused(&strategy, asks("d", "10.43.0.6"), &taken("d", "10.43.0.6", allocated));
    strategy.released(&made);
    strategy.released(&existing);
    kept(&strategy, asks("d", "10.43.0.6"));
    kept(&strategy, asks("e", "10.43.0.5"));
}

#[test]
fn one_owner_for_a_port() {
    let strategy = strategy(&[]);
    let asks =
        |name: &str, port: i32| service(name, json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}));
    let made = kept(&strategy, asks("a", 30080));
    refused(
        &strategy,
        asks("b", 30080),
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
    );
    refused(
        &strategy,
        asks("b", 80),
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. \
         The range of valid ports is 30000-32767",
    );
    // TCP and UDP of one port share a number.
    let both =
        json!({"type": "NodePort", "ports": [{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]});
    let dns = kept(&strategy, service("dns", both));
    assert_eq!(dns["spec"]["ports"][0]["nodePort"], dns["spec"]["ports"][1]["nodePort"]);

    // Back to ClusterIP: the number is free once the write is kept.
    let mut new = made.clone();
    new["spec"]["type"] = "ClusterIP".into();
    let (new, reserved, errors) = update(&strategy, &made, new);
    assert_eq!(errors, [""; 0]);
    assert_eq!(new["spec"]["ports"][0]["nodePort"], Value::Null);
    assert_eq!(new["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert!(create(&strategy, asks("c", 30080)).is_err());
    reserved.into_iter().for_each(Reservation::keep);
    kept(&strategy, asks("c", 30080));
}

#[test]
fn updates_inherit_what_was_assigned() {
    let strategy = strategy(&[]);
    let spec = json!({"type": "NodePort", "ports": [{"port": 80}]});
    let old = kept(&strategy, service("a", spec.clone()));
    let (new, reserved, errors) = update(&strategy, &old, service("a", spec));
    assert_eq!(errors, [""; 0]);
    assert_eq!(new["spec"], old["spec"]);
    assert!(reserved.is_none());

    let mut other = old.clone();
    other["spec"]["clusterIP"] = "10.43.0.7".into();
    let (_, _, errors) = update(&strategy, &old, other);
    assert_eq!(errors, ["spec.clusterIPs[0]: Invalid value: [\"10.43.0.7\"]: may not change once set"]);

    let mut named = old.clone();
    named["spec"]["type"] = "ExternalName".into();
    named["spec"]["externalName"] = "example.com".into();
    let (named, _, errors) = update(&strategy, &old, named);
    assert_eq!(errors, [""; 0]);
    assert_eq!(named["spec"]["clusterIP"], Value::Null);
}
