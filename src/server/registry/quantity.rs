//! Decides: quantities of resources in requests, limits, capacity, quotas.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::metadata::{Errors, NEGATIVE};
use super::resource_name;
use crate::api::field::{FieldError, Path};
use crate::api::quantity::{ParseError, Quantity};

pub type List = BTreeMap<String, Text>;

const NOT_WHOLE: &str = "must be an integer";

pub fn parse(text: &Text) -> Result<Quantity, ParseError> {
    Quantity::parse(&text.0)
}

fn whole(quantity: &Quantity) -> bool {
    quantity.milli() % 1000 == 0
}

/// Writes every quantity in its canonical form: `1000m` is stored as `1`. What is no quantity stays for validation.
pub fn canonical<'a>(texts: impl IntoIterator<Item = &'a mut Text>) {
    for text in texts {
        if let Ok(quantity) = parse(text) {
            text.0 = quantity.to_string();
        }
    }
}

/// [`canonical`], of all in a list.
pub fn canonical_list(list: &mut Option<List>) {
    canonical(list.iter_mut().flat_map(BTreeMap::values_mut));
}

/// A quantity of a resource: not negative, and whole where only whole ones exist.
pub fn validate(errors: &mut Errors, path: &Path, resource: &str, value: &Text) {
    let quantity = match parse(value) {
        Ok(quantity) => quantity,
        Err(error) => {
            errors.push(FieldError::invalid(path, &value.0, &error.to_string()));
            return;
        }
    };
    if quantity.is_negative() {
        errors.push(FieldError::invalid(path, &value.0, NEGATIVE));
    }
    let counted = matches!(resource, "pods" | "services" | "secrets" | "configmaps");
    if (counted || resource_name::extended(resource)) && !whole(&quantity) {
        errors.push(FieldError::invalid(path, &value.0, NOT_WHOLE));
    }
}

/// What a quota holds of a resource: whole where it counts objects.
pub fn validate_quota(errors: &mut Errors, path: &Path, resource: &str, value: &Text) {
    let before = errors.len();
    validate(errors, path, resource, value);
    let said = errors[before..].iter().any(|e| e.message.ends_with(NOT_WHOLE));
    if resource_name::counted(resource) && !said && parse(value).is_ok_and(|v| !whole(&v)) {
        errors.push(FieldError::invalid(path, &value.0, NOT_WHOLE));
    }
}

/// `resources` of a container.
pub fn requirements(errors: &mut Errors, path: &Path, requirements: &ResourceRequirements, claims: &[&str]) {
    let empty = List::new();
    let limits = requirements.limits.as_ref().unwrap_or(&empty);
    let requests = requirements.requests.as_ref().unwrap_or(&empty);
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    for (name, value) in limits {
        let at = limits_path.key(name);
        resource_name::of_container(errors, &at, name);
        validate(errors, &at, name, value);
    }
    for (name, value) in requests {
        let at = requests_path.key(name);
        resource_name::of_container(errors, &at, name);
        validate(errors, &at, name, value);
        let overcommit = resource_name::overcommits(name);
        let Some(limit) = limits.get(name) else {
            if !overcommit {
                let message = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&limits_path, message));
            }
            continue;
        };
        let (Ok(request), Ok(bound)) = (parse(value), parse(limit)) else { continue };
        if request != bound && !overcommit {
            let message = format!("must be equal to {name} limit of {bound}");
            errors.push(FieldError::invalid(&requests_path, &value.0, &message));
        } else if request > bound {
            let message = format!("must be less than or equal to {name} limit of {bound}");
            errors.push(FieldError::invalid(&requests_path, &value.0, &message));
        }
    }
    let any = |test: &dyn Fn(&str) -> bool| limits.keys().chain(requests.keys()).any(|name| test(name));
    if any(&resource_name::huge_pages) && !any(&|name| matches!(name, "cpu" | "memory")) {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    for (i, claim) in requirements.claims.iter().flatten().enumerate() {
        let at = path.child("claims").index(i);
        if claim.name.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if !claims.contains(&claim.name.as_str()) {
            let mut error = FieldError::not_found(&at, &claim.name);
            let known = if claims.is_empty() { " which is empty".into() } else { format!(": {}", claims.join(", ")) };
            error.message.push_str(&format!(": must be one of the names in pod.spec.resourceClaims{known}"));
            errors.push(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(resources: Value, expect: &[&str]) {
        let resources: ResourceRequirements = serde_json::from_value(resources).unwrap();
        let mut errors = Vec::new();
        requirements(&mut errors, &Path::new("resources"), &resources, &[]);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn requests_and_limits() {
        check(json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1", "nvidia.com/gpu": "1"}}), &[]);
        check(
            json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            &["resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
        );
        check(
            json!({"requests": {"memory": "-1"}}),
            &["resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        check(
            json!({"requests": {"cores": "1"}}),
            &[
                "resources.requests[cores]: Invalid value: \"cores\": must be a standard resource type or fully \
                 qualified",
                "resources.requests[cores]: Invalid value: \"cores\": must be a standard resource for containers",
            ],
        );
        check(
            json!({"requests": {"nvidia.com/gpu": "1"}}),
            &["resources.limits: Required value: Limit must be set for non overcommitable resources"],
        );
        check(
            json!({"limits": {"nvidia.com/gpu": "500m"}}),
            &["resources.limits[nvidia.com/gpu]: Invalid value: \"500m\": must be an integer"],
        );
        check(json!({"limits": {"hugepages-2Mi": "2Mi"}}), &["resources: Forbidden: HugePages require cpu or memory"]);
        check(
            json!({"limits": {"cpu": "one"}}),
            &["resources.limits[cpu]: Invalid value: \"one\": quantities must match the regular expression \
               '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"],
        );
    }

    #[test]
    fn canonical_form() {
        let mut list = Some(List::from([("cpu".to_owned(), Text("1000m".into()))]));
        canonical_list(&mut list);
        assert_eq!(list.unwrap()["cpu"].0, "1");
    }
}
