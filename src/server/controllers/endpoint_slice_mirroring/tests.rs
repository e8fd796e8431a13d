//! Golden plans of mirrored EndpointSlices.

use super::*;

fn endpoints(subsets: &Value) -> Value {
    json!({
        "metadata": { "name": "s", "namespace": "ns", "uid": "s", "labels": { "a": "b" },
            "annotations": { "c": "d", "kubectl.kubernetes.io/last-applied-configuration": "{}" } },
        "subsets": subsets,
    })
}

fn subset(ready: &[&str], unready: &[&str], ports: &[i32]) -> Value {
    let addresses = |ips: &[&str]| ips.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>();
    let ports: Vec<Value> = ports.iter().map(|port| json!({ "port": port, "protocol": "TCP" })).collect();
    json!({ "addresses": addresses(ready), "notReadyAddresses": addresses(unready), "ports": ports })
}

/// `create IPv4 80,81 10.0.0.1 !10.0.0.2` and the like; writes show in `slices` as the store would show them.
fn carry_out(plan: &Plan, slices: &mut Vec<Arc<EndpointSlice>>) -> Vec<String> {
    let mut shown = Vec::new();
    for action in &plan.actions {
        let request = match action {
            Action::Write(write) => &write.request,
            Action::Event(note) => {
                shown.push(format!("{} {}", note.reason, note.message));
                continue;
            }
            other => panic!("{other:?}"),
        };
        if request.verb == Verb::Delete {
            slices.retain(|s| s.metadata.name() != request.name);
            shown.push(format!("delete {}", request.name));
            continue;
        }
        let mut slice: EndpointSlice = serde_json::from_value(request.body.clone()).unwrap();
        let ports: Vec<String> = slice.ports.iter().flatten().map(|p| p.port.unwrap().to_string()).collect();
        let address = |e: &Endpoint| {
            let ready = e.conditions.as_ref().and_then(|c| c.ready).unwrap();
            format!("{}{}", if ready { "" } else { "!" }, e.addresses[0])
        };
        let addresses: Vec<String> = slice.endpoints.iter().flatten().map(address).collect();
        let what = format!("{} {} {}", slice.address_type, ports.join(","), addresses.join(" "));
        if request.verb == Verb::Create {
            shown.push(format!("create {what}"));
            slice.metadata.name = Some(format!("s-{}", slices.len()));
            slices.push(Arc::new(slice));
        } else {
            shown.push(format!("update {} {what}", request.name));
            let at = slices.iter().position(|s| s.metadata.name() == request.name).unwrap();
            slices[at] = Arc::new(slice);
        }
    }
    shown
}

fn check(subsets: &Value, slices: &mut Vec<Arc<EndpointSlice>>, want: &[&str]) {
    let endpoints: Endpoints = serde_json::from_value(endpoints(subsets)).unwrap();
    assert_eq!(carry_out(&plan(&endpoints, slices), slices), want, "{subsets}");
    assert_eq!(plan(&endpoints, slices), Plan::nothing(), "{subsets}");
}

#[test]
fn slices_say_what_the_endpoints_say() {
    let mut slices = Vec::new();
    let one = subset(&["10.0.0.1"], &["10.0.0.2"], &[80]);
    check(&json!([one]), &mut slices, &["create IPv4 80 10.0.0.1 !10.0.0.2"]);
    let meta = &slices[0].metadata;
    let labels: Vec<_> = meta.labels.as_ref().unwrap().iter().map(|(k, v)| format!("{k}={v}")).collect();
    let want = [
        "a=b",
        "endpointslice.kubernetes.io/managed-by=endpointslicemirroring-controller.k8s.io",
        "kubernetes.io/service-name=s",
    ];
    assert_eq!(labels, want);
    assert_eq!(meta.annotations, Some([("c".to_owned(), "d".to_owned())].into()));
    assert_eq!(meta.owner_references.as_ref().unwrap()[0].kind, "Endpoints");
    // Its slice stays; so does that of another family.
    check(
        &json!([subset(&["10.0.0.2", "fd00::1"], &[], &[80])]),
        &mut slices,
        &["create IPv6 80 fd00::1", "update s-0 IPv4 80 10.0.0.2"],
    );
    // What is no longer needed becomes what is.
    check(&json!([subset(&["10.0.0.2"], &[], &[81])]), &mut slices, &["update s-0 IPv4 81 10.0.0.2", "delete s-1"]);
    check(&json!([]), &mut slices, &["delete s-0"]);
    assert!(slices.is_empty());
}

#[test]
fn ports_that_lead_to_the_same_addresses_share_a_slice() {
    let (a, b) = (subset(&["10.0.0.1"], &[], &[80]), subset(&["10.0.0.1"], &[], &[81]));
    check(&json!([a, b]), &mut Vec::new(), &["create IPv4 80,81 10.0.0.1"]);
    check(
        &json!([a, subset(&["10.0.0.2"], &[], &[81])]),
        &mut Vec::new(),
        &["create IPv4 80 10.0.0.1", "create IPv4 81 10.0.0.2"],
    );
    check(&json!([a, subset(&[], &["10.0.0.1"], &[80])]), &mut Vec::new(), &["create IPv4 80 !10.0.0.1"]);
    check(&json!([subset(&["10.0.0.1"], &[], &[])]), &mut Vec::new(), &["create IPv4  10.0.0.1"]);
}

#[test]
fn what_is_left_out_is_told() {
    let many: Vec<String> = (0..1002).map(|i| format!("10.1.{}.{}", i / 250, i % 250)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let subsets = json!([subset(&many, &["10.0.0.1"], &[80]), subset(&["10.0.0.x", "10.0.0.2"], &[], &[81])]);
    let object: Endpoints = serde_json::from_value(endpoints(&subsets)).unwrap();
    let mut slices = Vec::new();
    let shown = carry_out(&plan(&object, &slices), &mut slices);
    let mut counts: Vec<usize> = slices.iter().map(|s| s.endpoints.as_ref().unwrap().len()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [1, 1000]);
    let want = [
        "InvalidIPAddress Skipped 1 invalid IP addresses when mirroring to EndpointSlices",
        "TooManyAddressesToMirror A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 4 \
         addresses were skipped",
    ];
    assert_eq!(shown[2..], want);
    assert_eq!(plan(&object, &slices), Plan::nothing(), "it is told once");
}

#[test]
fn only_endpoints_written_by_hand_are_mirrored() {
    let check = |service: Option<Value>, more: &Value, mirrored: bool| {
        let stores = Stores::new();
        let mut object = endpoints(&json!([subset(&["10.0.0.1"], &[], &[80])]));
        json_patch::merge(&mut object, more);
        stores.endpoints.put(serde_json::from_value(object).unwrap());
        let spec = service.clone();
        if let Some(spec) = spec {
            let service = json!({ "metadata": { "name": "s", "namespace": "ns" }, "spec": spec });
            stores.services.put(serde_json::from_value(service).unwrap());
        }
        let labels = json!({ MANAGED_BY: MANAGER, SERVICE_NAME: "s" });
        let slice = json!({ "metadata": { "name": "x", "namespace": "ns", "uid": "x", "labels": labels },
            "addressType": "IPv4", "endpoints": [], "ports": [] });
        stores.slices.put(serde_json::from_value(slice).unwrap());
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, failure: None };
        let plan = EndpointSliceMirroring.plan(&stores, &Name::new("ns", "s"), moment);
        let [Action::Write(write)] = &plan.actions[..] else { panic!("{plan:?}") };
        assert_eq!(write.request.verb == Verb::Update, mirrored, "{service:?} {more}");
        assert_eq!(write.request.verb == Verb::Delete, !mirrored, "{service:?} {more}");
    };
    let (plain, none) = (Some(json!({})), json!({}));
    check(plain.clone(), &none, true);
    check(None, &none, false);
    check(Some(json!({ "selector": { "app": "a" } })), &none, false);
    check(plain.clone(), &json!({ "metadata": { "labels": { SKIP: "true" } } }), false);
    check(plain.clone(), &json!({ "metadata": { "labels": { SKIP: "false" } } }), true);
    check(plain, &json!({ "metadata": { "annotations": { LEADER: "me" } } }), false);
}
