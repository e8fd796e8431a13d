//! Pods that admission refuses each time.

use super::*;
use crate::conformance::Cluster;

/// What is wrong with a namespace or a template, and the end of what is said of it.
struct Cause {
    name: &'static str,
    object: Option<(&'static str, Value)>,
    template: Value,
    said: &'static str,
}

fn causes() -> Vec<Cause> {
    let limits = json!({"limits": [{"type": "Container", "max": {"cpu": "1"}}]});
    let two = json!({"containers": [{"name": "c", "image": "c:1", "resources": {"limits": {"cpu": "2"}}}]});
    vec![
        Cause {
            name: "account",
            object: None,
            template: json!({"serviceAccountName": "none"}),
            said: "is forbidden: error looking up service account default/none: serviceaccount \"none\" not found",
        },
        Cause {
            name: "priority",
            object: None,
            template: json!({"priorityClassName": "none"}),
            said: "is forbidden: no PriorityClass with name none was found",
        },
        Cause {
            name: "runtime",
            object: None,
            template: json!({"runtimeClassName": "none"}),
            said: "pod rejected: RuntimeClass \"none\" not found",
        },
        Cause {
            name: "limits",
            object: Some(("limitranges", json!({"metadata": {"name": "l"}, "spec": limits}))),
            template: two,
            said: "is forbidden: maximum cpu usage per Container is 1, but limit is 2",
        },
        Cause {
            name: "quota",
            object: Some(("resourcequotas", json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}))),
            template: json!({}),
            said: "is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0",
        },
    ]
}

/// The first twenty minutes, and an hour of the time after that.
async fn backs_off(cluster: &Cluster, what: &str, before: &Requests) {
    tokio::time::sleep(Duration::from_secs(1200)).await;
    let tried = Requests::since(cluster, before).await.of("CREATE pods");
    assert!((10..TRIES).contains(&tried), "{what}: {tried}");
    is_almost_quiet(cluster, &["CREATE pods"]).await;
}

#[tokio::test(start_paused = true)]
async fn each_refusal_is_told_with_its_cause() {
    for Cause { name, object, template, said } in causes() {
        let cluster = Cluster::new().await;
        if let Some((plural, object)) = object {
            cluster.made(&format!("{NAMESPACE}/{plural}"), &object).await;
        }
        if name == "quota" {
            let counted = |q: &Value| q["status"]["used"]["pods"] == "0";
            cluster.await_object(&format!("{NAMESPACE}/resourcequotas/q"), counted).await;
        }
        let before = Requests::so_far(&cluster).await;
        let uri = format!("{APPS}/replicasets");
        let spec = json!({"replicas": 500, "template": {"spec": template}});
        made(&cluster, &uri, "r", &json!({"app": "r"}), &spec).await;
        let told = told(&cluster, "r", "FailedCreate").await;
        assert!(told.starts_with("Error creating: pods \"r-") && told.contains(said), "{name}: {told}");
        let failure = condition(&cluster, &format!("{uri}/r"), "ReplicaFailure").await;
        assert_eq!(failure["reason"], "FailedCreate");
        assert!(failure["message"].as_str().unwrap().contains(said), "{failure}");
        backs_off(&cluster, name, &before).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_backs_off_and_comes_back_when_the_cause_is_gone() {
    let account = json!({"serviceAccountName": "none"});
    let with = |more: Value| {
        let mut spec = json!({"template": {"spec": account}});
        json_patch::merge(&mut spec, &more);
        spec
    };
    for (uri, name, spec, failure) in [
        (format!("{APPS}/deployments"), "deployment", with(json!({})), true),
        (format!("{APPS}/daemonsets"), "daemon", with(json!({})), false),
        (format!("{APPS}/statefulsets"), "stateful", with(json!({"serviceName": "s"})), false),
        (
            format!("{BATCH}/jobs"),
            "job",
            with(json!({"manualSelector": true, "template": {"spec": {"restartPolicy": "Never"}}})),
            false,
        ),
    ] {
        let cluster = Cluster::new().await;
        node(&cluster, "n").await;
        let before = Requests::so_far(&cluster).await;
        made(&cluster, &uri, name, &json!({"app": name}), &spec).await;
        let mut teller = name.to_owned();
        if failure {
            let why = condition(&cluster, &format!("{uri}/{name}"), "ReplicaFailure").await;
            assert!(why["message"].as_str().unwrap().ends_with("serviceaccount \"none\" not found"), "{why}");
            teller =
                cluster.items(&format!("{APPS}/replicasets")).await[0]["metadata"]["name"].as_str().unwrap().into();
        }
        let why = told(&cluster, &teller, "FailedCreate").await;
        assert!(why.contains("serviceaccount \"none\" not found"), "{why}");
        backs_off(&cluster, name, &before).await;
        cluster.made(&format!("{NAMESPACE}/serviceaccounts"), &json!({"metadata": {"name": "none"}})).await;
        // By now the node was silent for long: nobody puts anything more on it before it is heard of.
        let ready = json!([{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        cluster.patched("/api/v1/nodes/n/status", MERGE, &json!({"status": {"conditions": ready}})).await;
        tokio::time::sleep(Duration::from_secs(1000)).await;
        wait_for(name, async || (cluster.items(PODS).await.len() == 1).then_some(())).await;
        if failure {
            let conditions = |d: &Value| !d["status"]["conditions"].to_string().contains("ReplicaFailure");
            cluster.await_object(&format!("{uri}/{name}"), conditions).await;
        }
        is_quiet(&cluster).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_says_that_it_may_have_no_set() {
    let cluster = Cluster::new().await;
    let quotas = format!("{NAMESPACE}/resourcequotas");
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/replicasets.apps": "0"}}});
    cluster.made(&quotas, &quota).await;
    let counted = |q: &Value| q["status"]["used"]["count/replicasets.apps"] == "0";
    cluster.await_object(&format!("{quotas}/q"), counted).await;
    let before = Requests::so_far(&cluster).await;
    let uri = format!("{APPS}/deployments");
    made(&cluster, &uri, "d", &json!({"app": "d"}), &json!({"replicas": 3})).await;
    let refused = |d: &Value| d["status"]["conditions"].to_string().contains("ReplicaSetCreateError");
    let status = cluster.await_object(&format!("{uri}/d"), refused).await["status"].clone();
    let conditions = status["conditions"].as_array().unwrap();
    let why = conditions.iter().find(|c| c["type"] == "Progressing").unwrap();
    assert_eq!((&why["status"], &status["observedGeneration"]), (&json!("False"), &json!(1)), "{status}");
    let said = "exceeded quota: q, requested: count/replicasets.apps=1, used: count/replicasets.apps=0, limited: \
                count/replicasets.apps=0";
    assert!(why["message"].as_str().unwrap().ends_with(said), "{why}");
    assert!(told(&cluster, "d", "ReplicaSetCreateError").await.ends_with(said));
    tokio::time::sleep(HOUR).await;
    let tried = Requests::since(&cluster, &before).await.of("CREATE replicasets");
    assert!((10..TRIES).contains(&tried), "{tried}");
    // Every ten minutes it looks whether it is late, and tries once more.
    let hour = an_hour(&cluster).await;
    let others = hour.writes().into_keys().all(|what| what == "CREATE replicasets" || what.ends_with(" events"));
    assert!(others && hour.of("CREATE replicasets") <= TRIES_AN_HOUR + 6, "{:?}", hour.0);
    cluster.deleted(&format!("{quotas}/q"), &json!({})).await;
    tokio::time::sleep(Duration::from_secs(1000)).await;
    cluster.await_object(&format!("{uri}/d"), |d| d["status"]["unavailableReplicas"] == 3 && !refused(d)).await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_of_restricted_pods_says_what_it_misses() {
    let cluster = Cluster::new().await;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    cluster.patched("/api/v1/namespaces/default", MERGE, &labels).await;
    let before = Requests::so_far(&cluster).await;
    let uri = format!("{APPS}/deployments");
    // It is warned of, not refused.
    made(&cluster, &uri, "d", &json!({"app": "d"}), &json!({"replicas": 3})).await;
    let why = condition(&cluster, &format!("{uri}/d"), "ReplicaFailure").await["message"].as_str().unwrap().to_owned();
    for said in
        ["violates PodSecurity \"restricted:latest\"", "allowPrivilegeEscalation != false", "runAsNonRoot != true"]
    {
        assert!(why.contains(said), "{why}");
    }
    backs_off(&cluster, "restricted", &before).await;
}
