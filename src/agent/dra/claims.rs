//! Decides: which claims a pod has, whether it may use them, and what of them each container gets
//! (`k8s.io/dynamic-resource-allocation/resourceclaim`). Messages are upstream's: events show them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Pod, PodExtendedResourceClaimStatus, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde::{Deserialize, Serialize};

use super::protocol::{self, Device};
use crate::agent::pod::{name, namespace, pod_spec, uid};

/// A claim that pods of this node use, from before its drivers are asked to prepare it until they have undone that.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prepared {
    pub namespace: String,
    pub name: String,
    /// Of the pods.
    pub pods: BTreeSet<String>,
    /// By driver.
    pub devices: BTreeMap<String, Vec<Device>>,
    /// All drivers have done it.
    pub complete: bool,
}

/// What is kept on disk: claims by their uid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    pub claims: BTreeMap<String, Prepared>,
}

/// The name of the object behind a claim of the pod, and whether it was made for the pod alone. `None` for a template
/// that turned out to need no claim.
///
/// # Errors
/// When it does not exist yet.
pub fn object(pod: &Pod, claim: &PodResourceClaim) -> Result<Option<(String, bool)>, String> {
    if let Some(name) = &claim.resource_claim_name {
        return Ok(Some((name.clone(), false)));
    }
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref()).unwrap_or_default();
    match statuses.iter().find(|status| status.name == claim.name) {
        Some(status) => Ok(status.resource_claim_name.clone().map(|name| (name, true))),
        None => Err(format!("pod \"{}/{}\": ResourceClaim not created yet", namespace(pod), name(pod))),
    }
}

/// The names of all objects behind the claims of the pod, and whether each was made for its template. The scheduler makes
/// one more for extended resources that devices stand for.
///
/// # Errors
/// When one does not exist yet.
pub fn objects(pod: &Pod) -> Result<Vec<(String, bool)>, String> {
    let named = pod_spec(pod).resource_claims.iter().flatten().map(|claim| object(pod, claim));
    let mut all = named.filter_map(Result::transpose).collect::<Result<Vec<_>, String>>()?;
    all.extend(extended(pod).map(|status| (status.resource_claim_name.clone(), false)));
    Ok(all)
}

fn extended(pod: &Pod) -> Option<&PodExtendedResourceClaimStatus> {
    pod.status.as_ref()?.extended_resource_claim_status.as_ref()
}

/// The requests of the claim for extended resources that are for the container.
fn requests<'a>(pod: &'a Pod, container: &'a Container) -> impl Iterator<Item = (&'a str, &'a str)> {
    let status = extended(pod).into_iter();
    let all = status.flat_map(|status| status.request_mappings.iter().map(|m| (m, &status.resource_claim_name)));
    let of = all.filter(|(mapping, _)| mapping.container_name == container.name);
    of.map(|(mapping, claim)| (claim.as_str(), mapping.request_name.as_str()))
}

/// Whether the container gets devices of a claim for the extended resource, and no plugin is to be asked for them.
#[must_use]
pub fn stand_for(pod: &Pod, container: &Container, resource: &str) -> bool {
    let mappings = extended(pod).into_iter().flat_map(|status| &status.request_mappings);
    mappings.into_iter().any(|m| m.container_name == container.name && m.resource_name == resource)
}

/// The drivers of a claim that the pod may use.
///
/// # Errors
/// Why it may not.
pub fn drivers(pod: &Pod, claim: &ResourceClaim, own: bool) -> Result<BTreeSet<String>, String> {
    let metadata = &claim.metadata;
    let (id, claimed) = (metadata.uid.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default());
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    if own && !owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == uid(pod)) {
        let place = namespace(pod);
        return Err(format!(
            "ResourceClaim {place}/{claimed} was not created for pod {place}/{} (pod is not owner)",
            name(pod)
        ));
    }
    let status = claim.status.as_ref();
    let reserved = status.and_then(|status| status.reserved_for.as_deref()).unwrap_or_default();
    if !reserved.iter().any(|user| user.uid == uid(pod)) {
        let (pod, pod_uid) = (name(pod), uid(pod));
        return Err(format!("pod {pod} ({pod_uid}) is not allowed to use ResourceClaim {claimed} ({id})"));
    }
    let Some(allocation) = status.and_then(|status| status.allocation.as_ref()) else {
        return Err(format!("ResourceClaim {claimed}: not allocated"));
    };
    let results = allocation.devices.as_ref().and_then(|devices| devices.results.as_deref()).unwrap_or_default();
    Ok(results.iter().map(|result| result.driver.clone()).collect())
}

impl Record {
    /// Notes that the pod is about to use the claim. Tells whether its drivers are still to be asked.
    ///
    /// # Errors
    /// When an older claim of the name is not undone yet.
    pub fn reserve(&mut self, pod: &Pod, claim: &ResourceClaim, drivers: &BTreeSet<String>) -> Result<bool, String> {
        let id = claim.metadata.uid.clone().unwrap_or_default();
        let claimed = claim.metadata.name.clone().unwrap_or_default();
        let older = self
            .claims
            .iter()
            .find(|(other, of)| **other != id && of.name == claimed && of.namespace == namespace(pod));
        if let Some((other, _)) = older {
            return Err(format!(
                "old ResourceClaim with same name {claimed} and different UID {other} still exists (previous pod \
                 force-deleted?!)"
            ));
        }
        let entry = self.claims.entry(id).or_insert_with(|| Prepared {
            namespace: namespace(pod).to_owned(),
            name: claimed,
            devices: drivers.iter().map(|driver| (driver.clone(), Vec::new())).collect(),
            ..Prepared::default()
        });
        entry.pods.insert(uid(pod).to_owned());
        Ok(!entry.complete)
    }

    /// The CDI names of a container's devices.
    ///
    /// # Errors
    /// When a claim of the container is not prepared.
    pub fn cdi_devices(&self, pod: &Pod, container: &Container) -> Result<Vec<String>, String> {
        let wanted = container.resources.as_ref().and_then(|r| r.claims.as_deref()).unwrap_or_default();
        let mut found = Vec::new();
        let mut used = Vec::new();
        for wanted in wanted {
            let claims = pod_spec(pod).resource_claims.iter().flatten();
            let Some(claim) = claims.into_iter().find(|claim| claim.name == wanted.name) else { continue };
            let Some((object, _)) = object(pod, claim)? else { continue };
            used.push((object, wanted.request.as_deref().unwrap_or_default()));
        }
        used.extend(requests(pod, container).map(|(object, request)| (object.to_owned(), request)));
        for (object, request) in used {
            let prepared = self.of(pod, &object);
            let prepared = prepared.ok_or_else(|| format!("unable to get information for ResourceClaim {object}"))?;
            let devices = prepared.devices.values().flatten().filter(|device| serves(device, request));
            for id in devices.flat_map(|device| &device.cdi_device_ids) {
                if !found.contains(id) {
                    found.push(id.clone());
                }
            }
        }
        Ok(found)
    }

    /// The claims that a container uses, as far as they are known here.
    #[must_use]
    pub fn of_container(&self, pod: &Pod, container: &Container) -> Vec<Prepared> {
        let wanted = container.resources.as_ref().and_then(|r| r.claims.as_deref()).unwrap_or_default();
        let claims = pod_spec(pod).resource_claims.iter().flatten();
        let claims = claims.filter(|claim| wanted.iter().any(|wanted| wanted.name == claim.name));
        let mut objects: Vec<String> =
            claims.filter_map(|claim| object(pod, claim).ok().flatten()).map(|(object, _)| object).collect();
        objects.extend(requests(pod, container).next().map(|(object, _)| object.to_owned()));
        objects.iter().filter_map(|object| self.of(pod, object)).cloned().collect()
    }

    fn of(&self, pod: &Pod, object: &str) -> Option<&Prepared> {
        self.claims.values().find(|of| of.name == object && of.namespace == namespace(pod))
    }

    /// The claims that only this pod uses, and that are to be undone before it is over.
    #[must_use]
    pub fn last_of(&self, pod_uid: &str) -> Vec<(String, Prepared)> {
        let only = |of: &Prepared| of.pods.len() == 1 && of.pods.contains(pod_uid);
        self.claims.iter().filter(|(_, of)| only(of)).map(|(id, of)| (id.clone(), of.clone())).collect()
    }
}

/// Whether the device is one of those that the request asked for; an empty request is all of them.
fn serves(device: &Device, request: &str) -> bool {
    // `request/alternative` is what a request with alternatives got.
    let is_of = |name: &String| name == request || name.split_once('/').is_some_and(|(first, _)| first == request);
    request.is_empty() || device.request_names.is_empty() || device.request_names.iter().any(is_of)
}

/// Claims by the driver that is to be called for them.
#[must_use]
pub fn batches<'a>(
    claims: impl IntoIterator<Item = (&'a str, &'a Prepared)>,
) -> BTreeMap<String, Vec<protocol::Claim>> {
    let mut batches: BTreeMap<String, Vec<protocol::Claim>> = BTreeMap::new();
    for (id, of) in claims {
        for driver in of.devices.keys() {
            let claim = protocol::Claim { namespace: of.namespace.clone(), uid: id.to_owned(), name: of.name.clone() };
            batches.entry(driver.clone()).or_default().push(claim);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u1"},
            "spec": {
                "resourceClaims": [
                    {"name": "given", "resourceClaimName": "one"},
                    {"name": "made", "resourceClaimTemplateName": "t"},
                    {"name": "none", "resourceClaimTemplateName": "t"},
                    {"name": "late", "resourceClaimTemplateName": "t"},
                ],
                "containers": [{"name": "c", "resources": {"claims": [{"name": "given", "request": "r"}]}}],
            },
            "status": {"resourceClaimStatuses": [{"name": "made", "resourceClaimName": "p-made"}, {"name": "none"}]},
        }))
        .expect("a pod")
    }

    #[test]
    fn objects_of_claims() {
        let pod = pod();
        let claims = pod_spec(&pod).resource_claims.as_deref().expect("claims");
        let found: Vec<_> = claims.iter().map(|claim| object(&pod, claim)).collect();
        let expected = [
            Ok(Some(("one".to_owned(), false))),
            Ok(Some(("p-made".to_owned(), true))),
            Ok(None),
            Err("pod \"ns/p\": ResourceClaim not created yet".to_owned()),
        ];
        assert_eq!(found, expected);
    }

    fn claim(status: Value) -> ResourceClaim {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "other", "controller": true});
        let metadata = json!({"name": "one", "namespace": "ns", "uid": "c1", "ownerReferences": [owner]});
        serde_json::from_value(json!({"metadata": metadata, "spec": {}, "status": status})).expect("a claim")
    }

    fn allocated() -> ResourceClaim {
        let result = json!({"driver": "a.example", "pool": "n", "device": "d", "request": "r"});
        let user = json!({"resource": "pods", "name": "p", "uid": "u1"});
        claim(json!({"reservedFor": [user], "allocation": {"devices": {"results": [result]}}}))
    }

    #[test]
    fn who_may_use_a_claim() {
        let user = json!({"resource": "pods", "name": "p", "uid": "u1"});
        for (claim, own, expect) in [
            (allocated(), false, Ok(BTreeSet::from(["a.example".to_owned()]))),
            (allocated(), true, Err("ResourceClaim ns/one was not created for pod ns/p (pod is not owner)".to_owned())),
            (claim(json!({})), false, Err("pod p (u1) is not allowed to use ResourceClaim one (c1)".to_owned())),
            (claim(json!({"reservedFor": [user]})), false, Err("ResourceClaim one: not allocated".to_owned())),
        ] {
            assert_eq!(drivers(&pod(), &claim, own), expect);
        }
    }

    #[test]
    fn what_containers_get() {
        let (pod, claim) = (pod(), allocated());
        let container = &pod_spec(&pod).containers[0];
        let mut record = Record::default();
        let missing = Err("unable to get information for ResourceClaim one".to_owned());
        assert_eq!(record.cdi_devices(&pod, container), missing);
        assert_eq!(record.reserve(&pod, &claim, &["a.example".to_owned()].into()), Ok(true));
        let device = |requests: &[&str], id: &str| Device {
            request_names: requests.iter().map(|name| (*name).to_owned()).collect(),
            cdi_device_ids: vec![id.to_owned()],
            ..Device::default()
        };
        let prepared = record.claims.get_mut("c1").expect("reserved");
        let devices =
            vec![device(&["r"], "v/c=1"), device(&["x"], "v/c=2"), device(&[], "v/c=3"), device(&["r/a"], "v/c=4")];
        prepared.devices.insert("a.example".into(), devices);
        prepared.complete = true;
        assert_eq!(record.reserve(&pod, &claim, &BTreeSet::new()), Ok(false));
        assert_eq!(record.cdi_devices(&pod, container).expect("prepared"), ["v/c=1", "v/c=3", "v/c=4"]);
        assert_eq!(record.last_of("u1").len(), 1);
        record.claims.get_mut("c1").expect("reserved").pods.insert("u2".into());
        assert_eq!(record.last_of("u1").len(), 0, "another pod uses it");
        let mut another = allocated();
        another.metadata.uid = Some("c2".into());
        let refused = record.reserve(&pod, &another, &BTreeSet::new()).expect_err("the first is still there");
        assert!(refused.starts_with("old ResourceClaim with same name one and different UID c1"), "{refused}");
    }

    #[test]
    fn containers_get_what_their_extended_resources_are_mapped_to() {
        let mapping = |container: &str, request: &str| json!({"containerName": container, "resourceName": "example.com/gpu", "requestName": request});
        let mappings =
            [mapping("c", "container-0-request-0"), mapping("i", "container-0-request-0"), mapping("i", "b")];
        let mut pod = pod();
        let containers = json!([{"name": "c"}, {"name": "i"}, {"name": "d"}]);
        pod.spec = serde_json::from_value(json!({"containers": containers})).expect("a spec");
        let status = json!({"extendedResourceClaimStatus": {"resourceClaimName": "one", "requestMappings": mappings}});
        pod.status = serde_json::from_value(status).expect("a status");
        assert_eq!(objects(&pod), Ok(vec![("one".to_owned(), false)]));
        let mut record = Record::default();
        let container = |i: usize| &pod_spec(&pod).containers[i];
        assert!(record.cdi_devices(&pod, container(0)).is_err(), "not prepared");
        record.reserve(&pod, &allocated(), &["a.example".to_owned()].into()).expect("reserved");
        let device = |request: &str, id: &str| Device {
            request_names: vec![request.to_owned()],
            cdi_device_ids: vec![id.to_owned()],
            ..Device::default()
        };
        let devices = vec![device("container-0-request-0", "v/c=1"), device("b", "v/c=2")];
        record.claims.get_mut("c1").expect("reserved").devices.insert("a.example".into(), devices);
        let of = |i: usize| record.cdi_devices(&pod, container(i)).expect("prepared");
        assert_eq!((of(0), of(1), of(2)), (vec!["v/c=1".into()], vec!["v/c=1".into(), "v/c=2".into()], vec![]));
        let used = [0, 1, 2].map(|i| record.of_container(&pod, container(i)).len());
        assert_eq!(used, [1, 1, 0]);
        let stands = |i: usize, resource: &str| stand_for(&pod, container(i), resource);
        assert_eq!(
            [stands(0, "example.com/gpu"), stands(0, "example.com/nic"), stands(2, "example.com/gpu")],
            [true, false, false]
        );
    }
}
