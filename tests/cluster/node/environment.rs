//! Tests: what the processes of a container get: variables, command and arguments.

use serde_json::{Value, json};

use super::{Case, all_say, create, is_ready, until};
use crate::lab::{IMAGE, Lab, wait_for};

/// An image with an entry point and arguments of its own.
const TALKS: &str = "test.local/talks:1";

/// What the pods of this module find.
pub fn data(lab: &Lab) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "words"},
        "data": {"one": "uno", "two": "due"}});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "words"},
        "stringData": {"one": "eins", "two": "zwei"}});
    create(lab, &[&map, &secret]);
    let config = json!({"Entrypoint": ["/bin/echo", "entry"], "Cmd": ["and", "arguments"]});
    lab.image("talks.tar", &crate::support::images::busybox(TALKS, &config, &[]));
    wait_for("the image", || {
        let images = super::get(lab, "node/m1")["status"]["images"].to_string();
        images.contains(TALKS).then_some(())
    });
}

pub fn config_maps_and_secrets_are_variables() -> Vec<Case> {
    let mut out = Vec::new();
    for (kind, key, reference, says) in [
        ("map", "configMapKeyRef", "configMapRef", ["uno", "due"]),
        ("secret", "secretKeyRef", "secretRef", ["eins", "zwei"]),
    ] {
        let [one, two] = says;
        let single = json!({"env": [{"name": "ONE", "valueFrom": {key: {"name": "words", "key": "one"}}}]});
        out.push(Case::new(format!("env-{kind}"), "echo $ONE", format!("{one}\n")).container(&single));
        let prefixes = ["", "p_", "1-", "#!"];
        let from: Vec<Value> = prefixes.iter().map(|p| json!({"prefix": p, reference: {"name": "words"}})).collect();
        let says: String = ["#!one", "#!two", "1-one", "1-two", "one", "p_one", "p_two", "two"]
            .iter()
            .map(|name| format!("{name}={}\n", if name.ends_with("one") { one } else { two }))
            .collect();
        // A shell hands on only what it could name itself.
        let script = "tr '\\0' '\\n' < /proc/1/environ | grep -E '(one|two)=' | sort";
        out.push(Case::new(format!("env-from-{kind}"), script, says).container(&json!({"envFrom": from})));
    }
    out
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}})
}

pub fn the_downward_api_is_variables(lab: &Lab) -> Vec<Case> {
    let ip = lab.machines[0].ip;
    let amount = |name: &str, of: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": of}}});
    let amounts = [
        amount("A", "limits.cpu"),
        amount("B", "requests.cpu"),
        amount("C", "limits.memory"),
        amount("D", "requests.memory"),
    ];
    let resources =
        json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}});
    let fields = json!({"env": [field("NAME", "metadata.name"), field("SPACE", "metadata.namespace"),
        field("IP", "status.podIP"), field("HOST", "status.hostIP"), field("HOSTS", "status.hostIPs"),
        field("ID", "metadata.uid"), field("NODE", "spec.nodeName"), field("ACCOUNT", "spec.serviceAccountName")]});
    let script =
        "echo $NAME $SPACE $HOST $HOSTS $NODE $ACCOUNT; [ \"$IP\" = \"$(hostname -i)\" ] && echo own; echo ${#ID}";
    let node = super::get(lab, "node/m1");
    let cpus = node["status"]["allocatable"]["cpu"].as_str().unwrap().to_owned();
    vec![
        Case::new("env-fields", script, format!("env-fields default {ip} {ip} m1 default\nown\n36\n"))
            .container(&fields),
        Case::new("env-amounts", "echo $A $B $C $D", "2 1 67108864 33554432\n")
            .container(&json!({"env": amounts, "resources": resources})),
        Case::new("env-defaults", "echo $A $B; [ $C -gt 1000000 ] && echo all", format!("{cpus} 0\nall\n"))
            .container(&json!({"env": amounts})),
    ]
}

pub fn variables_are_expanded() -> Vec<Case> {
    let env = json!([{"name": "A", "value": "a"}, {"name": "B", "value": "b"}, {"name": "BOTH", "value": "$(A);;$(B) $$(A) $(NO)"}]);
    let arguments = json!({"env": env, "command": ["echo"], "args": ["$(A)", "$$(B)", "$(BOTH)", "$(NO)"]});
    let command = json!({"env": env, "command": ["sh", "-c", "echo $(A) '$$(A)' '$(NO)'"]});
    vec![
        Case::new("expand-env", "echo \"$BOTH\"", "a;;b $(A) $(NO)\n").container(&json!({"env": env})),
        Case::new("expand-arguments", "", "a $(B) a;;b $(A) $(NO) $(NO)\n").container(&arguments),
        Case::new("expand-command", "", "a $(A) $(NO)\n").container(&command),
    ]
}

pub fn commands_and_arguments_override_the_image() -> Vec<Case> {
    let case = |name: &str, command: Value, arguments: Value, says: &str| {
        Case::new(name, "", says).container(&json!({"image": TALKS, "command": command, "args": arguments}))
    };
    vec![
        case("image-both", json!(null), json!(null), "entry and arguments\n"),
        case("image-arguments", json!(null), json!(["others"]), "entry others\n"),
        case("image-command", json!(["/bin/echo", "mine"]), json!(null), "mine\n"),
        case("image-neither", json!(["/bin/echo", "mine"]), json!(["others"]), "mine others\n"),
    ]
}

pub fn services_are_variables(lab: &Lab) {
    let server = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "foo", "labels": {"app": "foo"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": IMAGE,
            "command": ["httpd", "-f", "-p", "9376"]}]}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "fooservice"},
        "spec": {"selector": {"app": "foo"}, "ports": [{"port": 8765, "targetPort": 8080}]}});
    create(lab, &[&server, &service]);
    until(lab, "pod/foo", is_ready);
    let ip = super::get(lab, "service/fooservice")["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let says = format!(
        "FOOSERVICE_PORT=tcp://{ip}:8765\nFOOSERVICE_PORT_8765_TCP=tcp://{ip}:8765\nFOOSERVICE_PORT_8765_TCP_ADDR={ip}\n\
         FOOSERVICE_PORT_8765_TCP_PORT=8765\nFOOSERVICE_PORT_8765_TCP_PROTO=tcp\nFOOSERVICE_SERVICE_HOST={ip}\n\
         FOOSERVICE_SERVICE_PORT=8765\n"
    );
    all_say(lab, &[Case::new("env-services", "env | grep ^FOOSERVICE | sort", says)]);
    lab.kubectl(&["delete", "pod/foo", "service/fooservice"]);
}
