//! Tables of configurations and what they come to.

use serde_json::{Value, json};

use super::args::{Preemption, Strategy};
use super::plugins::Point;
use super::*;

fn configuration(change: Value) -> Value {
    let mut document = json!({ "apiVersion": VERSION, "kind": KIND });
    document.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    document
}

fn parsed(change: Value) -> Scheduler {
    parse(&configuration(change)).unwrap()
}

/// Of one profile with these plugins.
fn points(plugins: Value) -> Points {
    parsed(json!({ "profiles": [{ "plugins": plugins }] })).profiles.remove(0).points
}

fn args(name: &str, args: Value) -> Result<Args, Vec<String>> {
    let document = configuration(json!({ "profiles": [{ "pluginConfig": [{ "name": name, "args": args }] }] }));
    parse(&document).map(|mut s| s.profiles.remove(0).args)
}

#[test]
fn nothing_said_is_the_default_profile() {
    let scheduler = parsed(json!({}));
    assert_eq!(scheduler.profiles, [Profile::default()]);
    assert_eq!((scheduler.first_backoff, scheduler.last_backoff), (None, None));
    let points = Points::default();
    assert_eq!(points.at(Point::Filter), points_of("Filter"));
    assert_eq!(points.at(Point::PostFilter), ["DynamicResources", "DefaultPreemption"]);
    assert_eq!(points.at(Point::QueueSort), ["PrioritySort"]);
    let weights: Vec<i64> =
        ["TaintToleration", "NodeAffinity", "PodTopologySpread", "InterPodAffinity", "ImageLocality"]
            .map(|name| points.weight(name))
            .to_vec();
    assert_eq!(weights, [3, 2, 2, 2, 1]);
}

fn points_of(point: &str) -> Vec<&'static str> {
    match point {
        "Filter" => vec![
            "NodeUnschedulable",
            "NodeName",
            "TaintToleration",
            "NodeAffinity",
            "NodePorts",
            "NodeResourcesFit",
            "VolumeRestrictions",
            "NodeVolumeLimits",
            "VolumeBinding",
            "VolumeZone",
            "PodTopologySpread",
            "InterPodAffinity",
            "DynamicResources",
        ],
        other => panic!("{other}"),
    }
}

#[test]
fn what_runs_a_part_of_upstreams_is_left_alone() {
    let unused = json!({ "leaderElection": { "leaderElect": false }, "clientConnection": { "kubeconfig": "/x" },
        "enableProfiling": true, "enableContentionProfiling": false, "parallelism": 4, "delayCacheUntilActive": true,
        "podInitialBackoffSeconds": 2, "podMaxBackoffSeconds": 20, "percentageOfNodesToScore": 30,
        "profiles": [{ "schedulerName": "a" }, { "schedulerName": "b", "percentageOfNodesToScore": 70 }] });
    let scheduler = parsed(unused);
    assert_eq!(scheduler.first_backoff, Some(Duration::from_secs(2)));
    assert_eq!(scheduler.last_backoff, Some(Duration::from_secs(20)));
    let percentages: Vec<(&str, i64)> =
        scheduler.profiles.iter().map(|p| (p.scheduler_name.as_str(), p.percentage_of_nodes_to_score)).collect();
    assert_eq!(percentages, [("a", 30), ("b", 70)]);
}

#[test]
fn plugins_by_point_and_of_all_points() {
    let off = points(
        json!({ "score": { "disabled": [{ "name": "*" }], "enabled": [{ "name": "NodeResourcesFit", "weight": 5 }] } }),
    );
    assert_eq!(off.at(Point::Score), ["NodeResourcesFit"]);
    assert_eq!(off.weight("NodeResourcesFit"), 5);
    assert_eq!(off.at(Point::Filter), points_of("Filter"), "no other point is touched");

    let one = points(json!({ "filter": { "disabled": [{ "name": "NodePorts" }] } }));
    assert!(!one.has("NodePorts", Point::Filter) && one.has("NodePorts", Point::PreFilter));
    let unprepared = points(json!({ "preFilter": { "disabled": [{ "name": "NodePorts" }] } }));
    assert!(!unprepared.has("NodePorts", Point::Filter), "it is not asked without what it prepares");

    let weighted = points(json!({ "multiPoint": { "enabled": [{ "name": "ImageLocality", "weight": 9 }] } }));
    assert_eq!(weighted.weight("ImageLocality"), 9);
    assert_eq!(weighted.at(Point::Score), Points::default().at(Point::Score), "in its place");

    let all = points(json!({ "multiPoint": { "disabled": [{ "name": "*" }],
        "enabled": [{ "name": "PrioritySort" }, { "name": "NodeName" }, { "name": "DefaultBinder" }] } }));
    assert_eq!(all.at(Point::Filter), ["NodeName"]);
    assert_eq!((all.at(Point::Score), all.at(Point::PostFilter)), (&[][..], &[][..]));

    let first = points(json!({ "filter": { "enabled": [{ "name": "NodePorts" }] } }));
    assert_eq!(first.at(Point::Filter)[..2], ["NodePorts", "NodeUnschedulable"], "what a point names comes first");
}

#[test]
fn what_is_said_to_plugins() {
    let fit = |strategy: Value| args("NodeResourcesFit", json!({ "scoringStrategy": strategy })).unwrap().fit;
    let both = vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)];
    assert_eq!(fit(json!({ "type": "MostAllocated" })).strategy, Strategy::MostAllocated);
    assert_eq!(fit(json!({ "type": "MostAllocated" })).resources, both);
    let shaped = json!({ "type": "RequestedToCapacityRatio", "resources": [{ "name": "example.com/gpu", "weight": 3 }],
        "requestedToCapacityRatio": { "shape": [{ "utilization": 0, "score": 0 }, { "utilization": 100, "score": 10 }] } });
    assert_eq!(fit(shaped.clone()).strategy, Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 10)]));
    assert_eq!(fit(shaped).resources, [("example.com/gpu".to_owned(), 3)]);
    let ignored = json!({ "ignoredResources": ["example.com/a"], "ignoredResourceGroups": ["other.com"] });
    let ignoring = args("NodeResourcesFit", ignored).unwrap().fit;
    assert_eq!((ignoring.ignored, ignoring.ignored_groups), (vec!["example.com/a".into()], vec!["other.com".into()]));

    let kind = json!({ "apiVersion": VERSION, "kind": "InterPodAffinityArgs", "hardPodAffinityWeight": 7 });
    assert_eq!(args("InterPodAffinity", kind).unwrap().hard_pod_affinity_weight, 7);
    let listed = json!({ "defaultingType": "List", "defaultConstraints": [] });
    assert_eq!(args("PodTopologySpread", listed).unwrap().default_constraints, Some(Vec::new()));
    assert_eq!(args("PodTopologySpread", json!({})).unwrap().default_constraints, None);
    let bind = args("VolumeBinding", json!({ "bindTimeoutSeconds": 30 })).unwrap();
    assert_eq!((bind.bind_timeout, bind.binding_timeout), (Duration::from_secs(30), Duration::from_mins(10)));
    let timeout = args("DynamicResources", json!({ "bindingTimeout": "90s" })).unwrap();
    assert_eq!(timeout.binding_timeout, Duration::from_secs(90));
    let few = args("DefaultPreemption", json!({ "minCandidateNodesAbsolute": 0 })).unwrap();
    assert_eq!(few.preemption, Preemption { percentage: 10, absolute: 0 });
    let balanced = args("NodeResourcesBalancedAllocation", json!({ "resources": [{ "name": "cpu" }] })).unwrap();
    assert_eq!(balanced.balanced, ["cpu"]);
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let check = |change: Value, want: &[&str]| {
        assert_eq!(parse(&configuration(change.clone())).unwrap_err(), want, "{change}");
    };
    let profile = |profile: Value, want: &[&str]| check(json!({ "profiles": [profile] }), want);
    assert_eq!(
        parse(&json!({ "apiVersion": "kubescheduler.config.k8s.io/v1beta3", "kind": KIND })).unwrap_err(),
        [
            "no kind \"KubeSchedulerConfiguration\" is registered for version \"kubescheduler.config.k8s.io/v1beta3\": use \
          \"KubeSchedulerConfiguration\" of \"kubescheduler.config.k8s.io/v1\""
        ]
    );
    check(
        json!({ "parallelism": 0, "percentageOfNodesToScore": 101, "podInitialBackoffSeconds": 0, "nonsense": 1,
            "podMaxBackoffSeconds": -1, "extenders": [{ "urlPrefix": "http://x" }] }),
        &[
            "parallelism: Invalid value: 0: should be an integer value greater than zero",
            "extenders: Forbidden: extenders are not supported",
            "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
            "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
            "podMaxBackoffSeconds: Invalid value: -1: must be greater than or equal to PodInitialBackoffSeconds",
            "unknown field \"nonsense\"",
        ],
    );
    check(
        json!({ "profiles": [{ "schedulerName": "a" }, { "schedulerName": "a" }, {}] }),
        &[
            "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"",
            "profiles[2].schedulerName: Required value",
        ],
    );
    let enabled = |name: &str| json!({ "enabled": [{ "name": name }] });
    profile(
        json!({ "plugins": { "filter": enabled("Nope"), "score": enabled("NodeName"), "reserve": enabled("EBSLimits"),
            "bind": { "disabled": [{ "name": "*" }] }, "queueSort": { "disabled": [{ "name": "*" }] }, "sort": {} } }),
        &[
            "profiles[0]: FilterPlugin \"Nope\" does not exist",
            "profiles[0]: plugin \"NodeName\" does not extend ScorePlugin plugin",
            "profiles[0].plugins.reserve.enabled[0]: Invalid value: \"EBSLimits\": was invalid in version \
             \"kubescheduler.config.k8s.io/v1\" (KubeSchedulerConfiguration is version \"kubescheduler.config.k8s.io/v1\")",
            "unknown field \"profiles[0].plugins.sort\"",
            "profiles[0]: only one queue sort plugin required for profile with scheduler name \"default-scheduler\", \
             but got 0",
            "profiles[0]: at least one bind plugin is needed for profile with scheduler name \"default-scheduler\"",
        ],
    );
}

#[test]
fn everything_that_is_wrong_with_what_is_said_to_plugins() {
    let check = |name: &str, given: Value, want: &[&str]| {
        let want: Vec<String> = want.iter().map(|w| format!("profiles[0].pluginConfig[0].args{w}")).collect();
        assert_eq!(args(name, given).unwrap_err(), want);
    };
    check(
        "NodeResourcesFit",
        json!({ "scoringStrategy": { "type": "Best", "resources": [{ "name": "cpu", "weight": 101 }] },
            "ignoredResourceGroups": ["a/b"] }),
        &[
            ".ignoredResourceGroups[0]: Invalid value: \"a/b\": resource group name can't contain '/'",
            ".scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]",
            ".scoringStrategy.type: Unsupported value: \"Best\": supported values: \"LeastAllocated\", \"MostAllocated\", \
             \"RequestedToCapacityRatio\"",
        ],
    );
    let shape = |shape: Value| {
        json!({ "scoringStrategy":
            { "type": "RequestedToCapacityRatio", "requestedToCapacityRatio": { "shape": shape } } })
    };
    let at = ".scoringStrategy.requestedToCapacityRatio.shape";
    check(
        "NodeResourcesFit",
        shape(json!([])),
        &[&format!("{at}: Required value: at least one point must be specified")],
    );
    check(
        "NodeResourcesFit",
        shape(json!([{ "utilization": 50, "score": 11 }, { "utilization": 50, "score": 0 }])),
        &[
            &format!("{at}[1].utilization: Invalid value: 50: values must be sorted in increasing order"),
            &format!("{at}[0].score: Invalid value: 11: not in valid range [0, 10]"),
        ],
    );
    check(
        "PodTopologySpread",
        json!({ "defaultConstraints": [{ "maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Maybe",
            "labelSelector": {} }] }),
        &[
            ".defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty",
            ".defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)",
            ".defaultConstraints[0].topologyKey: Required value: can not be empty",
            ".defaultConstraints[0].whenUnsatisfiable: Unsupported value: \"Maybe\": supported values: \"DoNotSchedule\", \
             \"ScheduleAnyway\"",
            ".defaultConstraints[0].labelSelector: Forbidden: constraint must not define a selector, as they deduced for \
             each pod",
        ],
    );
    check(
        "InterPodAffinity",
        json!({ "hardPodAffinityWeight": 101 }),
        &[".hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]"],
    );
    check(
        "VolumeBinding",
        json!({ "bindTimeoutSeconds": -1 }),
        &[".bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a negative value"],
    );
    check(
        "DynamicResources",
        json!({ "bindingTimeout": "10ms" }),
        &[".bindingTimeout: Invalid value: \"10ms\": must be at least 1 second"],
    );
    check(
        "DefaultPreemption",
        json!({ "minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0 }),
        &[
            ".minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as minCandidateNodesAbsolute",
            ".minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at the same time as minCandidateNodesPercentage",
        ],
    );
    check(
        "NodeResourcesBalancedAllocation",
        json!({ "resources": [{ "name": "cpu", "weight": 2 }, { "name": "cpu" }] }),
        &[".resources[0].weight: Invalid value: 2: must be 1", ".resources[1].name: Duplicate value: \"cpu\""],
    );
    check(
        "InterPodAffinity",
        json!({ "kind": "NodeAffinityArgs" }),
        &[": Invalid value: {\"kind\":\"NodeAffinityArgs\"}: has to match plugin args"],
    );
    check("Nope", json!({}), &[": there is no plugin \"Nope\""]);
    check(
        "InterPodAffinity",
        json!({ "hardPodAffinityWeight": "much" }),
        &[".hardPodAffinityWeight: Invalid value: \"much\": must be an integer"],
    );
    let unknown = args("InterPodAffinity", json!({ "more": 1 })).unwrap_err();
    assert_eq!(unknown, ["unknown field \"profiles[0].pluginConfig[0].args.more\""]);
}
