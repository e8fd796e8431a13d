//! Which devices claims get, by tables.

mod random;

use std::cell::{Cell, RefCell};

use k8s_openapi::api::resource::v1::AllocationResult;
use serde_json::{Value, json};

use super::allocator::{Fail, Given, MAX_ATTEMPT_STEPS, allocate};
use super::pools::Pools;
use super::request::Asked;
use super::*;
use crate::server::scheduler::snapshot::NodeInfo;

/// Classes, slices and claims, and the node `n` of the zone `z`.
#[derive(Default)]
struct Shop {
    devices: Devices,
    claims: Vec<String>,
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// A slice of the driver `x.io` that the node has.
fn slice(name: &str, pool: &str, devices: &Value) -> Value {
    json!({ "metadata": { "name": name },
        "spec": { "driver": "x.io", "nodeName": "n", "pool": { "name": pool, "generation": 1, "resourceSliceCount": 1 },
            "devices": devices } })
}

fn exactly(name: &str, more: &Value) -> Value {
    let mut exact = json!({ "deviceClassName": "any", "allocationMode": "ExactCount", "count": 1 });
    exact.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "name": name, "exactly": exact })
}

fn red(color: &str) -> Value {
    json!([{ "cel": { "expression": format!("device.attributes['x.io'].color == '{color}'") } }])
}

fn colored(name: &str, color: &str) -> Value {
    json!({ "name": name, "attributes": { "color": { "string": color } } })
}

impl Shop {
    fn new(slices: &[Value]) -> Self {
        let mut shop = Self::default();
        shop.devices.set_class(read(json!({ "metadata": { "name": "any" }, "spec": {} })));
        for slice in slices {
            shop.devices.set_slice(read(slice.clone()));
        }
        shop
    }

    fn class(mut self, name: &str, spec: Value) -> Self {
        self.devices.set_class(read(json!({ "metadata": { "name": name }, "spec": spec })));
        self
    }

    /// One more claim that is to be allocated.
    fn claim(mut self, devices: &Value) -> Self {
        let name = format!("c{}", self.claims.len());
        let claim =
            json!({ "metadata": { "name": name, "namespace": "ns", "uid": name }, "spec": { "devices": devices } });
        self.devices.set_claim(read(claim));
        self.claims.push(name);
        self
    }

    fn requests(self, requests: &[Value]) -> Self {
        self.claim(&json!({ "requests": requests }))
    }

    /// Devices of a pool that another claim has.
    fn taken(mut self, pool: &str, results: &[Value]) -> Self {
        let results: Vec<Value> = results
            .iter()
            .map(|result| {
                let mut result = if result.is_string() { json!({ "device": result }) } else { result.clone() };
                result
                    .as_object_mut()
                    .unwrap()
                    .extend(json!({ "driver": "x.io", "pool": pool, "request": "r" }).as_object().unwrap().clone());
                result
            })
            .collect();
        let status = json!({ "allocation": { "devices": { "results": results } } });
        let name = format!("other-{pool}");
        let meta = json!({ "name": name, "namespace": "ns", "uid": name });
        self.devices.set_claim(read(json!({ "metadata": meta, "spec": {}, "status": status })));
        self
    }

    fn results(&self) -> Result<Vec<AllocationResult>, Fail> {
        let mut node = NodeInfo::default();
        node.observe(read(json!({ "metadata": { "name": "n", "labels": { "zone": "z" } } })));
        let mut asked = Vec::new();
        for name in &self.claims {
            let before = asked.iter().map(Asked::request_count).sum();
            let claim = self.devices.claim("ns", name).unwrap();
            asked.push(Asked::new(claim, &self.devices, before).map_err(Fail::Pod)?);
        }
        let (taken, matches) = (self.devices.taken(), RefCell::default());
        let (programs, steps) = (&self.devices.programs, Cell::new(MAX_ATTEMPT_STEPS));
        let given = Given { claims: &asked, taken: &taken, programs, matches: &matches, steps: &steps };
        let found = allocate(&given, Pools::new(self.devices.slices()).on(&node))?;
        let id = || "11111111-2222-4333-8444-555555555555".to_owned();
        Ok(asked.iter().zip(&found).map(|(asked, found)| result::result(asked, found, "n", &id)).collect())
    }

    /// `request=pool/device` of all claims, or why there are none.
    #[track_caller]
    fn check(&self, want: Result<&[&str], &str>) {
        let found = self.results().map(|all| {
            let each = all.iter().flat_map(results);
            each.map(|r| format!("{}={}/{}", r.request, r.pool, r.device)).collect::<Vec<_>>()
        });
        let found = found.map_err(|fail| match fail {
            Fail::Node(why) => why,
            Fail::Pod(why) => format!("! {why}"),
        });
        let want = want.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, want.map_err(str::to_owned));
    }
}

const NONE: Result<&[&str], &str> = Err("cannot allocate all claims");

#[test]
fn devices_are_tried_in_order() {
    let one = |name: &str| json!([{ "name": name }]);
    let slices = [slice("s3", "p3", &one("a")), slice("s1", "p2", &one("b")), slice("s2", "p1", &one("c"))];
    let want = |count: i64| Shop::new(&slices).requests(&[exactly("r", &json!({ "count": count }))]);
    want(2).check(Ok(&["r=p1/c", "r=p2/b"]));
    want(3).taken("p2", &[json!("b")]).check(NONE);
    want(2).taken("p1", &[json!("c")]).check(Ok(&["r=p2/b", "r=p3/a"]));
    want(4).check(NONE);
    // What has to be prepared is taken last.
    let mut prepared = one("0");
    prepared[0]["bindingConditions"] = json!(["Ready"]);
    prepared[0]["bindingFailureConditions"] = json!(["Broken"]);
    let shop = Shop::new(&[slice("a", "p0", &prepared), slice("b", "p1", &one("c"))]);
    shop.requests(&[exactly("r", &json!({}))]).check(Ok(&["r=p1/c"]));
    // Two claims share nothing.
    Shop::new(&slices)
        .requests(&[exactly("r", &json!({ "count": 2 }))])
        .requests(&[exactly("q", &json!({}))])
        .check(Ok(&["r=p1/c", "r=p2/b", "q=p3/a"]));
}

#[test]
fn only_whole_pools_of_the_newest_generation() {
    let part = |name: &str, generation: i64, count: i64, devices: Value| {
        let mut slice = slice(name, "p", &devices);
        slice["spec"]["pool"] = json!({ "name": "p", "generation": generation, "resourceSliceCount": count });
        slice
    };
    let (a, b) = (json!([{ "name": "a" }]), json!([{ "name": "b" }]));
    let want = |slices: &[Value], mode: Value| Shop::new(slices).requests(&[exactly("r", &mode)]);
    let all = || json!({ "allocationMode": "All", "count": null });
    want(&[part("s1", 1, 2, a.clone())], json!({})).check(NONE);
    want(&[part("s1", 1, 2, a.clone()), part("s2", 1, 2, b.clone())], all()).check(Ok(&["r=p/a", "r=p/b"]));
    want(&[part("s1", 1, 2, a.clone())], all()).check(Err(
        "claim ns/c0, request r: asks for all devices, but resource pool x.io/p is currently being updated",
    ));
    want(&[part("s1", 1, 1, a.clone()), part("s2", 2, 1, b.clone())], json!({})).check(Ok(&["r=p/b"]));
    // The newest is not here any more.
    let mut elsewhere = part("s2", 2, 1, b);
    elsewhere["spec"]["nodeName"] = json!("m");
    want(&[part("s1", 1, 1, a.clone()), elsewhere], json!({})).check(NONE);
    let twice = [part("s1", 1, 2, a.clone()), part("s2", 1, 2, a)];
    want(&twice, json!({})).check(Err("invalid resource pools were encountered"));
    want(&twice, all())
        .check(Err("claim ns/c0, request r: asks for all devices, but resource pool x.io/p is currently invalid"));
}

#[test]
fn devices_are_where_their_slices_say() {
    let term = |key: &str, value: &str| json!({ "nodeSelectorTerms": [{ "matchExpressions": [{ "key": key, "operator": "In", "values": [value] }] }] });
    let place = |place: Value, device: Value| {
        let mut slice = slice("s", "p", &json!([device]));
        slice["spec"].as_object_mut().unwrap().remove("nodeName");
        slice["spec"].as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        Shop::new(&[slice]).requests(&[exactly("r", &json!({}))])
    };
    let here = |shop: &Shop| shop.results().unwrap()[0].node_selector.clone();
    let named = json!({ "nodeSelectorTerms": [{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": ["n"] }] }] });
    let a = || json!({ "name": "a" });
    assert_eq!(json!(here(&place(json!({ "nodeName": "n" }), a()))), named);
    place(json!({ "nodeName": "m" }), a()).check(NONE);
    assert_eq!(here(&place(json!({ "allNodes": true }), a())), None);
    assert_eq!(json!(here(&place(json!({ "nodeSelector": term("zone", "z") }), a()))), term("zone", "z"));
    place(json!({ "nodeSelector": term("zone", "y") }), a()).check(NONE);
    // One that is bound to a node is nowhere else.
    let bound = json!({ "name": "a", "bindsToNode": true });
    assert_eq!(json!(here(&place(json!({ "allNodes": true }), bound))), named);
    let each = |device: Value| place(json!({ "perDeviceNodeSelection": true }), device);
    assert_eq!(here(&each(json!({ "name": "a", "allNodes": true }))), None);
    assert_eq!(json!(here(&each(json!({ "name": "a", "nodeName": "n" })))), named);
    each(json!({ "name": "a", "nodeName": "m" })).check(NONE);
    let zone = json!({ "name": "a", "nodeSelector": term("zone", "z") });
    assert_eq!(json!(here(&each(zone))), term("zone", "z"));
}

#[test]
fn selectors_of_class_and_request_both_count() {
    let devices = json!([colored("a", "red"), colored("b", "blue"), { "name": "c" }]);
    let shop = || Shop::new(&[slice("s", "p", &devices)]);
    let first = json!([colored("a", "red"), colored("b", "blue")]);
    let whole = || Shop::new(&[slice("s", "p", &first)]);
    whole().requests(&[exactly("r", &json!({ "selectors": red("blue") }))]).check(Ok(&["r=p/b"]));
    let of_class = || whole().class("blue", json!({ "selectors": red("blue") }));
    of_class().requests(&[exactly("r", &json!({ "deviceClassName": "blue" }))]).check(Ok(&["r=p/b"]));
    of_class().requests(&[exactly("r", &json!({ "deviceClassName": "blue", "selectors": red("red") }))]).check(NONE);
    let hint =
        "no such key: color. Consider using CEL optional chaining (?), has() macro, or orValue() for optional fields";
    shop()
        .requests(&[exactly("r", &json!({ "selectors": red("green") }))])
        .check(Err(&format!("! claim ns/c0: selector #0 on device x.io/p/c: CEL runtime error: {hint}")));
    let failing = shop().class("green", json!({ "selectors": red("green") }));
    failing
        .requests(&[exactly("r", &json!({ "deviceClassName": "green" }))])
        .check(Err(&format!("! class green: selector #0 on device x.io/p/c: CEL runtime error: {hint}")));
    let broken = json!({ "selectors": [{ "cel": { "expression": "1" } }] });
    shop().requests(&[exactly("r", &broken)]).check(Err(
        "! claim ns/c0: selector #0: CEL compile error: must evaluate to bool or the unknown type, not int",
    ));
    shop()
        .requests(&[exactly("r", &json!({ "deviceClassName": "none" }))])
        .check(Err("! request r: device class none does not exist"));
}

#[test]
fn all_devices_or_none() {
    let shop =
        || Shop::new(&[slice("s", "p", &json!([colored("a", "red"), colored("b", "blue"), colored("c", "red")]))]);
    let all = |more: Value| {
        let mut ask = json!({ "allocationMode": "All", "count": null });
        ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        exactly("r", &ask)
    };
    shop().requests(&[all(json!({}))]).check(Ok(&["r=p/a", "r=p/b", "r=p/c"]));
    shop().requests(&[all(json!({ "selectors": red("red") }))]).check(Ok(&["r=p/a", "r=p/c"]));
    shop().requests(&[all(json!({ "selectors": red("green") }))]).check(NONE);
    shop().taken("p", &[json!("b")]).requests(&[all(json!({}))]).check(NONE);
    shop()
        .taken("p", &[json!("b")])
        .requests(&[all(json!({ "adminAccess": true }))])
        .check(Ok(&["r=p/a", "r=p/b", "r=p/c"]));
    // What an administrator looks at is still free.
    shop()
        .taken("p", &[json!({ "device": "b", "adminAccess": true })])
        .requests(&[all(json!({}))])
        .check(Ok(&["r=p/a", "r=p/b", "r=p/c"]));
    shop()
        .requests(&[exactly("q", &json!({ "adminAccess": true })), exactly("r", &json!({ "adminAccess": true }))])
        .check(Ok(&["q=p/a", "r=p/b"]));
    let same = json!([{ "matchAttribute": "x.io/color" }]);
    shop().claim(&json!({ "requests": [all(json!({}))], "constraints": same })).check(Err(
        "! claim ns/c0, request r: cannot add device x.io/p/b because a claim constraint would not be satisfied",
    ));
}

#[test]
fn constraints_are_satisfied_by_going_back() {
    let devices = json!([colored("a", "red"), colored("b", "blue"), colored("c", "blue"), { "name": "d" }]);
    let want = |constraint: Value, requests: &[Value]| {
        Shop::new(&[slice("s", "p", &devices)]).claim(&json!({ "requests": requests, "constraints": [constraint] }))
    };
    let (q, r) = (exactly("q", &json!({})), exactly("r", &json!({})));
    let both = [q, r];
    want(json!({ "matchAttribute": "x.io/color" }), &both).check(Ok(&["q=p/b", "r=p/c"]));
    want(json!({ "distinctAttribute": "x.io/color" }), &both).check(Ok(&["q=p/a", "r=p/b"]));
    want(json!({ "matchAttribute": "x.io/color", "requests": ["r"] }), &both).check(Ok(&["q=p/a", "r=p/b"]));
    want(json!({ "matchAttribute": "y.io/color" }), &both).check(NONE);
    want(json!({ "distinctAttribute": "x.io/color" }), &[exactly("r", &json!({ "count": 3 }))]).check(NONE);
}

#[test]
fn the_first_alternative_that_is_there() {
    let shop =
        || Shop::new(&[slice("s", "p", &json!([colored("a", "red"), colored("b", "blue"), colored("c", "blue")]))]);
    let alternative = |name: &str, color: &str, count: i64| json!({ "name": name, "deviceClassName": "any", "allocationMode": "ExactCount", "count": count, "selectors": red(color) });
    let list = json!({ "name": "r", "firstAvailable":
        [alternative("two-red", "red", 2), alternative("two-blue", "blue", 2), alternative("red", "red", 1)] });
    shop().requests(std::slice::from_ref(&list)).check(Ok(&["r/two-blue=p/b", "r/two-blue=p/c"]));
    shop().taken("p", &[json!("b")]).requests(std::slice::from_ref(&list)).check(Ok(&["r/red=p/a"]));
    shop().taken("p", &[json!("a"), json!("b")]).requests(std::slice::from_ref(&list)).check(NONE);
    // An earlier request makes room for a later one.
    let blue = exactly("q", &json!({ "selectors": red("blue"), "count": 2 }));
    shop().requests(&[list, blue]).check(Ok(&["r/red=p/a", "q=p/b", "q=p/c"]));
}

#[test]
fn a_claim_gets_so_many_devices_at_most() {
    let devices: Vec<Value> = (0..64).map(|i| json!({ "name": format!("d{i}") })).collect();
    let shop = || Shop::new(&[slice("s", "p", &json!(devices))]);
    shop()
        .requests(&[exactly("r", &json!({ "count": 33 }))])
        .check(Err("claim ns/c0: number of requested devices 33 exceeds the claim limit of 32"));
    let one = |name: &str, count: i64| json!({ "name": name, "deviceClassName": "any", "count": count });
    let list = |name: &str| json!({ "name": name, "firstAvailable": [one("many", 20), one("few", 1)] });
    let found = shop().requests(&[list("a"), list("b"), list("c")]).results().unwrap();
    let names: Vec<&str> = results(&found[0]).iter().map(|r| r.request.as_str()).collect();
    assert_eq!((names.len(), names[0], &names[20..]), (22, "a/many", &["b/few", "c/few"][..]));
    // A search that leads nowhere ends.
    let pairs = json!([{ "matchAttribute": "x.io/none", "requests": ["z"] }]);
    let asked =
        json!({ "requests": [exactly("r", &json!({ "count": 20 })), exactly("z", &json!({}))], "constraints": pairs });
    shop().claim(&asked).check(Err("timed out trying to allocate devices"));
}

#[test]
fn taints_are_tolerated_or_not() {
    let taint = |effect: &str| json!([{ "key": "k", "value": "v", "effect": effect }]);
    let want = |effect: &str, tolerations: Value| {
        let devices = json!([{ "name": "a", "taints": taint(effect) }]);
        Shop::new(&[slice("s", "p", &devices)]).requests(&[exactly("r", &json!({ "tolerations": tolerations }))])
    };
    want("NoSchedule", json!([])).check(NONE);
    want("NoExecute", json!([])).check(NONE);
    want("None", json!([])).check(Ok(&["r=p/a"]));
    want("NoExecute", json!([{ "operator": "Exists" }])).check(Ok(&["r=p/a"]));
    want("NoExecute", json!([{ "key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute" }]))
        .check(Ok(&["r=p/a"]));
    want("NoExecute", json!([{ "key": "k", "operator": "Equal", "value": "w" }])).check(NONE);
    want("NoExecute", json!([{ "key": "k", "operator": "Exists", "effect": "NoSchedule" }])).check(NONE);
    let tolerated = want("NoSchedule", json!([{ "operator": "Exists" }])).results().unwrap();
    assert_eq!(results(&tolerated[0])[0].tolerations.as_ref().unwrap().len(), 1);
}

#[test]
fn partitions_share_counters() {
    let uses = |memory: &str| json!([{ "counterSet": "gpu", "counters": { "memory": { "value": memory } } }]);
    let part = |name: &str, memory: &str| json!({ "name": name, "consumesCounters": uses(memory) });
    let of_pool = |name: &str, devices: Option<Value>| {
        let mut slice = slice(name, "p", &json!([]));
        slice["spec"]["pool"]["resourceSliceCount"] = json!(2);
        match devices {
            Some(devices) => slice["spec"]["devices"] = devices,
            None => {
                slice["spec"].as_object_mut().unwrap().remove("devices");
                slice["spec"]["sharedCounters"] =
                    json!([{ "name": "gpu", "counters": { "memory": { "value": "40Gi" } } }]);
            }
        }
        slice
    };
    let devices = json!([part("whole", "40Gi"), part("half-1", "20Gi"), part("half-2", "20Gi"), part("third", "30Gi")]);
    let shop = || Shop::new(&[of_pool("counters", None), of_pool("devices", Some(devices.clone()))]);
    let count = |count: i64| [exactly("r", &json!({ "count": count }))];
    shop().requests(&count(1)).check(Ok(&["r=p/whole"]));
    shop().requests(&count(2)).check(Ok(&["r=p/half-1", "r=p/half-2"]));
    shop().requests(&count(3)).check(NONE);
    shop().taken("p", &[json!("half-2")]).requests(&count(1)).check(Ok(&["r=p/half-1"]));
    shop().taken("p", &[json!("third")]).requests(&count(1)).check(NONE);
    // Counters that are not there.
    let wrong =
        json!([{ "name": "a", "consumesCounters": [{ "counterSet": "none", "counters": { "m": { "value": "1" } } }] }]);
    Shop::new(&[of_pool("counters", None), of_pool("devices", Some(wrong))])
        .requests(&count(1))
        .check(Err("invalid resource pools were encountered"));
}

#[test]
fn capacity_is_shared() {
    let policy = json!({ "default": "1Gi", "validRange": { "min": "1Gi", "step": "2Gi", "max": "9Gi" } });
    let device = |policy: &Value| {
        json!([{ "name": "a", "allowMultipleAllocations": true,
            "capacity": { "memory": { "value": "10Gi", "requestPolicy": policy } } }])
    };
    let shop = |policy: &Value| Shop::new(&[slice("s", "p", &device(policy))]);
    let ask = |name: &str, memory: Value| exactly(name, &json!({ "capacity": { "requests": memory } }));
    let gets = |shop: Shop| {
        let found = shop.results().map_err(|fail| format!("{fail:?}")).unwrap();
        let each = found.iter().flat_map(results);
        each.map(|r| r.consumed_capacity.as_ref().unwrap()["memory"].0.clone()).collect::<Vec<_>>()
    };
    assert_eq!(gets(shop(&policy).requests(&[ask("r", json!({}))])), ["1Gi"]);
    assert_eq!(gets(shop(&policy).requests(&[ask("r", json!({ "memory": "4Gi" }))])), ["5Gi"], "the next step");
    assert_eq!(
        gets(shop(&policy).requests(&[ask("r", json!({ "memory": "1" })), ask("q", json!({ "memory": "9Gi" }))])),
        ["1Gi", "9Gi"]
    );
    shop(&policy).requests(&[ask("r", json!({ "memory": "3Gi" })), ask("q", json!({ "memory": "9Gi" }))]).check(NONE);
    shop(&policy).requests(&[ask("r", json!({ "memory": "10Gi" }))]).check(NONE);
    shop(&policy).requests(&[ask("r", json!({ "cores": "1" }))]).check(NONE);
    let values = json!({ "default": "2Gi", "validValues": ["2Gi", "8Gi"] });
    assert_eq!(gets(shop(&values).requests(&[ask("r", json!({ "memory": "3Gi" }))])), ["8Gi"]);
    shop(&values).requests(&[ask("r", json!({ "memory": "9Gi" }))]).check(NONE);
    // Without a policy who asks for nothing has all of it.
    assert_eq!(gets(shop(&Value::Null).requests(&[ask("r", json!({}))])), ["10Gi"]);
    shop(&Value::Null).requests(&[ask("r", json!({})), ask("q", json!({ "memory": "1" }))]).check(NONE);
    let used = |memory: &str| json!({ "device": "a", "shareID": "s", "consumedCapacity": { "memory": memory } });
    shop(&policy).taken("p", &[used("6Gi")]).requests(&[ask("r", json!({ "memory": "5Gi" }))]).check(NONE);
    assert_eq!(
        gets(shop(&policy).taken("p", &[used("5Gi")]).requests(&[ask("r", json!({ "memory": "5Gi" }))])),
        ["5Gi"]
    );
    let shared = shop(&policy).requests(&[ask("r", json!({}))]).results().unwrap();
    assert_eq!(results(&shared[0])[0].share_id.as_deref(), Some("11111111-2222-4333-8444-555555555555"));
    // A device that is not shared has its capacity for who gets it.
    let mut single = device(&Value::Null);
    single[0]["allowMultipleAllocations"] = Value::Null;
    let single = || Shop::new(&[slice("s", "p", &single)]);
    single().requests(&[ask("r", json!({ "memory": "11Gi" }))]).check(NONE);
    single().requests(&[ask("r", json!({ "memory": "1Gi" })), ask("q", json!({ "memory": "1Gi" }))]).check(NONE);
    single().requests(&[ask("r", json!({ "memory": "1Gi" }))]).check(Ok(&["r=p/a"]));
}

#[test]
fn drivers_are_told_what_concerns_what_was_chosen() {
    let config = |text: &str| json!({ "opaque": { "driver": "x.io", "parameters": { "text": text } } });
    let with = |text: &str, requests: &[&str]| {
        let mut config = config(text);
        config["requests"] = json!(requests);
        config
    };
    let one = |name: &str, class: &str, count: i64| json!({ "name": name, "deviceClassName": class, "count": count });
    let shop = Shop::new(&[slice("s", "p", &json!([{ "name": "a" }, { "name": "b" }, { "name": "c" }]))])
        .class("x", json!({ "config": [config("of x")] }))
        .class("y", json!({ "config": [config("of y")] }))
        .claim(&json!({
            "requests": [{ "name": "f", "firstAvailable": [one("many", "y", 9), one("one", "x", 1)] },
                exactly("r", &json!({ "deviceClassName": "x" })), exactly("q", &json!({}))],
            "config": [config("all"), with("many", &["f/many"]), with("one", &["f/one"]), with("f", &["f"]), with("r and q", &["r", "q"])],
        }));
    let found = shop.results().unwrap();
    let told: Vec<String> = found[0]
        .devices
        .as_ref()
        .unwrap()
        .config
        .iter()
        .flatten()
        .map(|c| {
            let text = &json!(c)["opaque"]["parameters"]["text"];
            format!("{} {} {:?}", c.source, text.as_str().unwrap(), c.requests.clone().unwrap_or_default())
        })
        .collect();
    assert_eq!(
        told,
        [
            "FromClass of x [\"f/one\", \"r\"]",
            "FromClaim all []",
            "FromClaim one [\"f/one\"]",
            "FromClaim f [\"f\"]",
            "FromClaim r and q [\"r\", \"q\"]",
        ]
    );
}
