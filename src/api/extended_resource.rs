//! Decides: names of extended resources that devices stand for (KEP-5004).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// On the claim that the scheduler makes for the extended resources of a pod: `true`.
pub const CLAIM_ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";
/// Before the name of a class: every class has a resource of that name, besides the one that it may name itself.
pub const OF_CLASS: &str = "deviceclass.resource.kubernetes.io/";

/// Name and uid of the pod that a claim was made for, because it asks for extended resources.
#[must_use]
pub fn made_for(claim: &ObjectMeta) -> Option<(&str, &str)> {
    claim.annotations.as_ref()?.get(CLAIM_ANNOTATION).filter(|value| *value == "true")?;
    let owner = claim.owner_references.iter().flatten().find(|o| o.controller == Some(true))?;
    (owner.kind == "Pod" && owner.api_version == "v1").then_some((&owner.name, &owner.uid))
}

/// The class whose devices are asked for by its own name.
#[must_use]
pub fn class_of(resource: &str) -> Option<&str> {
    resource.strip_prefix(OF_CLASS)
}
