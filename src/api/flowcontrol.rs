//! Decides: the priority levels and flow schemas that every cluster has
//! (`k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go`). The mandatory ones are kept as they are here; the
//! suggested ones may be changed by whoever takes the annotation away.

use k8s_openapi::Metadata;
use k8s_openapi::api::flowcontrol::v1::{
    ExemptPriorityLevelConfiguration, FlowDistinguisherMethod, FlowSchema, FlowSchemaSpec, GroupSubject, LimitResponse,
    LimitedPriorityLevelConfiguration, NonResourcePolicyRule, PolicyRulesWithSubjects, PriorityLevelConfiguration,
    PriorityLevelConfigurationReference, PriorityLevelConfigurationSpec, QueuingConfiguration, ResourcePolicyRule,
    ServiceAccountSubject, Subject, UserSubject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// While it is `true` the server keeps the spec of an object as it is here.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

const ALL_USERS: &[&str] = &["system:unauthenticated", "system:authenticated"];
const EVERY: &[&str] = &["*"];

#[must_use]
pub fn mandatory_priority_levels() -> Vec<PriorityLevelConfiguration> {
    let exempt = ExemptPriorityLevelConfiguration { nominal_concurrency_shares: Some(0), lendable_percent: Some(0) };
    let spec = PriorityLevelConfigurationSpec { type_: "Exempt".into(), exempt: Some(exempt), limited: None };
    vec![
        level("catch-all", 5, 0, None),
        named("exempt", PriorityLevelConfiguration { spec: Some(spec), ..Default::default() }),
    ]
}

/// Name, shares, percentage that can be lent, queues and size of a hand.
#[must_use]
pub fn suggested_priority_levels() -> Vec<PriorityLevelConfiguration> {
    vec![
        level("system", 30, 33, Some((64, 6))),
        level("node-high", 40, 25, Some((64, 6))),
        level("leader-election", 10, 0, Some((16, 4))),
        level("workload-high", 40, 50, Some((128, 6))),
        level("workload-low", 100, 90, Some((128, 6))),
        level("global-default", 20, 50, Some((128, 6))),
    ]
}

#[must_use]
pub fn mandatory_flow_schemas() -> Vec<FlowSchema> {
    vec![
        schema("exempt", "exempt", 1, "", everything(groups(&["system:masters"]))),
        schema("catch-all", "catch-all", 10_000, "ByUser", everything(groups(ALL_USERS))),
    ]
}

#[must_use]
pub fn suggested_flow_schemas() -> Vec<FlowSchema> {
    let nodes = || groups(&["system:nodes"]);
    let leases = |verbs| resources(verbs, "coordination.k8s.io", &["leases"], false);
    let leaders = [users(&["system:kube-controller-manager", "system:kube-scheduler"]), kube_system()].concat();
    let health =
        NonResourcePolicyRule { verbs: texts(&["get"]), non_resource_urls: texts(&["/healthz", "/readyz", "/livez"]) };
    let of_nodes = vec![resources(EVERY, "", &["nodes", "nodes/status"], true), leases(EVERY)];
    vec![
        schema("system-nodes", "system", 500, "ByUser", everything(nodes())),
        schema("system-node-high", "node-high", 400, "ByUser", rules(nodes(), of_nodes, Vec::new())),
        schema("probes", "exempt", 2, "", rules(groups(ALL_USERS), Vec::new(), vec![health])),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            rules(leaders, vec![leases(&["get", "create", "update"])], Vec::new()),
        ),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            everything(users(&["system:kube-controller-manager"])),
        ),
        schema("kube-scheduler", "workload-high", 800, "ByNamespace", everything(users(&["system:kube-scheduler"]))),
        schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", everything(kube_system())),
        schema("service-accounts", "workload-low", 9000, "ByUser", everything(groups(&["system:serviceaccounts"]))),
        schema("global-default", "global-default", 9900, "ByUser", everything(groups(ALL_USERS))),
    ]
}

fn named<T: Metadata<Ty = ObjectMeta>>(name: &str, mut object: T) -> T {
    let meta = object.metadata_mut();
    meta.name = Some(name.into());
    meta.annotations = Some([(AUTO_UPDATE.to_owned(), "true".to_owned())].into());
    object
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// Without queues, what is too much is rejected.
fn level(name: &str, shares: i32, lendable: i32, queues: Option<(i32, i32)>) -> PriorityLevelConfiguration {
    let queuing = queues.map(|(queues, hand)| QueuingConfiguration {
        queues: Some(queues),
        hand_size: Some(hand),
        queue_length_limit: Some(50),
    });
    let limited = LimitedPriorityLevelConfiguration {
        nominal_concurrency_shares: Some(shares),
        lendable_percent: Some(lendable),
        limit_response: Some(LimitResponse {
            type_: if queuing.is_some() { "Queue" } else { "Reject" }.into(),
            queuing,
        }),
        borrowing_limit_percent: None,
    };
    let spec = PriorityLevelConfigurationSpec { type_: "Limited".into(), limited: Some(limited), exempt: None };
    named(name, PriorityLevelConfiguration { spec: Some(spec), ..PriorityLevelConfiguration::default() })
}

fn schema(name: &str, level: &str, precedence: i32, distinguisher: &str, rules: PolicyRulesWithSubjects) -> FlowSchema {
    let method = || FlowDistinguisherMethod { type_: distinguisher.into() };
    let spec = FlowSchemaSpec {
        priority_level_configuration: PriorityLevelConfigurationReference { name: level.into() },
        matching_precedence: Some(precedence),
        distinguisher_method: (!distinguisher.is_empty()).then(method),
        rules: Some(vec![rules]),
    };
    named(name, FlowSchema { spec: Some(spec), ..FlowSchema::default() })
}

fn rules(
    subjects: Vec<Subject>,
    resources: Vec<ResourcePolicyRule>,
    others: Vec<NonResourcePolicyRule>,
) -> PolicyRulesWithSubjects {
    PolicyRulesWithSubjects {
        subjects,
        resource_rules: Some(resources).filter(|r| !r.is_empty()),
        non_resource_rules: Some(others).filter(|r| !r.is_empty()),
    }
}

fn everything(subjects: Vec<Subject>) -> PolicyRulesWithSubjects {
    let others = NonResourcePolicyRule { verbs: texts(EVERY), non_resource_urls: texts(EVERY) };
    rules(subjects, vec![resources(EVERY, "*", EVERY, true)], vec![others])
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> ResourcePolicyRule {
    ResourcePolicyRule {
        verbs: texts(verbs),
        api_groups: texts(&[group]),
        resources: texts(resources),
        namespaces: Some(texts(EVERY)),
        cluster_scope: cluster.then_some(true),
    }
}

fn groups(names: &[&str]) -> Vec<Subject> {
    let one = |name: &&str| Subject {
        kind: "Group".into(),
        group: Some(GroupSubject { name: (*name).into() }),
        ..Subject::default()
    };
    names.iter().map(one).collect()
}

fn users(names: &[&str]) -> Vec<Subject> {
    let one = |name: &&str| Subject {
        kind: "User".into(),
        user: Some(UserSubject { name: (*name).into() }),
        ..Subject::default()
    };
    names.iter().map(one).collect()
}

/// Every service account of the system.
fn kube_system() -> Vec<Subject> {
    let account = ServiceAccountSubject { name: "*".into(), namespace: "kube-system".into() };
    vec![Subject { kind: "ServiceAccount".into(), service_account: Some(account), ..Subject::default() }]
}
