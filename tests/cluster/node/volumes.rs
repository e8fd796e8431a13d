//! Tests: volumes: what is in them, with which mode and owner, and what becomes of it while a pod runs.

use serde_json::{Value, json};

use super::{Case, all_say, create, is_ready, until};
use crate::lab::{Lab, wait_for};

/// Says the mode of each file and what is in it.
const SHOW: &str = "show() { for f in \"$@\"; do stat -Lc %a \"$f\"; cat \"$f\"; echo; done; };";

/// What the pods of this module find.
pub fn data(lab: &Lab) {
    let binary = json!({"dump.bin": "3q2+7w=="});
    let (texts, encoded) = (
        json!({"data-1": "value-1", "data-2": "value-2"}),
        json!({"data-1": "dmFsdWUtMQ==", "data-2": "dmFsdWUtMg=="}),
    );
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": texts});
    let secret =
        |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded});
    let mut whole = map("files");
    whole["binaryData"] = binary;
    let other = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "files", "namespace": "other"},
        "stringData": {"data-1": "of another namespace"}});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}});
    let changing = [map("changes"), map("goes"), secret("changes"), secret("goes")];
    let many: Vec<Value> = (0..50).map(|n| map(&format!("race-{n}"))).collect();
    let mut all = vec![&namespace, &other, &whole];
    let files = secret("files");
    all.push(&files);
    all.extend(&changing);
    all.extend(&many);
    create(lab, &all);
}

/// A volume of a ConfigMap or a Secret, by itself or projected; `items` and `mode` when they are given.
fn source(kind: &str, projected: bool, name: &str, items: Option<Value>, mode: Option<i32>) -> Value {
    let named = if kind == "secret" && !projected { "secretName" } else { "name" };
    let mut of = json!({named: name});
    if let Some(items) = items {
        of["items"] = items;
    }
    let mut volume = if projected { json!({"projected": {"sources": [{kind: of}]}}) } else { json!({kind: of}) };
    if let Some(mode) = mode {
        volume[if projected { "projected" } else { kind }]["defaultMode"] = json!(mode);
    }
    volume
}

pub fn config_maps_and_secrets_are_files() -> Vec<Case> {
    let mut out = Vec::new();
    for (kind, short) in [("configMap", "map"), ("secret", "secret")] {
        for projected in [false, true] {
            let prefix = if projected { format!("projected-{short}") } else { short.to_owned() };
            let item = |mode: Option<i32>| {
                let mut item = json!({"key": "data-2", "path": "path/to/data-2"});
                if let Some(mode) = mode {
                    item["mode"] = json!(mode);
                }
                Some(json!([item]))
            };
            let plain = format!("{SHOW} show /v/data-1");
            let mapped = format!("{SHOW} show /v/path/to/data-2; ls /v");
            let case = |name: &str, script: &str, says: &str, items, mode| {
                Case::new(format!("{prefix}-{name}"), script, says)
                    .volume(&source(kind, projected, "files", items, mode))
            };
            out.extend([
                case("plain", &plain, "644\nvalue-1\n", None, None),
                case("user", &plain, "644\nvalue-1\n", None, None).user(1000),
                case("mode", &plain, "400\nvalue-1\n", None, Some(0o400)),
                case("mapped", &mapped, "644\nvalue-2\npath\n", item(None), None),
                case("mapped-user", &mapped, "644\nvalue-2\npath\n", item(None), None).user(1000),
                case("mapped-mode", &mapped, "400\nvalue-2\npath\n", item(Some(0o400)), None),
            ]);
            let group = format!("{SHOW} show /v/data-1; stat -Lc %g /v/data-1");
            let context = json!({"securityContext": {"runAsUser": 1000, "fsGroup": 1001}});
            out.push(case("group", &group, "440\nvalue-1\n1001\n", None, Some(0o440)).spec(&context));
            let mut both = Case::new(format!("{prefix}-twice"), "cat /v/data-1 /w/data-1", "value-1value-1");
            let mut volumes =
                [source(kind, projected, "files", None, None), source(kind, projected, "files", None, None)];
            (volumes[0]["name"], volumes[1]["name"]) = (json!("v"), json!("w"));
            both = both.spec(&json!({"volumes": volumes})).container(
                &json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "w", "mountPath": "/w"}]}),
            );
            out.push(both);
        }
    }
    let binary = "od -An -tx1 /v/dump.bin; cat /v/data-1";
    out.push(Case::new("map-binary", binary, " de ad be ef\nvalue-1").volume(&source(
        "configMap",
        false,
        "files",
        None,
        None,
    )));
    let missing = json!({"configMap": {"name": "nowhere", "optional": true}});
    out.push(Case::new("map-optional", "ls -A /v | grep -v '^\\.\\.'; echo none", "none\n").volume(&missing));
    let sources = json!([
        {"configMap": {"name": "files", "items": [{"key": "data-1", "path": "of-map"}]}},
        {"secret": {"name": "files", "items": [{"key": "data-2", "path": "of-secret"}]}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]);
    let script = "cat /v/of-map /v/of-secret /v/name";
    let all = json!({"projected": {"sources": sources}});
    out.push(Case::new("projected-all", script, "value-1value-2projected-all").volume(&all));
    out
}

/// A downward API volume, by itself or projected.
fn downward(projected: bool, items: &Value, mode: Option<i32>) -> Value {
    let mut volume = match projected {
        true => json!({"projected": {"sources": [{"downwardAPI": {"items": items}}]}}),
        false => json!({"downwardAPI": {"items": items}}),
    };
    if let Some(mode) = mode {
        volume[if projected { "projected" } else { "downwardAPI" }]["defaultMode"] = json!(mode);
    }
    volume
}

pub fn the_downward_api_is_files(lab: &Lab) -> Vec<Case> {
    let node = super::get(lab, "node/m1");
    let allocatable = &node["status"]["allocatable"];
    let memory = allocatable["memory"].as_str().unwrap();
    let memory = match memory.strip_suffix("Ki") {
        Some(number) => number.parse::<i64>().unwrap() * 1024,
        None => memory.parse().unwrap(),
    };
    let defaults = format!("{} {memory}\n", allocatable["cpu"].as_str().unwrap());
    let amounts = json!([("limits.cpu"), ("requests.cpu"), ("limits.memory"), ("requests.memory")]);
    let of = |name: &str| json!({"path": name, "resourceFieldRef": {"containerName": "c", "resource": name}});
    let all: Vec<Value> = amounts.as_array().unwrap().iter().map(|name| of(name.as_str().unwrap())).collect();
    let own_name = |mode: Option<i32>| {
        let mut item = json!({"path": "name", "fieldRef": {"fieldPath": "metadata.name"}});
        if let Some(mode) = mode {
            item["mode"] = json!(mode);
        }
        json!([item])
    };
    let resources = json!({"resources": {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}});
    let mut out = Vec::new();
    for projected in [false, true] {
        let prefix = if projected { "projected-downward" } else { "downward" };
        let read = "cd /v; echo $(cat limits.cpu) $(cat requests.cpu) $(cat limits.memory) $(cat requests.memory)";
        let name = |what: &str| format!("{prefix}-{what}");
        let (items, show) = (json!(all), format!("{SHOW} show /v/name"));
        out.extend([
            Case::new(name("amounts"), read, "2 1 67108864 33554432\n")
                .volume(&downward(projected, &items, None))
                .container(&resources),
            Case::new(name("defaults"), "cd /v; echo $(cat limits.cpu) $(cat limits.memory)", &*defaults)
                .volume(&downward(projected, &items, None)),
            Case::new(name("name"), &show, format!("644\n{prefix}-name\n")).volume(&downward(
                projected,
                &own_name(None),
                None,
            )),
            Case::new(name("mode"), &show, format!("400\n{prefix}-mode\n")).volume(&downward(
                projected,
                &own_name(None),
                Some(0o400),
            )),
            Case::new(name("item-mode"), &show, format!("400\n{prefix}-item-mode\n")).volume(&downward(
                projected,
                &own_name(Some(0o400)),
                None,
            )),
        ]);
    }
    out
}

pub fn empty_dirs_have_modes_and_media() -> Vec<Case> {
    let mut out = Vec::new();
    for (medium, short) in [("", "disk"), ("Memory", "memory")] {
        for (user, uid) in [("root", None), ("user", Some(1000))] {
            let script = "stat -c %a /v; for m in 644 666 777; do echo hi > /v/$m; chmod $m /v/$m; stat -c %a /v/$m; \
                          cat /v/$m; done; grep -q ' /v tmpfs ' /proc/mounts && echo tmpfs || echo disk";
            let kind = if medium == "Memory" { "tmpfs" } else { "disk" };
            let says = format!("777\n644\nhi\n666\nhi\n777\nhi\n{kind}\n");
            let source = json!({"emptyDir": {"medium": medium}});
            let case = Case::new(format!("empty-{short}-{user}"), script, says).volume(&source);
            out.push(match uid {
                Some(uid) => case.user(uid),
                None => case,
            });
        }
    }
    // The other container comes later, as it sleeps first.
    let mount = json!([{"name": "v", "mountPath": "/v"}]);
    let waits =
        Case::new("empty-shared", "until [ -e /v/there ]; do sleep 0.1; done; cat /v/there", "from the other\n")
            .volume(&json!({"emptyDir": {}}));
    let mut containers = waits.pod["spec"]["containers"].clone();
    let mut other = containers[0].clone();
    (other["name"], other["volumeMounts"]) = (json!("other"), mount);
    other["command"] = json!(["sh", "-c", "sleep 1; echo from the other > /v/.new; mv /v/.new /v/there"]);
    containers.as_array_mut().unwrap().push(other);
    out.push(waits.spec(&json!({"containers": containers})));
    out
}

pub fn volumes_do_not_disturb_each_other() -> Vec<Case> {
    let both = json!({"volumes": [{"name": "m", "configMap": {"name": "files"}}, {"name": "s", "secret": {"secretName": "files"}}]});
    let mounts = json!({"volumeMounts": [{"name": "m", "mountPath": "/etc/m"}, {"name": "s", "mountPath": "/etc/s"}]});
    let mut out =
        vec![Case::new("wrapped", "cat /etc/m/data-1 /etc/s/data-2", "value-1value-2").spec(&both).container(&mounts)];
    let volumes: Vec<Value> =
        (0..50).map(|n| json!({"name": format!("v{n}"), "configMap": {"name": format!("race-{n}")}})).collect();
    let mounts: Vec<Value> =
        (0..50).map(|n| json!({"name": format!("v{n}"), "mountPath": format!("/race/{n}")})).collect();
    out.extend((0..5).map(|n| {
        Case::new(format!("race-{n}"), "cat /race/*/data-1 | wc -c", "350\n")
            .spec(&json!({"volumes": volumes}))
            .container(&json!({"volumeMounts": mounts}))
    }));
    out
}

pub fn sub_paths_are_mounted() -> Vec<Case> {
    let mounted = |name: &str, source: &Value, below: &str, says: &str| {
        let mount = json!({"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": below}]});
        Case::new(name, "if [ -d /v ]; then cat /v/*; else cat /v; fi", says).volume(source).container(&mount)
    };
    let name_item = json!([{"path": "d/name", "fieldRef": {"fieldPath": "metadata.name"}}]);
    let items = json!([{"key": "data-1", "path": "d/file"}]);
    let map = |projected| source("configMap", projected, "files", Some(items.clone()), None);
    let file = json!({"volumeMounts": [{"name": "v", "mountPath": "/etc/resolv.conf", "subPath": "data-2"}]});
    vec![
        mounted("sub-map", &map(false), "d", "value-1"),
        mounted("sub-secret", &source("secret", false, "files", Some(items.clone()), None), "d", "value-1"),
        mounted("sub-projected", &map(true), "d", "value-1"),
        mounted("sub-downward", &downward(false, &name_item, None), "d/name", "sub-downward"),
        Case::new("sub-file", "cat /etc/resolv.conf", "value-2")
            .volume(&source("configMap", false, "files", None, None))
            .container(&file),
    ]
}

/// A pod that goes on, with volumes at `/<name>`.
fn holder(name: &str, metadata: &Value, volumes: &[(&str, Value)]) -> Value {
    let mounts: Vec<Value> = volumes.iter().map(|(n, _)| json!({"name": n, "mountPath": format!("/{n}")})).collect();
    let volumes: Vec<Value> = volumes
        .iter()
        .map(|(name, source)| {
            let mut volume = json!({"name": name});
            crate::lab::merge(&mut volume, source);
            volume
        })
        .collect();
    Case::new(name, "exec sleep 100000", "")
        .metadata(metadata)
        .spec(&json!({"volumes": volumes}))
        .container(&json!({"volumeMounts": mounts}))
        .pod
}

pub fn running_pods_see_what_changes(lab: &Lab) {
    let later = |kind: &str, projected| {
        let mut source = source(kind, projected, "comes", None, None);
        let of = if projected { &mut source["projected"]["sources"][0][kind] } else { &mut source[kind] };
        of["optional"] = json!(true);
        source
    };
    let fields = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}]);
    let mut volumes = vec![("fields", downward(false, &fields, None)), ("fields-p", downward(true, &fields, None))];
    let all = [("m", "configMap", false), ("mp", "configMap", true), ("s", "secret", false), ("sp", "secret", true)];
    let named: Vec<[String; 3]> =
        all.iter().map(|(n, ..)| ["changes", "goes", "comes"].map(|w| format!("{n}-{w}"))).collect();
    for ((_, kind, projected), names) in all.iter().zip(&named) {
        let of = |what: &str| source(kind, *projected, what, None, None);
        let mut goes = of("goes");
        let optional = if *projected { &mut goes["projected"]["sources"][0][*kind] } else { &mut goes[*kind] };
        optional["optional"] = json!(true);
        volumes.extend([(names[0].as_str(), of("changes")), (&names[1], goes), (&names[2], later(kind, *projected))]);
    }
    create(lab, &[&holder("sees", &json!({"labels": {"a": "1"}, "annotations": {"b": "1"}}), &volumes)]);
    until(lab, "pod/sees", is_ready);
    let read = |path: &str| {
        let output = lab.kubectl_output(&["exec", "sees", "--", "cat", path]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(read("/m-changes/data-1").as_deref(), Some("value-1"));
    assert_eq!(read("/sp-goes/data-1").as_deref(), Some("value-1"));
    assert_eq!(read("/s-comes/data-1"), None);
    assert!(read("/fields/labels").unwrap().contains("a=\"1\""));

    lab.kubectl(&["label", "pod", "sees", "a=2", "--overwrite"]);
    lab.kubectl(&["annotate", "pod", "sees", "b=2", "--overwrite"]);
    lab.kubectl(&["patch", "configmap", "changes", "-p", r#"{"data":{"data-1":"new","data-2":null}}"#]);
    lab.kubectl(&["patch", "secret", "changes", "-p", r#"{"data":{"data-1":"bmV3","data-2":null}}"#]);
    lab.kubectl(&["delete", "configmap/goes", "secret/goes"]);
    lab.kubectl(&["create", "configmap", "comes", "--from-literal=data-1=here"]);
    lab.kubectl(&["create", "secret", "generic", "comes", "--from-literal=data-1=here"]);
    for fields in ["/fields", "/fields-p"] {
        wait_for("the new label", || read(&format!("{fields}/labels")).filter(|t| t.contains("a=\"2\"")));
        wait_for("the new annotation", || read(&format!("{fields}/annotations")).filter(|t| t.contains("b=\"2\"")));
    }
    for (name, ..) in all {
        let at = |what: &str, file: &str| read(&format!("/{name}-{what}/{file}"));
        wait_for("what changed", || (at("changes", "data-1").as_deref() == Some("new")).then_some(()));
        assert_eq!(at("changes", "data-2"), None, "a key that is gone is no file any more");
        wait_for("what went", || at("goes", "data-1").is_none().then_some(()));
        wait_for("what came", || (at("comes", "data-1").as_deref() == Some("here")).then_some(()));
    }
    lab.kubectl(&["delete", "pod", "sees"]);
}

pub fn sub_paths_expand_to_what_is_safe(lab: &Lab) {
    let env = |value: &Value| {
        let mut variable = json!({"name": "WHERE"});
        crate::lab::merge(&mut variable, value);
        json!([variable])
    };
    let expanded = |name: &str, value: &Value| {
        let mounts =
            json!([{"name": "v", "mountPath": "/v", "subPathExpr": "$(WHERE)"}, {"name": "v", "mountPath": "/all"}]);
        Case::new(name, "echo written > /v/file; cat /all/*/file", "written\n")
            .volume(&json!({"emptyDir": {}}))
            .container(&json!({"env": env(value), "volumeMounts": mounts}))
    };
    all_say(lab, &[expanded("expanded", &json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}))]);
    let annotated = json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['where']"}}});
    let refused = [
        expanded("absolute", &json!({"value": "/tmp"})).pod,
        expanded("backticks", &json!({"value": "`pwd`/.."})).pod,
        expanded("moves", &annotated).metadata(&json!({"annotations": {"where": "/tmp"}})).pod,
    ];
    create(lab, &refused.iter().collect::<Vec<_>>());
    for name in ["absolute", "backticks", "moves"] {
        let what = format!("pod/{name}");
        until(lab, &what, |pod| super::container(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError");
    }
    // Where it points to can be mended while it waits.
    lab.kubectl(&["annotate", "pod", "moves", "where=there", "--overwrite"]);
    assert_eq!(super::ended(lab, "moves"), "Succeeded");
    assert_eq!(lab.kubectl(&["logs", "moves"]), "written\n");
    lab.kubectl(&["delete", "pod", "absolute", "backticks", "moves"]);
}
