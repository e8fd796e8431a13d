//! Types: the rows of the resource table, group by group.

use super::{ALL, CREATE, DELETE, DELETE_COLLECTION, GET, LIST, PATCH, Resource, Subresource, UPDATE};

pub(super) const BASE: Resource = Resource {
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

/// Its kinds are not described in OpenAPI documents: kubectl knows them.
pub const MEASURED_GROUP: &str = "metrics.k8s.io";

/// What a proxy passes through.
const CONNECT: u16 = CREATE | DELETE | GET | PATCH | UPDATE;

/// What `kubectl get all` shows.
const IN_ALL: &[&str] = &["all"];
/// What changes the API itself.
const EXTENSIONS: &[&str] = &["api-extensions"];
const SCALE: Subresource = sub("scale", "Scale", "autoscaling", "v1", GET | PATCH | UPDATE);

/// A kind in namespaces, with every verb. `storage` is `plural` or `group/plural`.
const fn stored(storage: &'static str, singular: &'static str, kind: &'static str) -> Resource {
    let (bytes, mut at) = (storage.as_bytes(), 0);
    while at < bytes.len() && bytes[at] != b'/' {
        at += 1;
    }
    let (group, plural) = if at == bytes.len() {
        ("", storage)
    } else {
        let (group, rest) = storage.split_at(at);
        (group, rest.split_at(1).1)
    };
    Resource { group, plural, singular, kind, storage, ..BASE }
}

/// A kind outside of namespaces.
const fn of_cluster(storage: &'static str, singular: &'static str, kind: &'static str) -> Resource {
    Resource { namespaced: false, ..stored(storage, singular, kind) }
}

/// A kind of `admissionregistration.k8s.io`.
const fn admission(storage: &'static str, singular: &'static str, kind: &'static str) -> Resource {
    Resource { categories: EXTENSIONS, ..of_cluster(storage, singular, kind) }
}

/// A kind that is posted, answered and never stored.
const fn review(
    group: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
    namespaced: bool,
) -> Resource {
    Resource { namespaced, verbs: CREATE, ..Resource::unstored(group, plural, singular, kind) }
}

/// What is measured when somebody asks, and never stored.
const fn measured(plural: &'static str, singular: &'static str, kind: &'static str, namespaced: bool) -> Resource {
    let unstored = Resource::unstored(MEASURED_GROUP, plural, singular, kind);
    Resource { version: "v1beta1", namespaced, verbs: GET | LIST, ..unstored }
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

/// Every built-in resource. The first row of a storage name is its storage version.
pub static RESOURCES: &[Resource] = &[
    Resource {
        short_names: &["ns"],
        verbs: ALL & !DELETE_COLLECTION,
        subresources: &[sub("finalize", "Namespace", "", "v1", UPDATE), status("Namespace", "")],
        selectable: &["status.phase"],
        ..of_cluster("namespaces", "namespace", "Namespace")
    },
    Resource {
        short_names: &["no"],
        subresources: &[sub("proxy", "NodeProxyOptions", "", "v1", CONNECT), status("Node", "")],
        selectable: &["spec.unschedulable"],
        ..of_cluster("nodes", "node", "Node")
    },
    Resource {
        short_names: &["po"],
        categories: IN_ALL,
        subresources: &[
            sub("attach", "PodAttachOptions", "", "v1", CREATE | GET),
            sub("binding", "Binding", "", "v1", CREATE),
            sub("ephemeralcontainers", "Pod", "", "v1", GET | PATCH | UPDATE),
            sub("eviction", "Eviction", "policy", "v1", CREATE),
            sub("exec", "PodExecOptions", "", "v1", CREATE | GET),
            sub("log", "Pod", "", "v1", GET),
            sub("portforward", "PodPortForwardOptions", "", "v1", CREATE | GET),
            sub("proxy", "PodProxyOptions", "", "v1", CONNECT),
            sub("resize", "Pod", "", "v1", GET | PATCH | UPDATE),
            status("Pod", ""),
        ],
        selectable: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ..stored("pods", "pod", "Pod")
    },
    stored("podtemplates", "podtemplate", "PodTemplate"),
    Resource {
        short_names: &["rc"],
        categories: IN_ALL,
        subresources: &[SCALE, status("ReplicationController", "")],
        selectable: &["status.replicas"],
        ..stored("replicationcontrollers", "replicationcontroller", "ReplicationController")
    },
    Resource {
        short_names: &["svc"],
        categories: IN_ALL,
        subresources: &[sub("proxy", "ServiceProxyOptions", "", "v1", CONNECT), status("Service", "")],
        selectable: &["spec.clusterIP", "spec.type"],
        ..stored("services", "service", "Service")
    },
    Resource { short_names: &["ep"], ..stored("endpoints", "endpoints", "Endpoints") },
    Resource { short_names: &["cm"], ..stored("configmaps", "configmap", "ConfigMap") },
    Resource { selectable: &["type"], ..stored("secrets", "secret", "Secret") },
    Resource {
        short_names: &["sa"],
        subresources: &[sub("token", "TokenRequest", "authentication.k8s.io", "v1", CREATE)],
        ..stored("serviceaccounts", "serviceaccount", "ServiceAccount")
    },
    Resource { short_names: &["limits"], ..stored("limitranges", "limitrange", "LimitRange") },
    Resource {
        short_names: &["quota"],
        subresources: &[status("ResourceQuota", "")],
        ..stored("resourcequotas", "resourcequota", "ResourceQuota")
    },
    Resource {
        short_names: &["pv"],
        subresources: &[status("PersistentVolume", "")],
        ..of_cluster("persistentvolumes", "persistentvolume", "PersistentVolume")
    },
    Resource {
        short_names: &["pvc"],
        subresources: &[status("PersistentVolumeClaim", "")],
        ..stored("persistentvolumeclaims", "persistentvolumeclaim", "PersistentVolumeClaim")
    },
    Resource { short_names: &["ev"], selectable: EVENT_FIELDS, volatile: true, ..stored("events", "event", "Event") },
    Resource {
        group: "events.k8s.io",
        short_names: &["ev"],
        selectable: EVENT_FIELDS,
        volatile: true,
        ..stored("events", "event", "Event")
    },
    stored("discovery.k8s.io/endpointslices", "endpointslice", "EndpointSlice"),
    Resource { volatile: true, ..stored("coordination.k8s.io/leases", "lease", "Lease") },
    Resource {
        short_names: &["deploy"],
        categories: IN_ALL,
        subresources: &[SCALE, status("Deployment", "apps")],
        ..stored("apps/deployments", "deployment", "Deployment")
    },
    Resource {
        short_names: &["rs"],
        categories: IN_ALL,
        subresources: &[SCALE, status("ReplicaSet", "apps")],
        selectable: &["status.replicas"],
        ..stored("apps/replicasets", "replicaset", "ReplicaSet")
    },
    Resource {
        short_names: &["sts"],
        categories: IN_ALL,
        subresources: &[SCALE, status("StatefulSet", "apps")],
        ..stored("apps/statefulsets", "statefulset", "StatefulSet")
    },
    Resource {
        short_names: &["ds"],
        categories: IN_ALL,
        subresources: &[status("DaemonSet", "apps")],
        ..stored("apps/daemonsets", "daemonset", "DaemonSet")
    },
    stored("apps/controllerrevisions", "controllerrevision", "ControllerRevision"),
    Resource {
        categories: IN_ALL,
        subresources: &[status("Job", "batch")],
        selectable: &["status.successful"],
        ..stored("batch/jobs", "job", "Job")
    },
    Resource {
        short_names: &["cj"],
        categories: IN_ALL,
        subresources: &[status("CronJob", "batch")],
        ..stored("batch/cronjobs", "cronjob", "CronJob")
    },
    Resource {
        version: "v2",
        short_names: &["hpa"],
        categories: IN_ALL,
        subresources: &[sub("status", "HorizontalPodAutoscaler", "autoscaling", "v2", GET | PATCH | UPDATE)],
        ..stored("autoscaling/horizontalpodautoscalers", "horizontalpodautoscaler", "HorizontalPodAutoscaler")
    },
    Resource {
        short_names: &["hpa"],
        categories: IN_ALL,
        subresources: &[status("HorizontalPodAutoscaler", "autoscaling")],
        ..stored("autoscaling/horizontalpodautoscalers", "horizontalpodautoscaler", "HorizontalPodAutoscaler")
    },
    Resource {
        short_names: &["pdb"],
        subresources: &[status("PodDisruptionBudget", "policy")],
        ..stored("policy/poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget")
    },
    Resource {
        short_names: &["ing"],
        subresources: &[status("Ingress", "networking.k8s.io")],
        ..stored("networking.k8s.io/ingresses", "ingress", "Ingress")
    },
    of_cluster("networking.k8s.io/ingressclasses", "ingressclass", "IngressClass"),
    Resource {
        short_names: &["netpol"],
        ..stored("networking.k8s.io/networkpolicies", "networkpolicy", "NetworkPolicy")
    },
    Resource {
        subresources: &[status("ServiceCIDR", "networking.k8s.io")],
        ..of_cluster("networking.k8s.io/servicecidrs", "servicecidr", "ServiceCIDR")
    },
    Resource { short_names: &["ip"], ..of_cluster("networking.k8s.io/ipaddresses", "ipaddress", "IPAddress") },
    Resource { short_names: &["sc"], ..of_cluster("storage.k8s.io/storageclasses", "storageclass", "StorageClass") },
    of_cluster("storage.k8s.io/csidrivers", "csidriver", "CSIDriver"),
    of_cluster("storage.k8s.io/csinodes", "csinode", "CSINode"),
    stored("storage.k8s.io/csistoragecapacities", "csistoragecapacity", "CSIStorageCapacity"),
    Resource {
        subresources: &[status("VolumeAttachment", "storage.k8s.io")],
        ..of_cluster("storage.k8s.io/volumeattachments", "volumeattachment", "VolumeAttachment")
    },
    Resource {
        short_names: &["vac"],
        ..of_cluster("storage.k8s.io/volumeattributesclasses", "volumeattributesclass", "VolumeAttributesClass")
    },
    of_cluster("node.k8s.io/runtimeclasses", "runtimeclass", "RuntimeClass"),
    stored("rbac.authorization.k8s.io/roles", "role", "Role"),
    stored("rbac.authorization.k8s.io/rolebindings", "rolebinding", "RoleBinding"),
    of_cluster("rbac.authorization.k8s.io/clusterroles", "clusterrole", "ClusterRole"),
    of_cluster("rbac.authorization.k8s.io/clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding"),
    Resource {
        short_names: &["pc"],
        ..of_cluster("scheduling.k8s.io/priorityclasses", "priorityclass", "PriorityClass")
    },
    Resource {
        short_names: &["csr"],
        subresources: &[
            sub("approval", "CertificateSigningRequest", "certificates.k8s.io", "v1", GET | PATCH | UPDATE),
            status("CertificateSigningRequest", "certificates.k8s.io"),
        ],
        selectable: &["spec.signerName"],
        ..of_cluster(
            "certificates.k8s.io/certificatesigningrequests",
            "certificatesigningrequest",
            "CertificateSigningRequest",
        )
    },
    admission(
        "admissionregistration.k8s.io/mutatingwebhookconfigurations",
        "mutatingwebhookconfiguration",
        "MutatingWebhookConfiguration",
    ),
    admission(
        "admissionregistration.k8s.io/validatingwebhookconfigurations",
        "validatingwebhookconfiguration",
        "ValidatingWebhookConfiguration",
    ),
    Resource {
        subresources: &[status("ValidatingAdmissionPolicy", "admissionregistration.k8s.io")],
        ..admission(
            "admissionregistration.k8s.io/validatingadmissionpolicies",
            "validatingadmissionpolicy",
            "ValidatingAdmissionPolicy",
        )
    },
    admission(
        "admissionregistration.k8s.io/validatingadmissionpolicybindings",
        "validatingadmissionpolicybinding",
        "ValidatingAdmissionPolicyBinding",
    ),
    admission(
        "admissionregistration.k8s.io/mutatingadmissionpolicies",
        "mutatingadmissionpolicy",
        "MutatingAdmissionPolicy",
    ),
    admission(
        "admissionregistration.k8s.io/mutatingadmissionpolicybindings",
        "mutatingadmissionpolicybinding",
        "MutatingAdmissionPolicyBinding",
    ),
    Resource {
        short_names: &["crd", "crds"],
        categories: EXTENSIONS,
        subresources: &[status("CustomResourceDefinition", "apiextensions.k8s.io")],
        ..of_cluster(
            "apiextensions.k8s.io/customresourcedefinitions",
            "customresourcedefinition",
            "CustomResourceDefinition",
        )
    },
    Resource {
        categories: EXTENSIONS,
        subresources: &[status("APIService", "apiregistration.k8s.io")],
        ..of_cluster("apiregistration.k8s.io/apiservices", "apiservice", "APIService")
    },
    Resource {
        subresources: &[status("FlowSchema", "flowcontrol.apiserver.k8s.io")],
        ..of_cluster("flowcontrol.apiserver.k8s.io/flowschemas", "flowschema", "FlowSchema")
    },
    Resource {
        subresources: &[status("PriorityLevelConfiguration", "flowcontrol.apiserver.k8s.io")],
        ..of_cluster(
            "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
            "prioritylevelconfiguration",
            "PriorityLevelConfiguration",
        )
    },
    of_cluster("resource.k8s.io/deviceclasses", "deviceclass", "DeviceClass"),
    Resource {
        subresources: &[status("ResourceClaim", "resource.k8s.io")],
        ..stored("resource.k8s.io/resourceclaims", "resourceclaim", "ResourceClaim")
    },
    stored("resource.k8s.io/resourceclaimtemplates", "resourceclaimtemplate", "ResourceClaimTemplate"),
    Resource {
        selectable: &["spec.nodeName", "spec.driver"],
        ..of_cluster("resource.k8s.io/resourceslices", "resourceslice", "ResourceSlice")
    },
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

/// What is measured when somebody asks. Another server may have the group, so it is not among the built-in ones.
pub static MEASURED: &[Resource] =
    &[measured("nodes", "node", "NodeMetrics", false), measured("pods", "pod", "PodMetrics", true)];
