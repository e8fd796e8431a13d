//! Decides: extended resources that devices stand for (KEP-5004): what the containers of a pod ask for of them, and the
//! claim that asks for devices instead.
//!
//! ```text
//! container asks for example.com/gpu: 2 ─▶ a class has that name, the node does not offer it
//!     ─▶ claim with a request container-0-request-0 for two devices of the class ─▶ made when the pod is placed
//! ```

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerExtendedResourceRequest, PodSpec};
use k8s_openapi::api::resource::v1::{
    DeviceClaim, DeviceRequest, ExactDeviceRequest, ResourceClaim, ResourceClaimSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::api::extended_resource::CLAIM_ANNOTATION;
use crate::api::quantity::Quantity;
use crate::server::scheduler::pod::PodInfo;

/// Until it is made; no claim can have it.
const UNMADE: &str = "<extended-resources>";

/// What one container asks for that is neither CPU, memory nor storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asks {
    container: String,
    /// Among the init containers and the containers after them.
    index: usize,
    /// It ends before the containers begin: what they will have it may have before.
    brief: bool,
    /// By resource: its place among all that the container asks for, in order of their names, and how many.
    resources: BTreeMap<String, (usize, i64)>,
}

impl Asks {
    pub fn resources(&self) -> impl Iterator<Item = &str> {
        self.resources.keys().map(String::as_str)
    }
}

/// Of the containers that ask for something.
#[must_use]
pub fn asks(spec: &PodSpec) -> Vec<Asks> {
    let init = spec.init_containers.iter().flatten();
    let all = init.map(|c| (c, c.restart_policy.as_deref() != Some("Always")));
    let all = all.chain(spec.containers.iter().map(|c| (c, false))).enumerate();
    let asks = all.map(|(index, (container, brief))| Asks {
        container: container.name.clone(),
        index,
        brief,
        resources: resources(container),
    });
    asks.filter(|asks| !asks.resources.is_empty()).collect()
}

fn resources(container: &Container) -> BTreeMap<String, (usize, i64)> {
    let requests = container.resources.iter().flat_map(|r| r.requests.iter().flatten()).enumerate();
    let whole = requests.filter_map(|(place, (name, text))| {
        let quantity = Quantity::parse(&text.0).ok().filter(|q| q.milli() > 0 && q.milli() % 1000 == 0)?;
        name.contains('/').then(|| (name.clone(), (place, quantity.value())))
    });
    whole.collect()
}

/// What is to be made before the pod can be bound, and which of its requests are for which container.
#[derive(Clone, Debug, PartialEq)]
pub struct Unmade {
    pub claim: ResourceClaim,
    pub mappings: Vec<ContainerExtendedResourceRequest>,
}

impl Unmade {
    /// `classes`: by the resources that are left to devices.
    #[must_use]
    pub fn new(pod: &PodInfo, asks: &[Asks], classes: &BTreeMap<&str, &str>) -> Self {
        let (requests, mappings) = requests(asks, classes);
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let metadata = ObjectMeta {
            name: Some(UNMADE.to_owned()),
            // One pod may be tried often; each time something else is promised.
            uid: Some(uuid::Uuid::new_v4().to_string()),
            namespace: Some(pod.namespace().to_owned()),
            generate_name: Some(format!("{}-extended-resources-", pod.name)),
            annotations: Some(BTreeMap::from([(CLAIM_ANNOTATION.to_owned(), "true".to_owned())])),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        let devices = DeviceClaim { requests: Some(requests), ..DeviceClaim::default() };
        let spec = ResourceClaimSpec { devices: Some(devices) };
        Self { claim: ResourceClaim { metadata, spec, status: None }, mappings }
    }
}

type Requests = (Vec<DeviceRequest>, Vec<ContainerExtendedResourceRequest>);

fn requests(asks: &[Asks], classes: &BTreeMap<&str, &str>) -> Requests {
    let (mut requests, mut mappings): Requests = Default::default();
    for (resource, class) in classes {
        let of = |brief: bool| {
            let each = asks.iter().filter(move |a| a.brief == brief);
            each.filter_map(|a| a.resources.get(*resource).map(|(place, count)| (a, *place, *count)))
        };
        let name = |a: &Asks, place: usize| format!("container-{}-request-{place}", a.index);
        let mapping = |a: &Asks, request: &str| ContainerExtendedResourceRequest {
            container_name: a.container.clone(),
            resource_name: (*resource).to_owned(),
            request_name: request.to_owned(),
        };
        let mut kept = Vec::new();
        for (a, place, count) in of(false) {
            mappings.push(mapping(a, &name(a, place)));
            kept.push((a.index, name(a, place), count));
        }
        // One after the other, so that the one that needs most beside what is kept has enough for all.
        let mut most: Option<(String, i64)> = None;
        let (mut brief, mut own) = (Vec::new(), Vec::new());
        for (a, place, count) in of(true) {
            let mut left = count;
            for (_, request, has) in kept.iter().filter(|(index, ..)| *index > a.index) {
                if left <= 0 {
                    break;
                }
                brief.push(mapping(a, request));
                left -= has;
            }
            if left > 0 {
                own.push(brief.len());
                brief.push(mapping(a, &name(a, place)));
                if most.as_ref().is_none_or(|(_, so_far)| left > *so_far) {
                    most = Some((name(a, place), left));
                }
            }
        }
        if let Some((most, _)) = &most {
            own.into_iter().for_each(|at| brief[at].request_name.clone_from(most));
        }
        mappings.extend(brief);
        let all = most.into_iter().chain(kept.into_iter().map(|(_, name, count)| (name, count)));
        requests.extend(all.map(|(name, count)| request(name, class, count)));
    }
    requests.sort_by(|a, b| a.name.cmp(&b.name));
    (requests, mappings)
}

fn request(name: String, class: &str, count: i64) -> DeviceRequest {
    let exactly = ExactDeviceRequest {
        device_class_name: class.to_owned(),
        allocation_mode: Some("ExactCount".to_owned()),
        count: Some(count),
        ..ExactDeviceRequest::default()
    };
    DeviceRequest { name, exactly: Some(exactly), first_available: None }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const GPU: &str = "example.com/gpu";

    /// What a pod with these containers gets: requests with their counts, and the request of each container.
    fn check(spec: &Value, expect: (&[&str], &[&str])) {
        let spec: PodSpec = serde_json::from_value(spec.clone()).unwrap();
        let classes = BTreeMap::from([(GPU, "gpu"), ("example.com/nic", "nic")]);
        let (requests, mappings) = requests(&asks(&spec), &classes);
        let requests = requests.iter().map(|r| {
            let exactly = r.exactly.as_ref().unwrap();
            format!("{} {} {}", r.name, exactly.device_class_name, exactly.count.unwrap())
        });
        let mappings = mappings.iter().map(|m| {
            let resource = m.resource_name.rsplit('/').next().unwrap();
            format!("{} {resource} {}", m.container_name, m.request_name)
        });
        let (requests, mappings): (Vec<String>, Vec<String>) = (requests.collect(), mappings.collect());
        assert_eq!(
            (requests, mappings),
            (expect.0.iter().map(ToString::to_string).collect(), expect.1.iter().map(ToString::to_string).collect()),
            "{spec:?}"
        );
    }

    fn container(name: &str, requests: &Value) -> Value {
        json!({ "name": name, "resources": { "requests": requests } })
    }

    fn sidecar(name: &str, requests: &Value) -> Value {
        json!({ "name": name, "restartPolicy": "Always", "resources": { "requests": requests } })
    }

    fn gpus(n: i64) -> Value {
        json!({ "cpu": "1", GPU: n.to_string() })
    }

    #[test]
    fn each_container_has_requests_of_its_own() {
        let both = json!({ "cpu": "1", "example.com/nic": "1", GPU: "2", "memory": "1Mi" });
        let pod = json!({ "containers": [container("a", &both), container("b", &json!({ "cpu": "1" })), container("c", &gpus(1))] });
        let requests = ["container-0-request-1 gpu 2", "container-0-request-2 nic 1", "container-2-request-1 gpu 1"];
        let mappings = ["a gpu container-0-request-1", "c gpu container-2-request-1", "a nic container-0-request-2"];
        check(&pod, (&requests, &mappings));
        let odd =
            json!({ "containers": [container("a", &json!({ GPU: "0" })), container("b", &json!({ GPU: "500m" }))] });
        check(&odd, (&[], &[]));
        check(&json!({ "containers": [{ "name": "a" }] }), (&[], &[]));
    }

    #[test]
    fn init_containers_use_what_others_will_have() {
        let pod = |init: Value, n: i64| json!({ "initContainers": init, "containers": [container("c", &gpus(n))] });
        let same = pod(json!([container("i", &gpus(1))]), 1);
        check(
            &same,
            (&["container-1-request-1 gpu 1"], &["c gpu container-1-request-1", "i gpu container-1-request-1"]),
        );
        // More than there will be: the rest is asked for once, for the one that needs most.
        let more = pod(json!([container("i", &gpus(2)), container("j", &gpus(4))]), 1);
        check(
            &more,
            (
                &["container-1-request-1 gpu 3", "container-2-request-1 gpu 1"],
                &[
                    "c gpu container-2-request-1",
                    "i gpu container-2-request-1",
                    "i gpu container-1-request-1",
                    "j gpu container-2-request-1",
                    "j gpu container-1-request-1",
                ],
            ),
        );
        // A sidecar that is there already has its devices for itself.
        let before = pod(json!([sidecar("s", &gpus(1)), container("i", &gpus(1)), sidecar("t", &gpus(2))]), 0);
        check(
            &before,
            (
                &["container-0-request-1 gpu 1", "container-2-request-1 gpu 2"],
                &["s gpu container-0-request-1", "t gpu container-2-request-1", "i gpu container-2-request-1"],
            ),
        );
    }
}
