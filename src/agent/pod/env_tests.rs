//! Tables of container environments.

use serde_json::{Value, json};

use super::*;
use crate::net::nft::Protocol;
use crate::net::services::Port;

fn check(container: &Value, expect: Result<&[(&str, &str)], &str>) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
        "spec": {"containers": [], "enableServiceLinks": false, "serviceAccountName": "default"},
    }))
    .expect("valid");
    let container: Container = serde_json::from_value(container.clone()).expect("valid");
    let data = |pairs: &[(&str, &str)]| {
        let values = pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        Some(Arc::new(Data { values, ..Data::default() }))
    };
    let objects = HashMap::from([
        ((Kind::ConfigMap, "settings".to_owned()), data(&[("color", "blue"), ("a=b", "bad name")])),
        ((Kind::Secret, "login".to_owned()), data(&[("password", "s3cret")])),
    ]);
    let sources = Sources {
        pod: &pod,
        services: &View::default(),
        objects: &objects,
        node_name: "n1",
        host_ips: &["10.0.0.5".to_owned()],
        pod_ips: &["10.42.0.7".to_owned(), "fd00::7".to_owned()],
        allocatable: &fields::Allocatable { cpu_milli: 2000, memory_bytes: 1 << 30, ephemeral_storage_bytes: 0 },
    };
    let found = environment(&container, &sources).map_err(|error| error.to_string());
    let found = found.as_ref().map(|pairs| pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>());
    match (found, expect) {
        (Ok(found), Ok(expect)) => assert_eq!(found, expect),
        (found, expect) => assert_eq!(found.map_err(String::as_str), expect.map(<[_]>::to_vec)),
    }
}

#[test]
fn values_and_references() {
    check(
        &json!({"name": "c", "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(C)-$$(A)-$"},
            {"name": "A", "value": "2"},
            {"name": "EMPTY"},
        ]}),
        Ok(&[("A", "2"), ("B", "1-$(C)-$(A)-$"), ("EMPTY", "")]),
    );
}

#[test]
fn from_config_maps_and_secrets() {
    check(
        &json!({"name": "c",
            "envFrom": [{"prefix": "X_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "login"}},
                        {"secretRef": {"name": "nothing", "optional": true}}],
            "env": [{"name": "URL", "value": "http://u:$(password)@h/$(X_color)"},
                    {"name": "K", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
                    {"name": "N", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "no", "optional": true}}}],
        }),
        Ok(&[("X_color", "blue"), ("password", "s3cret"), ("URL", "http://u:s3cret@h/blue"), ("K", "blue")]),
    );
}

#[test]
fn fields_of_pod_and_container() {
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    check(
        &json!({"name": "c", "resources": {"limits": {"memory": "64Mi"}}, "env": [
            field("NAME", "metadata.name"), field("APP", "metadata.labels['app']"), field("NODE", "spec.nodeName"),
            field("IP", "status.podIP"), field("IPS", "status.podIPs"), field("HOST", "status.hostIP"),
            field("SA", "spec.serviceAccountName"),
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ]}),
        Ok(&[
            ("NAME", "web-0"),
            ("APP", "web"),
            ("NODE", "n1"),
            ("IP", "10.42.0.7"),
            ("IPS", "10.42.0.7,fd00::7"),
            ("HOST", "10.0.0.5"),
            ("SA", "default"),
            ("MEM", "64"),
            ("CPU", "2"),
        ]),
    );
}

#[test]
fn what_is_missing_is_named() {
    check(
        &json!({"name": "c", "envFrom": [{"configMapRef": {"name": "nothing"}}]}),
        Err("configmap \"nothing\" not found"),
    );
    check(
        &json!({"name": "c", "env": [{"name": "P", "valueFrom": {"secretKeyRef": {"name": "login", "key": "user"}}}]}),
        Err("couldn't find key user in Secret shop/login"),
    );
}

#[test]
fn services_as_docker_links() {
    let service = Service {
        cluster_ip: Some([10, 43, 0, 9].into()),
        ports: vec![Port { name: "sql".into(), protocol: Protocol::Tcp, port: 5432, node_port: None }],
        ..Service::default()
    };
    let mut found = Vec::new();
    one_service("my-db", &service, &mut found);
    let found: Vec<String> = found.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(
        found,
        [
            "MY_DB_SERVICE_HOST=10.43.0.9",
            "MY_DB_SERVICE_PORT=5432",
            "MY_DB_SERVICE_PORT_SQL=5432",
            "MY_DB_PORT=tcp://10.43.0.9:5432",
            "MY_DB_PORT_5432_TCP=tcp://10.43.0.9:5432",
            "MY_DB_PORT_5432_TCP_PROTO=tcp",
            "MY_DB_PORT_5432_TCP_PORT=5432",
            "MY_DB_PORT_5432_TCP_ADDR=10.43.0.9",
        ]
    );
}
