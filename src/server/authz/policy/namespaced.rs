//! Types: the default Roles, and all default bindings but those of controllers.

use super::Who::{Group, ServiceAccount, User};
use super::{Binding, Role, binding, named, namespaced, rule};

pub static ROLES: &[Role] = &[
    namespaced(
        "system:controller:bootstrap-signer",
        "kube-public",
        &[
            rule("get list watch", "core", "configmaps"),
            named("update", "core", "configmaps", "cluster-info"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
    namespaced(
        "extension-apiserver-authentication-reader",
        "kube-system",
        &[named("get list watch", "core", "configmaps", "extension-apiserver-authentication")],
    ),
    namespaced(
        "system::leader-locking-kube-controller-manager",
        "kube-system",
        &[
            rule("create get list update watch", "coordination.k8s.io", "leases"),
            rule("create get list update watch", "coordination.k8s.io", "leasecandidates"),
        ],
    ),
    namespaced(
        "system::leader-locking-kube-scheduler",
        "kube-system",
        &[
            rule("create get list update watch", "coordination.k8s.io", "leases"),
            rule("create get list update watch", "coordination.k8s.io", "leasecandidates"),
        ],
    ),
    namespaced("system:controller:bootstrap-signer", "kube-system", &[rule("get list watch", "core", "secrets")]),
    namespaced(
        "system:controller:cloud-provider",
        "kube-system",
        &[rule("create get list watch", "core", "configmaps")],
    ),
    namespaced(
        "system:controller:token-cleaner",
        "kube-system",
        &[
            rule("delete get list watch", "core", "secrets"),
            rule("create patch update", "core events.k8s.io", "events"),
        ],
    ),
];

/// Namespace (empty: a ClusterRoleBinding to a ClusterRole), name, role, subjects.
pub static BINDINGS: &[Binding] = &[
    binding("", "cluster-admin", "cluster-admin", &[Group("system:masters")]),
    binding("", "system:basic-user", "system:basic-user", &[Group("system:authenticated")]),
    binding("", "system:discovery", "system:discovery", &[Group("system:authenticated")]),
    binding(
        "",
        "system:kube-controller-manager",
        "system:kube-controller-manager",
        &[User("system:kube-controller-manager")],
    ),
    binding("", "system:kube-dns", "system:kube-dns", &[ServiceAccount("kube-system", "kube-dns")]),
    binding("", "system:kube-scheduler", "system:kube-scheduler", &[User("system:kube-scheduler")]),
    binding("", "system:monitoring", "system:monitoring", &[Group("system:monitoring")]),
    binding("", "system:node", "system:node", &[]),
    binding("", "system:node-proxier", "system:node-proxier", &[User("system:kube-proxy")]),
    // Ours: the proxy, the DNS and the overlay of a node act as the node.
    binding("", "skiff:node-proxier", "system:node-proxier", &[Group("system:nodes")]),
    binding(
        "",
        "system:public-info-viewer",
        "system:public-info-viewer",
        &[Group("system:authenticated"), Group("system:unauthenticated")],
    ),
    binding(
        "",
        "system:service-account-issuer-discovery",
        "system:service-account-issuer-discovery",
        &[Group("system:serviceaccounts")],
    ),
    binding("", "system:volume-scheduler", "system:volume-scheduler", &[User("system:kube-scheduler")]),
    binding(
        "kube-public",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &[ServiceAccount("kube-system", "bootstrap-signer")],
    ),
    binding(
        "kube-system",
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &[User("system:kube-controller-manager"), User("system:kube-scheduler")],
    ),
    binding(
        "kube-system",
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &[
            User("system:kube-controller-manager"),
            ServiceAccount("kube-system", "kube-controller-manager"),
            ServiceAccount("kube-system", "leader-election-controller"),
        ],
    ),
    binding(
        "kube-system",
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &[User("system:kube-scheduler"), ServiceAccount("kube-system", "kube-scheduler")],
    ),
    binding(
        "kube-system",
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &[ServiceAccount("kube-system", "bootstrap-signer")],
    ),
    binding(
        "kube-system",
        "system:controller:cloud-provider",
        "system:controller:cloud-provider",
        &[ServiceAccount("kube-system", "cloud-provider")],
    ),
    binding(
        "kube-system",
        "system:controller:token-cleaner",
        "system:controller:token-cleaner",
        &[ServiceAccount("kube-system", "token-cleaner")],
    ),
];
