//! Decides: the range that Services take their addresses from is there as the ServiceCIDR `kubernetes`, and each address
//! of a Service as an IPAddress.
//!
//! Upstream allocates by these objects. Here the registry allocates, by the Services themselves: the objects follow.
//! So nothing is taken from a ServiceCIDR that a user makes; it is ready if it is a part of the default one.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::owners;
use super::stores::{Stores, row};
use crate::client::request::{Class, Request, Verb};
use crate::client::store::Meta as _;
use crate::config::Cidr;

pub const SERVICE_CIDRS: &str = "networking.k8s.io/servicecidrs";
pub const ADDRESSES: &str = "networking.k8s.io/ipaddresses";
const DEFAULT: &str = "kubernetes";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Ready";
const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// So long after its deletion nobody can be taking an address from a range any more (`deletionGracePeriod`).
const GRACE: SignedDuration = SignedDuration::from_secs(10);

/// Keys are Services, and, without a namespace, ServiceCIDRs.
pub struct ServiceCidrs {
    range: Cidr,
}

impl ServiceCidrs {
    #[must_use]
    pub fn new(range: Cidr) -> Self {
        Self { range }
    }
}

impl Controller for ServiceCidrs {
    fn name(&self) -> &'static str {
        "service-cidr"
    }

    /// Addresses work without these objects.
    fn yields(&self) -> bool {
        true
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        enqueue.add("", DEFAULT);
        let queue = enqueue.clone();
        stores.service_cidrs.subscribe(move |change| {
            change.each().for_each(|cidr| queue.add("", cidr.metadata.name()));
            // Another may hold its addresses now.
            queue.add("", DEFAULT);
        });
        let queue = enqueue.clone();
        stores.services.subscribe(move |change| {
            let of = |service: Option<&Arc<Service>>| service.map(|s| addresses(s));
            if let Some(service) = change.each().next().filter(|_| of(change.old) != of(change.new)) {
                queue.add(service.metadata.namespace(), service.metadata.name());
            }
        });
        let queue = enqueue.clone();
        stores.addresses.subscribe(move |change| {
            for address in change.each() {
                let parent = &address.spec.parent_ref;
                if parent.resource == "services" {
                    queue.add(parent.namespace.as_deref().unwrap_or_default(), &parent.name);
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        if key.namespace.is_empty() {
            let all = stores.service_cidrs.all();
            return match all.iter().find(|c| c.metadata.name() == &*key.name) {
                Some(cidr) => self.settle(cidr, &all, moment),
                None if &*key.name == DEFAULT => self.make(),
                None => Plan::nothing(),
            };
        }
        let service = stores.services.get(&key.namespace, &key.name);
        let held = stores.addresses.find("", |a| {
            let parent = &a.spec.parent_ref;
            parent.resource == "services"
                && parent.name == *key.name
                && parent.namespace.as_deref() == Some(&key.namespace)
                && is_managed(a)
        });
        let wanted = service.as_deref().map(addresses).unwrap_or_default();
        plan_addresses(key, &wanted, &held, |name| stores.addresses.get("", name))
    }
}

/// Those that its cluster IPs are; in the form that they are written in.
fn addresses(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref().filter(|s| s.type_.as_deref() != Some("ExternalName"));
    spec.iter().flat_map(|s| s.cluster_ips.iter().flatten()).filter_map(|ip| ip.parse().ok()).collect()
}

fn is_managed(address: &IPAddress) -> bool {
    address.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY)).is_some_and(|by| by == ALLOCATOR)
}

fn plan_addresses(
    key: &Name,
    wanted: &[IpAddr],
    held: &[Arc<IPAddress>],
    find: impl Fn(&str) -> Option<Arc<IPAddress>>,
) -> Plan {
    let mut plan = Plan::default();
    let remove = |address: &IPAddress| {
        let meta = &address.metadata;
        Write::delete(Request::delete(row(ADDRESSES), "", meta.name(), meta.uid()))
    };
    let is_wanted = |a: &&Arc<IPAddress>| wanted.iter().any(|ip| ip.to_string() == a.metadata.name());
    for surplus in held.iter().filter(|a| !is_wanted(a) && !a.metadata.deleting()) {
        plan.push(remove(surplus));
    }
    for ip in wanted {
        let name = ip.to_string();
        if held.iter().any(|a| a.metadata.name() == name) {
            continue;
        }
        match find(&name) {
            // It was another Service's: that is over, for this one has the address now.
            Some(stale) if is_managed(&stale) && !stale.metadata.deleting() => {
                plan.push(remove(&stale));
                plan.push(make(key, *ip));
            }
            // A user's, who wants to keep others from it; or one that is going.
            Some(_) => {}
            None => plan.push(make(key, *ip)),
        }
    }
    plan
}

fn make(key: &Name, ip: IpAddr) -> Write {
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let body = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": { "name": ip.to_string(), "labels": { FAMILY: family, MANAGED_BY: ALLOCATOR } },
        "spec": { "parentRef": { "group": "", "resource": "services", "namespace": key.namespace, "name": key.name } },
    });
    let mut write = Write::new(Request::create(row(ADDRESSES), "", body));
    write.fine = &[Class::AlreadyExists];
    write
}

impl ServiceCidrs {
    fn make(&self) -> Plan {
        let mut plan = Plan::default();
        let body = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": DEFAULT },
            "spec": { "cidrs": [self.range.to_string()] },
        });
        let mut write = Write::new(Request::create(row(SERVICE_CIDRS), "", body));
        write.fine = &[Class::AlreadyExists];
        plan.push(write);
        plan
    }

    fn settle(&self, cidr: &ServiceCIDR, all: &[Arc<ServiceCIDR>], moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        let finalizers = cidr.metadata.finalizers.clone().unwrap_or_default();
        let held = finalizers.iter().any(|f| f == FINALIZER);
        let rest = || finalizers.iter().filter(|f| *f != FINALIZER);
        match &cidr.metadata.deletion_timestamp {
            Some(since) if held => {
                let other = |c: &&Arc<ServiceCIDR>| c.metadata.uid != cidr.metadata.uid && !c.metadata.deleting();
                let elsewhere = all.iter().filter(other).any(|c| holds(c, cidr));
                if self.is_default(cidr) && !elsewhere {
                    let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new \
                         ServiceCIDR";
                    report(cidr, "False", "Terminating", why, moment, &mut plan);
                    return plan;
                }
                let due = since.0.checked_add(GRACE).unwrap_or(since.0);
                match Duration::try_from(due.duration_since(moment.now)) {
                    Ok(left) if !left.is_zero() => plan.look_after(left),
                    _ => plan.push(write(cidr, &json!({ "finalizers": rest().collect::<Vec<_>>() }), &Value::Null)),
                }
            }
            Some(_) => {}
            // Only of this one addresses are in use.
            None if self.is_default(cidr) && !held => {
                let finalizers: Vec<&str> = rest().map(String::as_str).chain([FINALIZER]).collect();
                plan.push(write(cidr, &json!({ "finalizers": finalizers }), &Value::Null));
            }
            None => match parse(cidr).iter().all(|part| part.is_some_and(|p| contains(self.range, p))) {
                true => report(cidr, "True", "", "Kubernetes Service CIDR is ready", moment, &mut plan),
                false => {
                    let why = "Services take their addresses from the range that the server was started with";
                    report(cidr, "False", "NotServed", why, moment, &mut plan);
                }
            },
        }
        plan
    }

    fn is_default(&self, cidr: &ServiceCIDR) -> bool {
        cidr.metadata.name() == DEFAULT && parse(cidr).contains(&Some(self.range))
    }
}

/// Those of IPv6 are none that anything is taken from here.
fn parse(cidr: &ServiceCIDR) -> Vec<Option<Cidr>> {
    let parts = cidr.spec.as_ref().and_then(|s| s.cidrs.as_deref()).unwrap_or_default();
    parts.iter().map(|part| part.parse().ok()).collect()
}

/// Whether the addresses of one are all in the other.
fn holds(outer: &ServiceCIDR, inner: &ServiceCIDR) -> bool {
    let outer = parse(outer);
    let within = |part: Cidr| outer.iter().flatten().any(|o| contains(*o, part));
    parse(inner).into_iter().all(|part| part.is_some_and(within))
}

fn contains(outer: Cidr, inner: Cidr) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(outer.prefix)).unwrap_or(0);
    outer.prefix <= inner.prefix && u32::from(inner.address) & mask == u32::from(outer.address) & mask
}

fn report(cidr: &ServiceCIDR, status: &str, reason: &str, message: &str, moment: Moment<'_>, plan: &mut Plan) {
    let all: &[Condition] = cidr.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let before = all.iter().find(|c| c.type_ == READY);
    if before.is_some_and(|c| c.status == status && c.reason == reason) {
        return;
    }
    let since = before.filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
    let ready = json!({ "type": READY, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| owners::whole_second(moment.now)) });
    let others = all.iter().filter(|c| c.type_ != READY).map(|c| json!(c));
    let conditions: Vec<Value> = others.chain([ready]).collect();
    plan.push(write(cidr, &json!({}), &json!({ "conditions": conditions })));
}

/// Of just the state that was observed.
fn write(cidr: &ServiceCIDR, meta: &Value, status: &Value) -> Request {
    let mut body = json!({ "metadata": meta });
    body["metadata"]["uid"] = json!(cidr.metadata.uid);
    body["metadata"]["resourceVersion"] = json!(cidr.metadata.resource_version);
    let part = if status.is_null() { "" } else { "status" };
    if !status.is_null() {
        body["status"] = status.clone();
    }
    Request::new(Verb::MergePatch, row(SERVICE_CIDRS), "", cidr.metadata.name(), body).on(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::controllers::action::Action;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn show(plan: &Plan) -> Vec<String> {
        let one = |action: &Action| {
            let Action::Write(write) = action else { panic!("{action:?}") };
            let (request, body) = (&write.request, &write.request.body);
            match (request.verb, request.subresource) {
                (Verb::Create, _) => format!("create {}", body["metadata"]["name"].as_str().unwrap()),
                (Verb::Delete, _) => format!("delete {}", request.name),
                (_, "status") => {
                    let ready = body["status"]["conditions"].as_array().unwrap().last().unwrap();
                    format!("{} {}", ready["status"].as_str().unwrap(), ready["reason"].as_str().unwrap())
                }
                _ => format!("finalizers {}", body["metadata"]["finalizers"]),
            }
        };
        plan.actions.iter().map(one).collect()
    }

    fn cidr(name: &str, cidrs: &[&str], more: &Value) -> Value {
        let mut cidr = json!({ "metadata": { "name": name, "uid": name, "resourceVersion": "1" },
            "spec": { "cidrs": cidrs } });
        json_patch::merge(&mut cidr, more);
        cidr
    }

    fn plan(stores: &Stores, namespace: &str, name: &str, now: &str) -> Plan {
        let controller = ServiceCidrs::new("10.43.0.0/16".parse().unwrap());
        let moment = Moment { now: now.parse().unwrap(), failure: None };
        controller.plan(stores, &Name::new(namespace, name), moment)
    }

    #[test]
    fn the_default_range_is_there_and_stays() {
        let check = |cidrs: &[Value], name: &str, now: &str, want: &[&str]| {
            let stores = Stores::new();
            for cidr in cidrs {
                stores.service_cidrs.put(serde_json::from_value(cidr.clone()).unwrap());
            }
            let plan = plan(&stores, "", name, now);
            assert_eq!(show(&plan), want, "{cidrs:?}");
            plan.again
        };
        let range: &[&str] = &["10.43.0.0/16"];
        check(&[], DEFAULT, NOW, &["create kubernetes"]);
        check(&[], "other", NOW, &[]);
        check(&[cidr(DEFAULT, range, &json!({}))], DEFAULT, NOW, &[&format!("finalizers [\"{FINALIZER}\"]")]);
        let held = json!({ "metadata": { "finalizers": [FINALIZER] } });
        check(&[cidr(DEFAULT, range, &held)], DEFAULT, NOW, &["True "]);
        let mut ready = held.clone();
        ready["status"] = json!({ "conditions": [{ "type": READY, "status": "True", "reason": "", "message": "",
            "lastTransitionTime": NOW }] });
        check(&[cidr(DEFAULT, range, &ready)], DEFAULT, NOW, &[]);
        ready["metadata"]["deletionTimestamp"] = NOW.into();
        let going = cidr(DEFAULT, range, &ready);
        check(std::slice::from_ref(&going), DEFAULT, NOW, &["False Terminating"]);
        // Another holds its addresses: it may go when nobody can be taking one of them.
        let both = [going, cidr("larger", &["10.42.0.0/15"], &json!({}))];
        assert_eq!(check(&both, DEFAULT, NOW, &[]), Some(Duration::from_secs(10)));
        check(&both, DEFAULT, "2026-01-01T00:00:10Z", &["finalizers []"]);
        // A user's.
        check(&[cidr("part", &["10.43.1.0/24"], &json!({}))], "part", NOW, &["True "]);
        check(&[cidr("far", &["10.99.0.0/16"], &json!({}))], "far", NOW, &["False NotServed"]);
        check(&[cidr("six", &["fd00::/112"], &json!({}))], "six", NOW, &["False NotServed"]);
    }

    #[test]
    fn each_address_of_a_service_is_an_object() {
        let service = |ips: &[&str]| json!({ "metadata": { "name": "s", "namespace": "ns" }, "spec": { "clusterIPs": ips, "clusterIP": ips[0] } });
        let address = |name: &str, of: &str, managed_by: &str| {
            json!({ "metadata": { "name": name, "uid": name, "labels": { MANAGED_BY: managed_by } },
                "spec": { "parentRef": { "resource": "services", "namespace": "ns", "name": of } } })
        };
        let check = |service: Option<Value>, addresses: &[Value], want: &[&str]| {
            let stores = Stores::new();
            if let Some(service) = service {
                stores.services.put(serde_json::from_value(service).unwrap());
            }
            for address in addresses {
                stores.addresses.put(serde_json::from_value(address.clone()).unwrap());
            }
            assert_eq!(show(&plan(&stores, "ns", "s", NOW)), want, "{addresses:?}");
        };
        check(Some(service(&["10.43.0.9"])), &[], &["create 10.43.0.9"]);
        check(Some(service(&["None"])), &[], &[]);
        let held = [address("10.43.0.9", "s", ALLOCATOR)];
        check(Some(service(&["10.43.0.9"])), &held, &[]);
        check(Some(service(&["10.43.0.8"])), &held, &["delete 10.43.0.9", "create 10.43.0.8"]);
        check(None, &held, &["delete 10.43.0.9"]);
        check(None, &[address("10.43.0.9", "other", ALLOCATOR)], &[]);
        let stale = address("10.43.0.9", "other", ALLOCATOR);
        check(Some(service(&["10.43.0.9"])), &[stale], &["delete 10.43.0.9", "create 10.43.0.9"]);
        check(Some(service(&["10.43.0.9"])), &[address("10.43.0.9", "s", "me")], &[]);
    }
}
