//! Types: where groups and versions stand among others: the priorities of `APIService`s, which discovery is sorted by
//! (`apiVersionPriorities` of upstream's kube-apiserver).

use std::cmp::Reverse;

/// The higher, the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority {
    /// `groupPriorityMinimum`: of a group, the highest of its versions counts.
    pub group: i32,
    /// `versionPriority`
    pub version: i32,
}

/// Of custom resources.
pub const CUSTOM: Priority = Priority { group: 1000, version: 100 };
/// Above what an `APIService` can say: the group that they are in always comes first, and needs none itself.
const REGISTRATION: Priority = Priority { group: 20_001, version: 0 };
pub const REGISTRATION_GROUP: &str = "apiregistration.k8s.io";

/// Group, its priority, and its versions with theirs.
type Row = (&'static str, i32, &'static [(&'static str, i32)]);

const BUILT_IN: &[Row] = &[
    ("", 18_000, &[("v1", 1)]),
    ("apps", 17_800, &[("v1", 15)]),
    ("events.k8s.io", 17_750, &[("v1", 15), ("v1beta1", 5)]),
    ("authentication.k8s.io", 17_700, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("authorization.k8s.io", 17_600, &[("v1", 15)]),
    ("autoscaling", 17_500, &[("v1", 15), ("v2", 30)]),
    ("batch", 17_400, &[("v1", 15), ("v1beta1", 9)]),
    ("certificates.k8s.io", 17_300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("networking.k8s.io", 17_200, &[("v1", 15), ("v1beta1", 9)]),
    ("policy", 17_100, &[("v1", 15), ("v1beta1", 9)]),
    ("rbac.authorization.k8s.io", 17_000, &[("v1", 15)]),
    ("storage.k8s.io", 16_800, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("apiextensions.k8s.io", 16_700, &[("v1", 15)]),
    ("admissionregistration.k8s.io", 16_700, &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)]),
    ("scheduling.k8s.io", 16_600, &[("v1", 15)]),
    ("coordination.k8s.io", 16_500, &[("v1", 15), ("v1beta1", 13), ("v1alpha2", 12)]),
    ("node.k8s.io", 16_300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("discovery.k8s.io", 16_200, &[("v1", 15), ("v1beta1", 12)]),
    ("resource.k8s.io", 16_200, &[("v1", 20), ("v1beta2", 15), ("v1beta1", 9), ("v1alpha3", 1)]),
    ("flowcontrol.apiserver.k8s.io", 16_100, &[("v1", 21), ("v1beta3", 18)]),
    ("internal.apiserver.k8s.io", 16_000, &[("v1alpha1", 9)]),
    ("storagemigration.k8s.io", 15_800, &[("v1beta1", 9)]),
    // As metrics-server registers it.
    ("metrics.k8s.io", 100, &[("v1beta1", 100)]),
];

/// Of a built-in version that has an `APIService`.
#[must_use]
pub fn built_in(group: &str, version: &str) -> Option<Priority> {
    let (_, group, versions) = BUILT_IN.iter().find(|(name, ..)| *name == group)?;
    let (_, version) = versions.iter().find(|(name, _)| *name == version)?;
    Some(Priority { group: *group, version: *version })
}

/// Of any version that this server has itself.
#[must_use]
pub fn of(group: &str, version: &str) -> Priority {
    if group == REGISTRATION_GROUP { REGISTRATION } else { built_in(group, version).unwrap_or(CUSTOM) }
}

/// How much a version is preferred to others of the same priority: stable over beta over alpha, then the higher number.
/// Other names than those of Kubernetes come last, by the alphabet (`version.CompareKubeAwareVersionStrings`).
#[must_use]
pub fn rank(version: &str) -> (u8, u32, u32, Reverse<&str>) {
    let kube = || {
        let text = version.strip_prefix('v')?;
        let (major, stage, minor) = match (text.split_once("beta"), text.split_once("alpha")) {
            (Some((major, minor)), _) => (major, 2, minor),
            (_, Some((major, minor))) => (major, 1, minor),
            _ => (text, 3, "0"),
        };
        Some((stage, major.parse().ok()?, minor.parse().ok()?, Reverse("")))
    };
    kube().unwrap_or((0, 0, 0, Reverse(version)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resource::RESOURCES;

    #[test]
    fn versions_are_ordered_by_maturity() {
        let mut all = ["v1alpha1", "foo1", "v2beta1", "v1", "v10", "v2", "v1beta2", "bar", "v1beta10"];
        all.sort_by_key(|v| Reverse(rank(v)));
        assert_eq!(all, ["v10", "v2", "v1", "v2beta1", "v1beta10", "v1beta2", "v1alpha1", "bar", "foo1"]);
    }

    /// A row without one would be listed behind the custom resources.
    #[test]
    fn every_row_has_a_priority() {
        for row in RESOURCES.iter().filter(|r| r.group != REGISTRATION_GROUP) {
            assert!(built_in(row.group, row.version).is_some(), "{}", row.api_version());
        }
    }
}
