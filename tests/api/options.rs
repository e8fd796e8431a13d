//! What the options of lists, watches, writes and deletes mean together, row by row as upstream validates and serves them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::Server;
use crate::collections::{MAPS, events, names, put_map};
use crate::subresources::{PODS, pod, with_account};

/// `code message`; nothing of a message that succeeds.
async fn check(server: &Server, query: &str, expect: &str) {
    let response = server.respond("GET", &format!("{MAPS}?{query}"), &[], "").await;
    let code = response.status().as_u16();
    if code == 200 {
        assert_eq!("200", expect, "{query}");
        return;
    }
    let answer = server.get(&format!("{MAPS}?{query}")).await;
    assert_eq!(format!("{code} {}", answer.message()), expect, "{query}");
}

fn token(rv: i64, start: &str) -> String {
    let token = json!({"v": "meta.k8s.io/v1", "rv": rv, "start": start});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

const OPTIONS: &str = "422 ListOptions.meta.k8s.io \"\" is invalid: ";
const NO_VERSION: &str =
    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
const NO_CONTINUE: &str =
    "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided";
const NOT_FOR_LIST: &str = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list";
const ONLY_INITIAL: &str = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless \
    sendInitialEvents is provided";
const NOT_OLDER: &str =
    "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";

/// `ValidateListOptions` for each combination of version, match, limit and token.
#[tokio::test]
async fn lists_take_the_combinations_that_upstream_takes() {
    let server = Server::new().await;
    put_map(&server, "a", &json!({})).await;
    put_map(&server, "b", &json!({})).await;
    let now = server.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let next = server.get(&format!("{MAPS}?limit=1")).await.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    for version in ["", "0", &now] {
        for matching in ["", "Exact", "NotOlderThan", "Other"] {
            for limit in ["", "1"] {
                for continues in ["", &next] {
                    let mut errors = Vec::new();
                    if !matching.is_empty() {
                        errors.extend(version.is_empty().then(|| NO_VERSION.to_owned()));
                        errors.extend((!continues.is_empty()).then(|| NO_CONTINUE.to_owned()));
                        errors.extend((matching == "Other").then(|| {
                            "resourceVersionMatch: Unsupported value: \"Other\": supported values: \"Exact\", \
                             \"NotOlderThan\", \"\""
                                .to_owned()
                        }));
                        errors.extend((matching == "Exact" && version == "0").then(|| {
                            "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for \
                             resourceVersion \"0\""
                                .to_owned()
                        }));
                    }
                    let expect = match errors.as_slice() {
                        [] if !continues.is_empty() && version == now => {
                            "400 specifying resource version is not allowed when using continue".into()
                        }
                        [] => "200".into(),
                        [one] => format!("{OPTIONS}{one}"),
                        many => format!("{OPTIONS}[{}]", many.join(", ")),
                    };
                    let query = format!(
                        "resourceVersion={version}&resourceVersionMatch={matching}&limit={limit}&continue={continues}"
                    );
                    let query = query.replace("&limit=&", "&");
                    check(&server, &query, &expect).await;
                }
            }
        }
    }
    check(&server, "sendInitialEvents=true", &format!("{OPTIONS}{NOT_FOR_LIST}")).await;
    check(
        &server,
        "sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
        &format!("{OPTIONS}[{NO_VERSION}, {NOT_FOR_LIST}]"),
    )
    .await;
}

#[tokio::test]
async fn watches_take_the_combinations_that_upstream_takes() {
    let server = Server::new().await;
    let unsupported = |given: &str| {
        format!("resourceVersionMatch: Unsupported value: \"{given}\": supported values: \"NotOlderThan\"")
    };
    let initial = |rest: &str| format!("watch=1&sendInitialEvents=true{rest}");
    for (query, expect) in [
        ("watch=1".to_owned(), "200".to_owned()),
        ("watch=1&resourceVersion=0".into(), "200".into()),
        ("watch=1&resourceVersion=1".into(), "200".into()),
        (initial("&resourceVersionMatch=NotOlderThan"), "200".into()),
        (initial("&resourceVersionMatch=NotOlderThan&resourceVersion=1&allowWatchBookmarks=1"), "200".into()),
        ("watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan".into(), "200".into()),
        (initial(""), format!("{OPTIONS}{NOT_OLDER}")),
        (initial("&resourceVersionMatch=Exact"), format!("{OPTIONS}[{NOT_OLDER}, {}]", unsupported("Exact"))),
        ("watch=1&resourceVersionMatch=NotOlderThan".into(), format!("{OPTIONS}{ONLY_INITIAL}")),
        (
            "watch=1&resourceVersionMatch=Exact&resourceVersion=1".into(),
            format!("{OPTIONS}[{ONLY_INITIAL}, {}]", unsupported("Exact")),
        ),
        (initial("&resourceVersionMatch=NotOlderThan&continue=x"), format!("{OPTIONS}{NO_CONTINUE}")),
        // A watch from nowhere begins with what is there, and a match goes with that.
        ("watch=1&continue=x".into(), format!("{OPTIONS}{NO_CONTINUE}")),
        ("watch=1&continue=x&resourceVersion=1".into(), "200".into()),
        (
            "watch=1&resourceVersion=abc".into(),
            "500 resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": invalid syntax".into(),
        ),
        ("watch=1&timeoutSeconds=x".into(), "400 strconv.ParseInt: parsing \"x\": invalid syntax".into()),
    ] {
        check(&server, &query, &expect).await;
    }
}

#[tokio::test]
async fn what_is_no_option_is_refused_in_upstreams_words() {
    let server = Server::new().await;
    put_map(&server, "a", &json!({})).await;
    let key = "400 invalid continue token: continue key is not valid: ";
    let version = URL_SAFE_NO_PAD.encode(json!({"v": "v2", "rv": 1, "start": "a"}).to_string());
    for (query, expect) in [
        (
            "resourceVersion=abc".to_owned(),
            "400 invalid resource version: resourceVersion: Invalid value: \"abc\": strconv.ParseUint: parsing \"abc\": \
             invalid syntax"
                .to_owned(),
        ),
        (
            "resourceVersion=99999999999999999999".into(),
            "400 invalid resource version: resourceVersion: Invalid value: \"99999999999999999999\": strconv.ParseUint: \
             parsing \"99999999999999999999\": value out of range"
                .into(),
        ),
        ("continue=a!b".into(), format!("{key}illegal base64 data at input byte 1")),
        ("continue=eHg".into(), format!("{key}invalid character 'x' looking for beginning of value")),
        (format!("continue={version}"), format!("{key}server does not recognize this encoded version v2")),
        (
            format!("continue={}", token(0, "default/a")),
            format!("{key}incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
        ),
        (format!("continue={}", token(1, "")), format!("{key}encoded start key empty (version meta.k8s.io/v1)")),
        (format!("continue={}", token(1, "../a")), format!("{key}../a")),
        (format!("continue={}&resourceVersion=1", token(-1, "default/a")), {
            "400 specifying resource version is not allowed when using continue".into()
        }),
        ("limit=x".into(), "400 strconv.ParseInt: parsing \"x\": invalid syntax".into()),
        (
            "resourceVersion=99999".into(),
            format!("504 Timeout: Too large resource version: 99999, current: {}", revision(&server).await),
        ),
        ("fieldSelector=a".into(), "400 invalid selector: 'a'; can't understand 'a'".into()),
        (
            "fieldSelector=spec.x%3D1".into(),
            "400 \"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"".into(),
        ),
    ] {
        check(&server, &query, &expect).await;
    }
    let newer = server.get(&format!("{MAPS}/a?resourceVersion=99999")).await;
    assert_eq!((newer.code, &newer.json()["details"]["causes"][0]["reason"]), (504, &json!("ResourceVersionTooLarge")));
    for fine in ["0", "1", ""] {
        assert_eq!(server.get(&format!("{MAPS}/a?resourceVersion={fine}")).await.code, 200);
    }
}

async fn revision(server: &Server) -> String {
    server.get(MAPS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Which state each kind of list shows.
#[tokio::test]
async fn a_list_shows_the_state_that_was_asked_for() {
    let server = Server::new().await;
    put_map(&server, "a", &json!({"x": "1"})).await;
    put_map(&server, "b", &json!({"x": "1"})).await;
    let then = revision(&server).await;
    put_map(&server, "c", &json!({"x": "1"})).await;
    let check = async |query: &str, expect: &[&str], remaining: Value| {
        let list = server.get(&format!("{MAPS}?{}", query.replace("THEN", &then))).await.json();
        assert_eq!((names(&list), &list["metadata"]["remainingItemCount"]), (expect.to_vec(), &remaining), "{query}");
    };
    check("", &["a", "b", "c"], Value::Null).await;
    check("resourceVersion=THEN", &["a", "b", "c"], Value::Null).await;
    check("resourceVersion=THEN&resourceVersionMatch=NotOlderThan", &["a", "b", "c"], Value::Null).await;
    check("resourceVersion=THEN&resourceVersionMatch=Exact", &["a", "b"], Value::Null).await;
    check("limit=1", &["a"], json!(2)).await;
    // A page of a revision is of just that revision, without anyone saying so.
    check("limit=1&resourceVersion=THEN", &["a"], json!(1)).await;
    check("limit=1&resourceVersion=THEN&resourceVersionMatch=Exact", &["a"], json!(1)).await;
    check("limit=1&resourceVersion=THEN&resourceVersionMatch=NotOlderThan", &["a"], json!(2)).await;
    // Any revision comes whole.
    check("limit=1&resourceVersion=0", &["a", "b", "c"], Value::Null).await;
    check("limit=3", &["a", "b", "c"], Value::Null).await;
    // What is left is not counted where there is a selector.
    check("limit=1&labelSelector=x", &["a"], Value::Null).await;
    check("fieldSelector=metadata.name%3Db", &["b"], Value::Null).await;
    check("fieldSelector=metadata.name!%3Db,metadata.namespace%3Ddefault", &["a", "c"], Value::Null).await;
    for (selector, expect) in [
        ("x", &["a", "b", "c"][..]),
        ("!x", &[]),
        ("x+in+(1,2)", &["a", "b", "c"]),
        ("x+notin+(1)", &[]),
        ("x!%3D1", &[]),
        ("x%3D%3D1,!y", &["a", "b", "c"]),
        ("x%3E0", &["a", "b", "c"]),
    ] {
        check(&format!("labelSelector={selector}"), expect, Value::Null).await;
    }
}

/// `type name`, and whether a bookmark closes the initial events.
fn shown(events: &[Value]) -> Vec<String> {
    let one = |e: &Value| {
        let meta = &e["object"]["metadata"];
        let end = meta["annotations"]["k8s.io/initial-events-end"] == "true";
        let name = meta["name"].as_str().unwrap_or(if end { "end" } else { "" });
        format!("{} {name}", e["type"].as_str().unwrap())
    };
    events.iter().map(one).collect()
}

#[tokio::test]
async fn a_watch_begins_where_it_is_told() {
    let server = Server::new().await;
    let before = revision(&server).await;
    put_map(&server, "a", &json!({})).await;
    let then = revision(&server).await;
    put_map(&server, "b", &json!({})).await;
    let check = async |query: &str, expect: &[&str]| {
        let query = query.replace("THEN", &then).replace("BEFORE", &before);
        let found = events(&server, &format!("{MAPS}?watch=1{query}"), expect.len()).await;
        assert_eq!(shown(&found), expect, "{query}");
    };
    check("", &["ADDED a", "ADDED b"]).await;
    check("&resourceVersion=0", &["ADDED a", "ADDED b"]).await;
    check("&resourceVersion=BEFORE", &["ADDED a", "ADDED b"]).await;
    check("&resourceVersion=THEN", &["ADDED b"]).await;
    // Who takes bookmarks is told where what was there ends, by every watch that begins with it.
    for query in ["&allowWatchBookmarks=true", "&allowWatchBookmarks=true&resourceVersion=0"] {
        check(query, &["ADDED a", "ADDED b", "BOOKMARK end"]).await;
    }
    let initial = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    check(initial, &["ADDED a", "ADDED b", "BOOKMARK end"]).await;
    check(&format!("{initial}&resourceVersion=THEN"), &["ADDED a", "ADDED b", "BOOKMARK end"]).await;
    check(&format!("{initial}&fieldSelector=metadata.name%3Db"), &["ADDED b", "BOOKMARK end"]).await;

    let far = events(&server, &format!("{MAPS}?watch=1{initial}&resourceVersion=99999"), 1).await.remove(0);
    assert_eq!((&far["type"], &far["object"]["code"]), (&json!("ERROR"), &json!(504)));
    assert_eq!(far["object"]["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn the_older_paths_of_watches_still_lead_there() {
    let server = Server::new().await;
    put_map(&server, "a", &json!({})).await;
    put_map(&server, "b", &json!({})).await;
    let at = |rest: &str| format!("/api/v1/watch/{rest}");
    for (path, expect) in [
        ("namespaces/default/configmaps", &["ADDED a", "ADDED b"][..]),
        ("configmaps", &["ADDED a", "ADDED b"]),
        ("namespaces/default/configmaps/b", &["ADDED b"]),
    ] {
        assert_eq!(shown(&events(&server, &at(path), expect.len()).await), expect, "{path}");
    }
    assert_eq!(server.post(&at("namespaces/default/configmaps"), &json!({})).await.code, 405);
    assert_eq!(server.get(&at("things")).await.code, 404);
}

#[tokio::test]
async fn fields_move_objects_in_and_out_of_a_watch() {
    let server = with_account().await;
    assert_eq!(server.post(PODS, &pod("p")).await.code, 201);
    let from = server.get(PODS).await.json()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for phase in ["Running", "Succeeded"] {
        let status = json!({"status": {"phase": phase}});
        let uri = format!("{PODS}/p/status");
        assert_eq!(server.patch(&uri, "application/merge-patch+json", &status).await.code, 200);
    }
    assert_eq!(server.delete(&format!("{PODS}/p"), &json!({})).await.code, 200);
    let uri = |selector: &str| format!("{PODS}?watch=1&resourceVersion={from}&fieldSelector={selector}");
    let running = events(&server, &uri("status.phase%3DRunning"), 2).await;
    assert_eq!(shown(&running), ["ADDED p", "DELETED p"]);
    assert_eq!(running[1]["object"]["status"]["phase"], "Running", "the last state that was selected");
    let ended = events(&server, &uri("status.phase!%3DRunning"), 3).await;
    assert_eq!(shown(&ended), ["DELETED p", "ADDED p", "DELETED p"]);
}

/// Upstream's field labels: what a kind knows, what it says of others, and what an absent field is.
#[tokio::test]
async fn each_kind_knows_its_fields() {
    let server = with_account().await;
    assert_eq!(server.post(PODS, &pod("p")).await.code, 201);
    let event = json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e"}, "reason": "R", "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "source": {"component": "me"},
        "reportingComponent": "you"});
    let made = server.post("/api/v1/namespaces/default/events", &event).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let known = |field: &str| {
        format!("400 {field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
    };
    for (path, selector, expect) in [
        (PODS, "spec.hostNetwork=false", "1".to_owned()),
        (PODS, "spec.hostNetwork=true", "0".into()),
        (PODS, "spec.nodeName=", "1".into()),
        (PODS, "spec.host=", "1".into()),
        (PODS, "spec.restartPolicy=Always,spec.schedulerName=default-scheduler", "1".into()),
        (PODS, "spec.serviceAccountName=default,status.phase!=Running", "1".into()),
        (PODS, "status.podIP=,status.podIPs=,status.nominatedNodeName=", "1".into()),
        (PODS, "spec.priority=0", "400 field label not supported: spec.priority".into()),
        ("/api/v1/namespaces", "status.phase=Active", "1".into()),
        ("/api/v1/namespaces", "metadata.namespace=x", "400 field label not supported: metadata.namespace".into()),
        ("/api/v1/nodes", "spec.unschedulable=false", "0".into()),
        ("/api/v1/nodes", "metadata.namespace=", "400 field label not supported: metadata.namespace".into()),
        ("/api/v1/persistentvolumes", "metadata.namespace=", "0".into()),
        ("/api/v1/persistentvolumes", "spec.x=", known("spec.x")),
        ("/api/v1/secrets", "type=Opaque", "0".into()),
        ("/api/v1/services", "spec.clusterIP=None,spec.type=ClusterIP", "0".into()),
        ("/api/v1/replicationcontrollers", "status.replicas=0", "0".into()),
        ("/apis/apps/v1/replicasets", "status.replicas=0", "0".into()),
        ("/apis/apps/v1/deployments", "spec.replicas=1", known("spec.replicas")),
        ("/apis/batch/v1/jobs", "status.successful=1", "0".into()),
        ("/apis/batch/v1/jobs", "spec.x=1", "400 field label \"spec.x\" not supported for batchv1.Job".into()),
        ("/apis/batch/v1/cronjobs", "spec.x=1", known("spec.x")),
        ("/apis/certificates.k8s.io/v1/certificatesigningrequests", "spec.signerName=a", "0".into()),
        ("/api/v1/events", "involvedObject.kind=Pod,involvedObject.name=p,source=me,type=Normal,reason=R", "1".into()),
        ("/api/v1/events", "reportingComponent=you", "1".into()),
        ("/api/v1/events", "regarding.kind=Pod", "400 field label not supported: regarding.kind".into()),
        (events, "regarding.kind=Pod,regarding.name=p,regarding.namespace=default,reason=R,type=Normal", "1".into()),
        (events, "reportingController=you", "1".into()),
        (events, "reportingController=me", "0".into()),
        (events, "involvedObject.kind=Pod", "400 field label not supported: involvedObject.kind".into()),
    ] {
        let found = server.get(&format!("{path}?fieldSelector={}", selector.replace('=', "%3D"))).await;
        let said = match found.code {
            200 => found.json()["items"].as_array().unwrap().len().to_string(),
            code => format!("{code} {}", found.message()),
        };
        assert_eq!(said, expect, "{path} {selector}");
    }
}

/// A dry run of each verb answers as the verb would and leaves everything as it is.
#[tokio::test]
async fn every_verb_can_be_tried() {
    let server = Server::new().await;
    put_map(&server, "a", &json!({"x": "y"})).await;
    let before = server.get(MAPS).await.text;
    let map =
        |name: &str| json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"k": "v"}});
    let at = format!("{MAPS}/a?dryRun=All");
    let merge = "application/merge-patch+json";
    let created = server.post(&format!("{MAPS}?dryRun=All"), &map("b")).await;
    assert_eq!((created.code, &created.json()["metadata"]["resourceVersion"]), (201, &Value::Null));
    assert_eq!(server.post(&format!("{MAPS}?dryRun=All"), &map("a")).await.code, 409);
    let updated = server.put(&at, &map("a")).await;
    assert_eq!((updated.code, &updated.json()["data"]), (200, &json!({"k": "v"})));
    assert_eq!(server.patch(&at, merge, &json!({"data": {"k": "v"}})).await.json()["data"], json!({"k": "v"}));
    let apply = [("content-type", "application/apply-patch+yaml")];
    let applied = format!("{MAPS}/c?dryRun=All&fieldManager=me");
    assert_eq!(server.ask("PATCH", &applied, &apply, map("c").to_string()).await.code, 201);
    assert_eq!(server.ask("DELETE", &at, &[], "").await.json()["status"], "Success");
    assert_eq!(names(&server.ask("DELETE", &format!("{MAPS}?dryRun=All"), &[], "").await.json()), ["a"]);
    assert_eq!(server.get(MAPS).await.text, before);
    for (method, kind) in [("POST", "CreateOptions"), ("PUT", "UpdateOptions"), ("PATCH", "PatchOptions")] {
        let uri = if method == "POST" { MAPS.to_owned() } else { format!("{MAPS}/a") };
        let content = if method == "PATCH" { merge } else { "application/json" };
        let refused =
            server.ask(method, &format!("{uri}?dryRun=No"), &[("content-type", content)], map("a").to_string()).await;
        let expect =
            format!("{kind}.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"No\": supported values: \"All\"");
        assert_eq!((refused.code, refused.message()), (422, expect));
    }
}

#[tokio::test]
async fn deletes_say_what_they_expect_and_what_becomes_of_dependents() {
    let server = Server::new().await;
    let check = async |options: Value, code: u16, expect: &str| {
        let refused = server.delete(&format!("{MAPS}/a"), &options).await;
        assert_eq!((refused.code, refused.message().as_str()), (code, expect), "{options}");
    };
    let made = put_map(&server, "a", &json!({})).await.json();
    let (uid, revision) =
        (made["metadata"]["uid"].as_str().unwrap(), made["metadata"]["resourceVersion"].as_str().unwrap());
    check(
        json!({"preconditions": {"uid": "x"}}),
        409,
        &format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (x) does not match the UID in \
             record ({uid}). The object might have been deleted and then recreated"
        ),
    )
    .await;
    check(
        json!({"preconditions": {"resourceVersion": "1"}}),
        409,
        &format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the ResourceVersion in the precondition (1) does not match \
             the ResourceVersion in record ({revision}). The object might have been modified"
        ),
    )
    .await;
    let options = "DeleteOptions.meta.k8s.io \"\" is invalid: ";
    check(
        json!({"propagationPolicy": "Foreground", "orphanDependents": true}),
        422,
        &format!(
            "{options}propagationPolicy: Invalid value: \"Foreground\": orphanDependents and deletionPropagation cannot be \
             both set"
        ),
    )
    .await;
    check(
        json!({"propagationPolicy": "No"}),
        422,
        &format!(
            "{options}propagationPolicy: Unsupported value: \"No\": supported values: \"Foreground\", \"Background\", \
             \"Orphan\", \"nil\""
        ),
    )
    .await;
    for (name, given, code, finalizers) in [
        ("f", json!({"propagationPolicy": "Foreground"}), 202, json!(["foregroundDeletion"])),
        ("o", json!({"propagationPolicy": "Orphan"}), 200, json!(["orphan"])),
        ("od", json!({"orphanDependents": true}), 200, json!(["orphan"])),
        ("b", json!({"propagationPolicy": "Background"}), 200, Value::Null),
    ] {
        put_map(&server, name, &json!({})).await;
        let deleted = server.delete(&format!("{MAPS}/{name}"), &given).await;
        assert_eq!((deleted.code, &deleted.json()["metadata"]["finalizers"]), (code, &finalizers), "{given}");
    }
    let exact = json!({"preconditions": {"uid": uid, "resourceVersion": revision}});
    assert_eq!(server.delete(&format!("{MAPS}/a"), &exact).await.code, 200);
}

/// Rows and metadata, of one object, of a list and of a watch.
#[tokio::test]
async fn objects_come_as_rows_or_as_metadata() {
    let server = Server::new().await;
    put_map(&server, "a", &json!({})).await;
    let accept = |kind: &str| format!("application/json;as={kind};v=v1;g=meta.k8s.io");
    for (uri, kind, expect) in [
        (format!("{MAPS}/a"), "PartialObjectMetadata", "PartialObjectMetadata"),
        (MAPS.to_owned(), "PartialObjectMetadataList", "PartialObjectMetadataList"),
        (format!("{MAPS}/a"), "Table", "Table"),
        (MAPS.to_owned(), "Table", "Table"),
    ] {
        let answer = server.ask("GET", &uri, &[("accept", &accept(kind))], "").await;
        assert_eq!((&answer.json()["kind"], &answer.json()["apiVersion"]), (&json!(expect), &json!("meta.k8s.io/v1")));
        assert!(!answer.text.contains("\"data\""), "{}", answer.text);
    }
    let response = server
        .respond(
            "GET",
            &format!("{MAPS}?watch=1&timeoutSeconds=1"),
            &[("accept", &accept("PartialObjectMetadata"))],
            "",
        )
        .await;
    assert_eq!(response.headers()["content-type"], "application/json");
    let none = server.ask("GET", MAPS, &[("accept", "application/json;as=Other;v=v1;g=meta.k8s.io")], "").await;
    assert_eq!(none.code, 406);
    let odd = server.ask("GET", &format!("{MAPS}?includeObject=All"), &[("accept", &accept("Table"))], "").await;
    assert_eq!(odd.code, 400, "{}", odd.text);
}

/// `timeoutSeconds` ends a watch, without an error and without anything having happened.
#[tokio::test(start_paused = true)]
async fn a_watch_ends_in_its_time() {
    use http_body_util::BodyExt as _;
    let server = Server::new().await;
    let response = server.respond("GET", &format!("{MAPS}?watch=1&timeoutSeconds=5&resourceVersion=1"), &[], "").await;
    let started = skiff::clock::instant();
    let all = response.into_body().collect().await.unwrap().to_bytes();
    assert!(all.is_empty(), "{all:?}");
    assert_eq!((skiff::clock::instant() - started).as_secs(), 5);

    // Who takes bookmarks is told just before where to go on.
    let uri = format!("{MAPS}?watch=1&timeoutSeconds=90&resourceVersion=1&allowWatchBookmarks=1");
    let response = server.respond("GET", &uri, &[], "").await;
    let all = response.into_body().collect().await.unwrap().to_bytes();
    let lines: Vec<Value> = all.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(shown(&lines), ["BOOKMARK ", "BOOKMARK "], "after a minute, and before the end");
}
