//! Types: labels of nodes that have a newer name.

struct Renamed {
    old: &'static str,
    new: &'static str,
    since: &'static str,
}

const RENAMED: &[Renamed] = &[
    Renamed { old: "beta.kubernetes.io/arch", new: "kubernetes.io/arch", since: "v1.14" },
    Renamed { old: "beta.kubernetes.io/os", new: "kubernetes.io/os", since: "v1.14" },
    Renamed { old: "failure-domain.beta.kubernetes.io/region", new: "topology.kubernetes.io/region", since: "v1.17" },
    Renamed { old: "failure-domain.beta.kubernetes.io/zone", new: "topology.kubernetes.io/zone", since: "v1.17" },
    Renamed { old: "beta.kubernetes.io/instance-type", new: "node.kubernetes.io/instance-type", since: "v1.17" },
];

fn find(label: &str) -> Option<&'static Renamed> {
    RENAMED.iter().find(|r| r.old == label)
}

#[must_use]
pub fn replacement(label: &str) -> Option<&'static str> {
    find(label).map(|r| r.new)
}

/// What a warning says of a label that has a newer name.
#[must_use]
pub fn deprecation(label: &str) -> Option<String> {
    find(label).map(|r| format!("deprecated since {}; use {:?} instead", r.since, r.new))
}
