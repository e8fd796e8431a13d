//! Tables: the kinds of `resource.k8s.io`.

use serde_json::{Value, json};

use super::device_class::DeviceClassKind;
use super::resource_claim::ResourceClaimKind;
use super::resource_claim_template::ResourceClaimTemplateKind;
use super::resource_slice::ResourceSliceKind;
use crate::server::registry::core::persistent_volume::tests::{made, updated};
use crate::server::registry::format;
use crate::server::registry::strategy::Part;

fn claim(devices: &Value, expect: &[&str]) -> Value {
    made(ResourceClaimKind, json!({"spec": {"devices": devices}}), expect)
}

fn with_request(request: Value, expect: &[&str]) -> Value {
    let expect: Vec<String> = expect.iter().map(|e| format!("spec.devices.requests[0]{e}")).collect();
    let expect: Vec<&str> = expect.iter().map(String::as_str).collect();
    claim(&json!({"requests": [request]}), &expect)
}

#[test]
fn requests() {
    let made =
        with_request(json!({"name": "a", "exactly": {"deviceClassName": "c", "tolerations": [{"key": "k"}]}}), &[]);
    let exact = &made["spec"]["devices"]["requests"][0]["exactly"];
    assert_eq!((&exact["allocationMode"], &exact["count"]), (&json!("ExactCount"), &json!(1)));
    assert_eq!((&exact["tolerations"][0]["operator"], &made["status"]), (&json!("Equal"), &json!({})));
    let either = "exactly one of `exactly` or `firstAvailable` is required";
    with_request(json!({"name": "a"}), &[&format!(": Required value: {either}")]);
    with_request(
        json!({"name": "a", "exactly": {"deviceClassName": "c"}, "firstAvailable": [{"name": "b", "deviceClassName": "c"}]}),
        &[&format!(": Invalid value: null: {either}, but multiple fields are set")],
    );
    let (label, key) = (format::dns_label("A").remove(0), format::qualified_name("?").remove(0));
    with_request(
        json!({"name": "A", "exactly": {"deviceClassName": "", "allocationMode": "All", "count": 2,
            "selectors": [{}, {"cel": {"expression": "x".repeat(10 * 1024 + 1)}}], "tolerations": [
                {"key": "?", "operator": "Exists", "value": "v", "effect": "Go"}, {"operator": "Like"}]}}),
        &[
            &format!(".name: Invalid value: \"A\": {label}"),
            ".exactly.deviceClassName: Required value",
            ".exactly.selectors[0].cel: Required value",
            ".exactly.selectors[1].cel.expression: Too long: may not be more than 10240 bytes",
            ".exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            &format!(".exactly.tolerations[0].key: Invalid value: \"?\": {key}"),
            ".exactly.tolerations[0].value: Invalid value: \"v\": must be empty for operator `Exists`",
            ".exactly.tolerations[0].effect: Unsupported value: \"Go\": supported values: \"NoExecute\", \
             \"NoSchedule\", \"None\"",
            ".exactly.tolerations[1].operator: Unsupported value: \"Like\": supported values: \"Equal\", \"Exists\"",
        ],
    );
    with_request(
        json!({"name": "a", "firstAvailable": [{"name": "b", "deviceClassName": "c", "allocationMode": "Some"},
            {"name": "b", "deviceClassName": "c", "count": -1}]}),
        &[
            ".firstAvailable[0].allocationMode: Unsupported value: \"Some\": supported values: \"All\", \"ExactCount\"",
            ".firstAvailable[1].count: Invalid value: -1: must be greater than zero",
            ".firstAvailable[1]: Duplicate value: \"b\"",
        ],
    );
    let many: Vec<Value> = (0..33).map(|i| json!({"name": format!("r{i}")})).collect();
    claim(&json!({"requests": many}), &["spec.devices.requests: Too many: 33: must have at most 32 items"]);
    let selected = |expression: &str, expect: &[&str]| {
        let selectors = json!([{"cel": {"expression": expression}}]);
        let request = json!({"name": "a", "exactly": {"deviceClassName": "c", "selectors": selectors}});
        let expect: Vec<String> = expect.iter().map(|e| format!(".exactly.selectors[0].cel.expression: {e}")).collect();
        with_request(request, &expect.iter().map(String::as_str).collect::<Vec<_>>());
    };
    selected("device.driver == 'x.io' && device.capacity['x.io'].memory.isGreaterThan(quantity('1Gi'))", &[]);
    selected(
        "device.driver",
        &["Invalid value: \"device.driver\": must evaluate to bool or the unknown type, not string"],
    );
    let every = "device.attributes.all(d, device.attributes[d].all(n, device.attributes.all(e, \
                 device.attributes[e].all(m, device.attributes[e][m].matches('.*' + n)))))";
    selected(every, &["Forbidden: too complex, exceeds cost limit"]);
}

#[test]
fn constraints_and_configuration() {
    let requests = json!([{"name": "a", "firstAvailable": [{"name": "b", "deviceClassName": "c"}]}]);
    let unknown =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let opaque = json!({"driver": "d", "parameters": {}});
    claim(
        &json!({"requests": requests, "constraints": [{"requests": ["a/b"], "matchAttribute": "d.io/x"}],
            "config": [{"requests": ["a"], "opaque": opaque}]}),
        &[],
    );
    let identifier = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
        alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is \
        '[A-Za-z_][A-Za-z0-9_]*')";
    claim(
        &json!({"requests": requests, "constraints": [{"requests": ["a", "a", "x", "a/x", "a/b/c"], "matchAttribute": "1"}, {}],
            "config": [{}, {"opaque": {"driver": "", "parameters": 1}}]}),
        &[
            &format!("spec.devices.constraints[0].requests[2]: Invalid value: \"x\": {unknown}"),
            &format!("spec.devices.constraints[0].requests[3]: Invalid value: \"a/x\": {unknown}"),
            &format!("spec.devices.constraints[0].requests[4]: Invalid value: \"a/b/c\": {unknown}"),
            "spec.devices.constraints[0].requests[1]: Duplicate value: \"a\"",
            &format!("spec.devices.constraints[0].matchAttribute: Invalid value: \"1\": {identifier}"),
            "spec.devices.constraints[0].matchAttribute: Invalid value: \"1\": a fully qualified name must be a domain \
             and a name separated by a slash",
            "spec.devices.constraints[1]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" \
             is required, but multiple fields are set",
            "spec.devices.config[0].opaque: Required value",
            "spec.devices.config[1].opaque.driver: Required value",
            &format!(
                "spec.devices.config[1].opaque.driver: Invalid value: \"\": {}",
                format::dns_subdomain("").remove(0)
            ),
            "spec.devices.config[1].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
        ],
    );
}

#[test]
fn the_status_of_a_claim() {
    let old = with_request(json!({"name": "a", "exactly": {"deviceClassName": "c"}}), &[]);
    let update = |old: &Value, status: Value, expect: &[&str]| {
        updated(ResourceClaimKind, Part::Status, old, &[("/status", status)], expect)
    };
    let user = json!({"resource": "pods", "name": "p", "uid": "1"});
    let device = |pool: &str| json!({"request": "a", "driver": "d", "pool": pool, "device": "x"});
    let allocation = json!({"devices": {"results": [device("p")]}});
    let condition = json!({"type": "Ready", "status": "True", "reason": "Ok", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let told = json!({"driver": "d", "pool": "p", "device": "x", "conditions": [condition],
        "networkData": {"ips": ["10.0.0.1/8"]}});
    let new = update(&old, json!({"allocation": allocation, "reservedFor": [user], "devices": [told]}), &[]);
    assert_eq!(new["spec"], old["spec"]);
    update(
        &old,
        json!({"reservedFor": [user, user, {"resource": "", "name": "", "uid": ""}]}),
        &[
            "status.reservedFor[2].resource: Required value",
            "status.reservedFor[2].name: Required value",
            "status.reservedFor[2].uid: Required value",
            "status.reservedFor[1]: Duplicate value: \"1\"",
            "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
        ],
    );
    let mut other = new["status"].clone();
    other["allocation"] = json!({"devices": {"results": [device("q")]}});
    other["devices"] = json!([]);
    let shown = other["allocation"].clone();
    update(&new, other, &[&format!("status.allocation: Invalid value: {shown}: field is immutable")]);
    let mut odd = device("p");
    odd["request"] = "b".into();
    odd["shareID"] = "X".into();
    odd["bindingConditions"] = json!(["c", "c"]);
    let unknown =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    update(
        &old,
        json!({"allocation": {"devices": {"results": [odd], "config": [
            {"source": "Elsewhere", "opaque": {"driver": "d", "parameters": {}}}]}}, "devices": [
                {"driver": "d", "pool": "q", "device": "x", "networkData": {"ips": ["10.0.0.1"]}}]}),
        &[
            "status.devices[0]: Invalid value: \"d/q/x\": must be an allocated device in the claim",
            "status.devices[0].networkData.ips[0]: Invalid value: \"10.0.0.1\": must be a valid address in CIDR form, \
             (e.g. 10.9.8.7/24 or 2001:db8::1/64)",
            &format!("status.allocation.devices.results[0].request: Invalid value: \"b\": {unknown}"),
            "status.allocation.devices.results[0].bindingConditions[1]: Duplicate value: \"c\"",
            "status.allocation.devices.results[0].bindingFailureConditions: Invalid value: null: \
             bindingFailureConditions are required to use bindingConditions",
            "status.allocation.devices.results[0].shareID: Invalid value: \"X\": uid must be in RFC 4122 normalized \
             form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters",
            "status.allocation.devices.config[0].source: Unsupported value: \"Elsewhere\": supported values: \
             \"FromClaim\", \"FromClass\"",
        ],
    );
    let spec = json!({"devices": {}});
    updated(
        ResourceClaimKind,
        Part::Spec,
        &old,
        &[("/spec", spec.clone())],
        &[&format!("spec: Invalid value: {spec}: field is immutable")],
    );
}

#[test]
fn templates_and_classes() {
    let old = made(ResourceClaimTemplateKind, json!({"spec": {"spec": {}}}), &[]);
    assert_eq!(old["spec"], json!({"metadata": {}, "spec": {"devices": {}}}));
    made(
        ResourceClaimTemplateKind,
        json!({"spec": {"metadata": {"labels": {"a": "?"}}, "spec": {"devices": {"requests": [{"name": "a"}]}}}}),
        &[
            &format!("spec.metadata.labels: Invalid value: \"?\": {}", format::label_value("?").remove(0)),
            "spec.spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        ],
    );
    let spec = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"devices": {}}});
    updated(
        ResourceClaimTemplateKind,
        Part::Spec,
        &old,
        &[("/spec", spec.clone())],
        &[&format!("spec: Invalid value: {spec}: field is immutable")],
    );
    let class = made(DeviceClassKind, json!({"spec": {"extendedResourceName": "example.com/gpu"}}), &[]);
    let new = updated(DeviceClassKind, Part::Spec, &class, &[("/spec", json!({}))], &[]);
    assert_eq!(new["metadata"]["generation"], 2);
    made(
        DeviceClassKind,
        json!({"spec": {"extendedResourceName": "cpu", "selectors": [{}], "config": [{}]}}),
        &[
            "spec.selectors[0].cel: Required value",
            "spec.config[0].opaque: Required value",
            "spec.extendedResourceName: Invalid value: \"cpu\": must be a valid extended resource name",
        ],
    );
}

fn slice(more: &Value, expect: &[&str]) -> Value {
    let mut spec =
        json!({"driver": "d", "nodeName": "n", "pool": {"name": "p", "generation": 0, "resourceSliceCount": 1}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    made(ResourceSliceKind, json!({"spec": spec}), expect)
}

#[test]
fn slices() {
    let old = slice(&json!({"devices": [{"name": "a"}]}), &[]);
    let immutable = |field: &str, value: &str| format!("spec.{field}: Invalid value: {value}: field is immutable");
    updated(
        ResourceSliceKind,
        Part::Spec,
        &old,
        &[("/spec/driver", json!("e")), ("/spec/pool/name", json!("q")), ("/spec/nodeName", json!("m"))],
        &[&immutable("pool.name", "\"q\""), &immutable("driver", "\"e\""), &immutable("nodeName", "\"m\"")],
    );
    let one_of = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    slice(
        &json!({"nodeName": "", "allNodes": false, "pool": {"name": "", "generation": -1, "resourceSliceCount": 0}}),
        &[
            "spec.pool.name: Required value",
            "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            "spec.nodeName: Invalid value: \"\": must be either unset or set to a non-empty string",
            "spec.allNodes: Invalid value: false: must be either unset or set to true",
            &format!("spec: Required value: {one_of}"),
        ],
    );
    slice(
        &json!({"allNodes": true, "devices": [{"name": "a"}, {"name": "a", "allNodes": true}], "sharedCounters": [{"name": "", "counters": {}}]}),
        &[
            &format!("spec: Invalid value: \"{{`nodeName`, `allNodes`}}\": {one_of}, but multiple fields are set"),
            "spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed",
            "spec.devices[1]: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if \
             `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
            "spec.devices[1]: Duplicate value: \"a\"",
            "spec.sharedCounters[0].name: Required value",
            "spec.sharedCounters[0].counters: Required value",
        ],
    );
    slice(
        &json!({"nodeName": null, "perDeviceNodeSelection": true, "devices": [{"name": "a"}]}),
        &[
            "spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when \
           `perDeviceNodeSelection` is set to true in the ResourceSlice spec",
        ],
    );
    let tainted = json!({"name": "a", "taints": [{"key": "k", "effect": "None"}]});
    let made = slice(&json!({"devices": [tainted]}), &[]);
    assert!(made["spec"]["devices"][0]["taints"][0]["timeAdded"].is_string());
    let mut many: Vec<Value> = (0..65).map(|i| json!({"name": format!("d{i}")})).collect();
    slice(&json!({"devices": many}), &[]);
    many[0] = tainted;
    slice(&json!({"devices": many}), &["spec.devices: Too many: 65: must have at most 64 items"]);
}

#[test]
fn devices() {
    let device = |more: Value, expect: &[&str]| {
        let mut device = json!({"name": "a"});
        device.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let expect: Vec<String> = expect.iter().map(|e| format!("spec.devices[0]{e}")).collect();
        slice(&json!({"devices": [device]}), &expect.iter().map(String::as_str).collect::<Vec<_>>());
    };
    device(
        json!({"attributes": {"d.io/a": {"version": "1.2.3-alpha.1+b"}, "b": {"string": "x"}}, "capacity": {"m": {"value": "1Gi"}}}),
        &[],
    );
    device(
        json!({"attributes": {"/a": {"int": 1}, "a": {}, "b": {"int": 1, "bool": true}, "c": {"version": "1.02.3"},
            "d": {"string": "x".repeat(65)}, "e/": {"int": 1}}}),
        &[
            ".attributes[/a]: Invalid value: \"\": the domain must not be empty",
            ".attributes[a]: Invalid value: \"\": exactly one value must be specified",
            ".attributes[b]: Invalid value: {\"bool\":true,\"int\":1}: exactly one value must be specified",
            ".attributes[c].version: Invalid value: \"1.02.3\": must be a string compatible with semver.org spec 2.0.0",
            ".attributes[d].string: Too long: may not be more than 64 bytes",
            ".attributes[e/]: Invalid value: \"\": the name must not be empty",
        ],
    );
    let many: serde_json::Map<String, Value> = (0..33).map(|i| (format!("a{i}"), json!({"int": i}))).collect();
    device(
        json!({"attributes": many}),
        &[": Invalid value: 33: the total number of attributes and capacities must not exceed 32"],
    );
    device(
        json!({"taints": [{"key": "", "effect": ""}, {"key": "k", "value": "?", "effect": "Go"}],
            "consumesCounters": [{"counterSet": "", "counters": {}}, {"counterSet": "s", "counters": {"C": {"value": "1"}}}]}),
        &[
            &format!(".taints[0].key: Invalid value: \"\": {}", format::qualified_name("").remove(0)),
            &format!(".taints[0].key: Invalid value: \"\": {}", format::qualified_name("").remove(1)),
            ".taints[0].effect: Required value",
            &format!(".taints[1].value: Invalid value: \"?\": {}", format::label_value("?").remove(0)),
            ".taints[1].effect: Unsupported value: \"Go\": supported values: \"NoExecute\", \"NoSchedule\", \"None\"",
            ".consumesCounters[0].counterSet: Required value",
            ".consumesCounters[0].counters: Required value",
            &format!(".consumesCounters[1].counters[C]: Invalid value: \"C\": {}", format::dns_label("C").remove(0)),
        ],
    );
    device(
        json!({"bindingFailureConditions": ["a"]}),
        &[".bindingConditions: Invalid value: null: bindingConditions are required to use bindingFailureConditions"],
    );
    device(
        json!({"bindingConditions": ["a"], "bindingFailureConditions": ["a"]}),
        &[".bindingFailureConditions[0]: Invalid value: \"a\": bindingFailureConditions must not overlap with \
           bindingConditions"],
    );
}

#[test]
fn capacities() {
    let capacity = |shared: bool, policy: Value, expect: &[&str]| {
        let expect: Vec<String> =
            expect.iter().map(|e| format!("spec.devices[0].capacity[m].requestPolicy{e}")).collect();
        let device = json!({"name": "a", "allowMultipleAllocations": shared, "capacity": {"m": {"value": "10",
            "requestPolicy": policy}}});
        slice(&json!({"devices": [device]}), &expect.iter().map(String::as_str).collect::<Vec<_>>());
    };
    capacity(false, json!({}), &[": Forbidden: allowMultipleAllocations must be true"]);
    capacity(true, json!({"default": "2", "validValues": ["1", "2"]}), &[]);
    capacity(true, json!({"validValues": ["1"]}), &[".default: Required value: required when validValues is defined"]);
    capacity(
        true,
        json!({"default": "1", "validValues": ["1"], "validRange": {"min": "1"}}),
        &[
            ": Forbidden: exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the \
           same time",
        ],
    );
    capacity(
        true,
        json!({"default": "3", "validValues": ["2", "1", "1", "11"]}),
        &[
            ".validValues[1]: Invalid value: \"1\": values must be sorted in ascending order",
            ".validValues[3]: Invalid value: \"11\": option is larger than capacity value: 10",
            ".validValues[2]: Duplicate value: \"1\"",
            ".validValues: Invalid value: \"3\": default value is not valid according to the requestPolicy",
        ],
    );
    capacity(
        true,
        json!({"default": "1", "validRange": {"min": "2", "max": "11", "step": "9"}}),
        &[
            ".validRange.min: Invalid value: \"1\": default is less than min: 2",
            ".validRange.max: Invalid value: \"11\": max is larger than capacity value: 10",
            ".validRange.step: Invalid value: \"9\": one step 11 is larger than capacity value: 10",
            ".validRange.step: Invalid value: \"1\": value is not a multiple of a given step (9) from (2)",
        ],
    );
}
