//! Types: the resource table. A built-in kind is one row here plus a `Strategy` in the registry.
//!
//! Short names, categories and verbs are those of the v1.36 discovery document; `tests/` compares them.

/// Bits of [`Resource::verbs`], in the order discovery lists them.
pub const CREATE: u16 = 1;
pub const DELETE: u16 = 1 << 1;
pub const DELETE_COLLECTION: u16 = 1 << 2;
pub const GET: u16 = 1 << 3;
pub const LIST: u16 = 1 << 4;
pub const PATCH: u16 = 1 << 5;
pub const UPDATE: u16 = 1 << 6;
pub const WATCH: u16 = 1 << 7;
pub const ALL: u16 = 0xff;

/// One resource in one version.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    /// Verbs of the main resource; 0 for kinds that are only posted (reviews).
    pub verbs: u16,
    pub subresources: &'static [Subresource],
    /// Name in the store, shared by all versions of one resource: `plural` or `group/plural`.
    pub storage: &'static str,
    /// Field selectors beyond `metadata.name` and `metadata.namespace`, as JSON paths with dots.
    pub selectable: &'static [&'static str],
    /// Leases and Events: served at once, on disk within seconds (architecture, decision 6).
    pub volatile: bool,
}

/// A subresource: its kind where it is not the parent's, and its verbs.
#[derive(Debug, PartialEq, Eq)]
pub struct Subresource {
    pub name: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub verbs: u16,
}

impl Resource {
    /// A kind that is only posted or named in messages: no verbs, no storage. Namespaced.
    #[must_use]
    pub const fn unstored(
        group: &'static str,
        plural: &'static str,
        singular: &'static str,
        kind: &'static str,
    ) -> Self {
        Self { group, plural, singular, kind, verbs: 0, ..BASE }
    }

    /// `v1` or `apps/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    #[must_use]
    pub fn has(&self, verb: u16) -> bool {
        self.verbs & verb != 0
    }

    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Path of a collection: `/api/v1/namespaces/x/pods`, `/apis/apps/v1/deployments`.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "api".into() } else { format!("apis/{}", self.group) };
        match namespace.filter(|n| self.namespaced && !n.is_empty()) {
            Some(ns) => format!("/{root}/{}/namespaces/{ns}/{}", self.version, self.plural),
            None => format!("/{root}/{}/{}", self.version, self.plural),
        }
    }
}

/// The row of a resource as a URL names it.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The row of a kind as `apiVersion` and `kind` of an object name it.
#[must_use]
pub fn find_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    RESOURCES.iter().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// The row that a storage name belongs to (the first, storage, version).
#[must_use]
pub fn find_storage(storage: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.storage == storage)
}

const fn sub(
    name: &'static str,
    kind: &'static str,
    group: &'static str,
    version: &'static str,
    verbs: u16,
) -> Subresource {
    Subresource { name, group, version, kind, verbs }
}

const fn status(kind: &'static str, group: &'static str) -> Subresource {
    sub("status", kind, group, "v1", GET | PATCH | UPDATE)
}

const SCALE: Subresource = sub("scale", "Scale", "autoscaling", "v1", GET | PATCH | UPDATE);

const BASE: Resource = Resource {
    group: "",
    version: "v1",
    plural: "",
    singular: "",
    kind: "",
    namespaced: true,
    short_names: &[],
    categories: &[],
    verbs: ALL,
    subresources: &[],
    storage: "",
    selectable: &[],
    volatile: false,
};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Every built-in resource. The first row of a storage name is its storage version.
pub static RESOURCES: &[Resource] = &[
    Resource {
        plural: "namespaces",
        singular: "namespace",
        kind: "Namespace",
        namespaced: false,
        short_names: &["ns"],
        verbs: ALL & !DELETE_COLLECTION,
        subresources: &[sub("finalize", "Namespace", "", "v1", UPDATE), status("Namespace", "")],
        storage: "namespaces",
        selectable: &["status.phase"],
        ..BASE
    },
    Resource {
        plural: "nodes",
        singular: "node",
        kind: "Node",
        namespaced: false,
        short_names: &["no"],
        subresources: &[
            sub("proxy", "NodeProxyOptions", "", "v1", CREATE | DELETE | GET | PATCH | UPDATE),
            status("Node", ""),
        ],
        storage: "nodes",
        selectable: &["spec.unschedulable"],
        ..BASE
    },
    Resource {
        plural: "pods",
        singular: "pod",
        kind: "Pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            sub("attach", "PodAttachOptions", "", "v1", CREATE | GET),
            sub("binding", "Binding", "", "v1", CREATE),
            sub("exec", "PodExecOptions", "", "v1", CREATE | GET),
            sub("log", "Pod", "", "v1", GET),
            status("Pod", ""),
        ],
        storage: "pods",
        selectable: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ..BASE
    },
    Resource {
        plural: "services",
        singular: "service",
        kind: "Service",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[status("Service", "")],
        storage: "services",
        selectable: &["spec.clusterIP", "spec.type"],
        ..BASE
    },
    Resource {
        plural: "endpoints",
        singular: "endpoints",
        kind: "Endpoints",
        short_names: &["ep"],
        storage: "endpoints",
        ..BASE
    },
    Resource {
        group: "discovery.k8s.io",
        plural: "endpointslices",
        singular: "endpointslice",
        kind: "EndpointSlice",
        storage: "discovery.k8s.io/endpointslices",
        ..BASE
    },
    Resource {
        plural: "configmaps",
        singular: "configmap",
        kind: "ConfigMap",
        short_names: &["cm"],
        storage: "configmaps",
        ..BASE
    },
    Resource {
        plural: "secrets",
        singular: "secret",
        kind: "Secret",
        storage: "secrets",
        selectable: &["type"],
        ..BASE
    },
    Resource {
        plural: "serviceaccounts",
        singular: "serviceaccount",
        kind: "ServiceAccount",
        short_names: &["sa"],
        subresources: &[sub("token", "TokenRequest", "authentication.k8s.io", "v1", CREATE)],
        storage: "serviceaccounts",
        ..BASE
    },
    Resource {
        plural: "events",
        singular: "event",
        kind: "Event",
        short_names: &["ev"],
        storage: "events",
        selectable: EVENT_FIELDS,
        volatile: true,
        ..BASE
    },
    Resource {
        group: "events.k8s.io",
        plural: "events",
        singular: "event",
        kind: "Event",
        short_names: &["ev"],
        storage: "events",
        selectable: EVENT_FIELDS,
        volatile: true,
        ..BASE
    },
    Resource {
        group: "coordination.k8s.io",
        plural: "leases",
        singular: "lease",
        kind: "Lease",
        storage: "coordination.k8s.io/leases",
        volatile: true,
        ..BASE
    },
    Resource {
        group: "apps",
        plural: "deployments",
        singular: "deployment",
        kind: "Deployment",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[SCALE, status("Deployment", "apps")],
        storage: "apps/deployments",
        ..BASE
    },
    Resource {
        group: "apps",
        plural: "replicasets",
        singular: "replicaset",
        kind: "ReplicaSet",
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[SCALE, status("ReplicaSet", "apps")],
        storage: "apps/replicasets",
        selectable: &["status.replicas"],
        ..BASE
    },
    Resource {
        group: RBAC,
        plural: "roles",
        singular: "role",
        kind: "Role",
        storage: "rbac.authorization.k8s.io/roles",
        ..BASE
    },
    Resource {
        group: RBAC,
        plural: "rolebindings",
        singular: "rolebinding",
        kind: "RoleBinding",
        storage: "rbac.authorization.k8s.io/rolebindings",
        ..BASE
    },
    Resource {
        group: RBAC,
        plural: "clusterroles",
        singular: "clusterrole",
        kind: "ClusterRole",
        namespaced: false,
        storage: "rbac.authorization.k8s.io/clusterroles",
        ..BASE
    },
    Resource {
        group: RBAC,
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        kind: "ClusterRoleBinding",
        namespaced: false,
        storage: "rbac.authorization.k8s.io/clusterrolebindings",
        ..BASE
    },
    Resource {
        group: "scheduling.k8s.io",
        plural: "priorityclasses",
        singular: "priorityclass",
        kind: "PriorityClass",
        namespaced: false,
        short_names: &["pc"],
        storage: "scheduling.k8s.io/priorityclasses",
        ..BASE
    },
    // Posted, answered and never stored.
    review("authentication.k8s.io", "tokenreviews", "tokenreview", "TokenReview", false),
    review("authentication.k8s.io", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview", false),
    review("authorization.k8s.io", "subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview", false),
    review(
        "authorization.k8s.io",
        "selfsubjectaccessreviews",
        "selfsubjectaccessreview",
        "SelfSubjectAccessReview",
        false,
    ),
    review(
        "authorization.k8s.io",
        "selfsubjectrulesreviews",
        "selfsubjectrulesreview",
        "SelfSubjectRulesReview",
        false,
    ),
    review(
        "authorization.k8s.io",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        "LocalSubjectAccessReview",
        true,
    ),
];

const EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

const fn review(
    group: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Resource {
    Resource { namespaced, verbs: CREATE, ..Resource::unstored(group, plural, singular, kind) }
}
