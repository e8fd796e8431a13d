//! Decides: what the status of a pod may say of claims that were made for it (`validatePodResourceClaimStatuses`,
//! `validatePodExtendedResourceClaimStatus`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{PodExtendedResourceClaimStatus, PodSpec, PodStatus};

use crate::api::field::{FieldError, Path};
use crate::server::registry::format;
use crate::server::registry::metadata::{Errors, invalid};

/// `path`: of the status.
pub fn check(errors: &mut Errors, path: &Path, status: &PodStatus, spec: &PodSpec) {
    let mut names = BTreeSet::new();
    for (i, one) in status.resource_claim_statuses.iter().flatten().enumerate() {
        let at = path.child("resourceClaimStatuses").index(i).child("name");
        if !spec.resource_claims.iter().flatten().any(|claim| claim.name == one.name) {
            let message = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(&at, &one.name, message));
        }
        if !names.insert(&one.name) {
            errors.push(FieldError::duplicate(&at, &one.name));
        }
        if let Some(name) = &one.resource_claim_name {
            invalid(errors, &at, name, format::dns_subdomain(name));
        }
    }
    if let Some(extended) = &status.extended_resource_claim_status {
        of_extended(errors, &path.child("extendedResourceClaimStatus"), extended, spec);
    }
}

fn of_extended(errors: &mut Errors, path: &Path, status: &PodExtendedResourceClaimStatus, spec: &PodSpec) {
    let name = &status.resource_claim_name;
    invalid(errors, &path.child("resourceClaimName"), name, format::dns_subdomain(name));
    let at = path.child("requestMappings");
    if status.request_mappings.is_empty() {
        errors.push(FieldError::required(&at, ""));
    }
    let mut seen = BTreeSet::new();
    for (i, mapping) in status.request_mappings.iter().enumerate() {
        let at = at.index(i);
        let (container, resource, request) = (&mapping.container_name, &mapping.resource_name, &mapping.request_name);
        let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
        match all.find(|c| c.name == *container) {
            None => {
                let message = "must match the name of an entry in `spec.initContainers` or `spec.containers`";
                errors.push(FieldError::invalid(&at.child("containerName"), container, message));
            }
            Some(container) => {
                let mut requests = container.resources.iter().flat_map(|r| r.requests.iter().flatten());
                if !requests.any(|(name, _)| name == resource) {
                    let message = "must match the name of a resource that the container requests";
                    errors.push(FieldError::invalid(&at.child("resourceName"), resource, message));
                }
            }
        }
        invalid(errors, &at.child("requestName"), request, format::dns_label(request));
        if !seen.insert((container, resource, request)) {
            errors.push(FieldError::duplicate(&at, request));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(status: Value, expect: &[&str]) {
        let container = json!({ "name": "c", "resources": { "requests": { "example.com/gpu": "1" } } });
        let spec = json!({ "containers": [container], "resourceClaims": [{ "name": "a" }] });
        let mut errors = Vec::new();
        let (status, spec) = (serde_json::from_value(status).unwrap(), serde_json::from_value(spec).unwrap());
        super::check(&mut errors, &Path::new("status"), &status, &spec);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn claims_are_those_that_the_pod_asks_for() {
        check(json!({ "resourceClaimStatuses": [{ "name": "a", "resourceClaimName": "p-a" }] }), &[]);
        let wrong = json!([{ "name": "b" }, { "name": "a" }, { "name": "a", "resourceClaimName": "A" }]);
        check(
            json!({ "resourceClaimStatuses": wrong }),
            &[
                "status.resourceClaimStatuses[0].name: Invalid value: \"b\": must match the name of an entry in `spec.resourceClaims`",
                "status.resourceClaimStatuses[2].name: Duplicate value: \"a\"",
                "status.resourceClaimStatuses[2].name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case \
                 alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
                 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ],
        );
    }

    #[test]
    fn extended_resources_are_those_that_containers_ask_for() {
        let one = |container: &str, resource: &str| json!({ "containerName": container, "resourceName": resource, "requestName": "container-0-request-0" });
        let status = |mappings: Value| json!({ "extendedResourceClaimStatus": { "resourceClaimName": "p-x", "requestMappings": mappings } });
        let right = one("c", "example.com/gpu");
        check(status(json!([right])), &[]);
        let path = "status.extendedResourceClaimStatus.requestMappings";
        check(status(json!([])), &[&format!("{path}: Required value")]);
        check(
            status(json!([right, right, one("x", "example.com/gpu"), one("c", "example.com/nic")])),
            &[
                &format!("{path}[1]: Duplicate value: \"container-0-request-0\""),
                &format!(
                    "{path}[2].containerName: Invalid value: \"x\": must match the name of an entry in `spec.initContainers` or `spec.containers`"
                ),
                &format!(
                    "{path}[3].resourceName: Invalid value: \"example.com/nic\": must match the name of a resource that the container requests"
                ),
            ],
        );
    }
}
