//! Stories of several writers, on real kinds.

use serde_json::{Value, json};

use super::owners::{Operation, Owner, Owners};
use super::*;
use crate::api::schema;

/// One version, `v1` of whatever kind, and a second one in which nothing is called the same.
struct One(&'static schema::Type);

impl Versions for One {
    fn place(&self, api_version: &str) -> Option<Place<'_>> {
        (api_version == self.version()).then(|| Place::from(self.0))
    }

    fn convert(&self, object: &Value, _: &str, _: &str) -> Value {
        object.clone()
    }
}

impl One {
    fn version(&self) -> String {
        let (group, version, _) = self.0.gvk.expect("a whole object");
        if group.is_empty() { version.into() } else { format!("{group}/{version}") }
    }
}

/// An object and its owners, and what is done to them.
struct Story {
    kind: One,
    live: Value,
    owners: Owners,
    second: u8,
    resets: Set,
}

impl Story {
    fn of(kind: &'static str) -> Self {
        let kind = One(schema::named(kind).expect("a kind of the table"));
        Self { kind, live: json!({}), owners: Owners::default(), second: 0, resets: Set::default() }
    }

    fn write<T>(&mut self, manager: &str, act: impl FnOnce(&Writer<'_>, &Value, Owners) -> T) -> T {
        let now = format!("2026-01-01T00:00:{:02}Z", self.second);
        self.second += 1;
        let (version, resets) = (self.kind.version(), self.resets.clone());
        let writer = Writer {
            manager,
            api_version: &version,
            subresource: "",
            now: &now,
            resets: &resets,
            only: &[],
            versions: &self.kind,
        };
        act(&writer, &self.live, self.owners.clone())
    }

    fn update(&mut self, manager: &str, new: Value) -> &mut Self {
        self.owners = self.write(manager, |w, live, owners| w.updated(live, &new, owners)).expect("a schema");
        self.live = new;
        self
    }

    fn try_apply(&mut self, manager: &str, document: &Value, force: bool) -> Result<&mut Self, Refusal> {
        let applied = self.write(manager, |w, live, owners| w.applied(live, document, owners, force))?;
        (self.live, self.owners) = (applied.object, applied.owners);
        Ok(self)
    }

    fn apply(&mut self, manager: &str, document: Value) -> &mut Self {
        self.try_apply(manager, &document, false).expect("no conflict")
    }

    fn refusal(&mut self, manager: &str, document: Value) -> String {
        match self.try_apply(manager, &document, false).err().expect("a refusal") {
            Refusal::Conflicts(conflicts) => conflicts.status().message().to_owned(),
            Refusal::Status(status) => status.message().to_owned(),
        }
    }

    /// What a manager owns, as JSON.
    fn owned(&self, manager: &str, operation: Operation) -> Value {
        let owner = self.owners.0.iter().find(|o| o.manager == manager && o.operation == operation);
        owner.map_or(Value::Null, |o| o.fields.to_json())
    }
}

const MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";
const SERVICE: &str = "io.k8s.api.core.v1.Service";

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "d"}}, "spec": spec})
}

/// What the API server of v1.36 writes for a Deployment that `kubectl create` sent, defaults filled in.
#[test]
fn a_create_owns_what_upstream_says_it_owns() {
    let mut story = Story::of(DEPLOYMENT);
    story.resets.insert_path(&["status"]);
    let object = deployment(json!({
        "replicas": 1, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
        "selector": {"matchLabels": {"app": "d"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {
            "containers": [{"name": "web", "image": "web:1", "imagePullPolicy": "IfNotPresent", "resources": {},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "1"}]}],
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
            "securityContext": {}, "terminationGracePeriodSeconds": 30}}}));
    story.update("kubectl-create", object);
    assert_eq!(
        story.owned("kubectl-create", Operation::Update),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {"k:{\"name\":\"web\"}": {
                            ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
                            "f:env": {".": {}, "k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}},
                            "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                                ".": {}, "f:containerPort": {}, "f:protocol": {}}},
                            "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {}}},
                        "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                        "f:terminationGracePeriodSeconds": {}}}}
        })
    );
}

#[test]
fn an_applier_owns_what_its_document_has_and_loses_what_it_drops() {
    let mut story = Story::of(MAP);
    story.apply("a", map(json!({"x": "1", "y": "1"})));
    assert_eq!(story.owned("a", Operation::Apply), json!({"f:data": {"f:x": {}, "f:y": {}}}));
    story.apply("a", map(json!({"x": "1"})));
    assert_eq!(story.live, map(json!({"x": "1"})));
    assert_eq!(story.owned("a", Operation::Apply), json!({"f:data": {"f:x": {}}}));
    story.apply("a", json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}));
    assert_eq!(story.live, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}));
    assert_eq!(story.owners, Owners::default());
}

#[test]
fn a_field_of_another_is_a_conflict_until_it_is_forced_or_shared() {
    let mut story = Story::of(MAP);
    story.apply("a", map(json!({"x": "1", "y": "1"})));
    // The same value is shared.
    story.apply("b", map(json!({"x": "1"})));
    let refused = story.refusal("b", map(json!({"x": "2"})));
    assert_eq!(refused, "Apply failed with 1 conflict: conflict with \"a\": .data.x");
    story.update("editor", map(json!({"x": "1", "y": "1", "z": "1", "w": "1"})));
    let refused = story.refusal("b", map(json!({"x": "2", "w": "2", "z": "2"})));
    assert_eq!(
        refused,
        "Apply failed with 3 conflicts: conflicts with \"a\":\n- .data.x\nconflicts with \"editor\" using v1:\n- .data.w\n- .data.z"
    );
    story.try_apply("b", &map(json!({"x": "2", "w": "2"})), true).expect("forced");
    assert_eq!(story.live["data"], json!({"x": "2", "y": "1", "z": "1", "w": "2"}));
    assert_eq!(story.owned("a", Operation::Apply), json!({"f:data": {"f:y": {}}}));
    assert_eq!(story.owned("editor", Operation::Update), json!({"f:data": {"f:z": {}}}));
    // What two appliers own stays when one drops it, and goes with the second.
    story.apply("a", map(json!({"x": "2", "y": "1"})));
    story.apply("b", map(json!({"w": "2"})));
    assert_eq!(story.live["data"]["x"], "2");
    story.apply("a", map(json!({"y": "1"})));
    assert_eq!(story.live["data"], json!({"y": "1", "z": "1", "w": "2"}));
}

#[test]
fn items_with_names_are_owned_one_by_one_and_keep_the_order_of_the_document() {
    let port = |name: &str, port: u16| json!({"name": name, "port": port});
    let service = |ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": ports}});
    let mut story = Story::of(SERVICE);
    story.apply("a", service(json!([port("a", 1), port("b", 2)])));
    story.apply("b", service(json!([port("c", 3)])));
    story.apply("a", service(json!([port("d", 4), port("b", 2), port("a", 1)])));
    let names: Vec<&str> =
        story.live["spec"]["ports"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["d", "b", "c", "a"], "what the document does not have stays behind what it followed");
    // A protocol that is not given is the default's: the same item.
    story.apply("a", service(json!([{"name": "b", "port": 2, "protocol": "TCP", "targetPort": 80}])));
    assert_eq!(
        story.live["spec"]["ports"],
        json!([{"name": "b", "port": 2, "protocol": "TCP", "targetPort": 80}, port("c", 3)])
    );
    assert_eq!(
        story.owned("b", Operation::Apply),
        json!({"f:spec": {"f:ports": {"k:{\"port\":3,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}}})
    );
}

#[test]
fn an_update_takes_what_it_changes_and_gives_up_what_it_removes() {
    let mut story = Story::of(MAP);
    story.update("a", map(json!({"x": "1", "y": "1"})));
    assert_eq!(story.owned("a", Operation::Update), json!({"f:data": {".": {}, "f:x": {}, "f:y": {}}}));
    let before = story.owners.clone();
    story.update("b", map(json!({"x": "1", "y": "1"})));
    assert_eq!(story.owners, before, "nothing changed");
    story.update("b", map(json!({"x": "2"})));
    assert_eq!(story.owned("a", Operation::Update), json!({"f:data": {}}));
    assert_eq!(story.owned("b", Operation::Update), json!({"f:data": {"f:x": {}}}));
    let times: Vec<&str> = story.owners.0.iter().map(|o| o.time.as_str()).collect();
    assert_eq!(times, ["2026-01-01T00:00:00Z", "2026-01-01T00:00:02Z"]);
}

#[test]
fn the_first_apply_leaves_what_was_there_to_nobody_in_particular() {
    let mut story = Story::of(MAP);
    story.live = map(json!({"x": "1"}));
    story.apply("a", map(json!({"y": "1"})));
    assert_eq!(story.owned("before-first-apply", Operation::Update), json!({"f:data": {".": {}, "f:x": {}}}));
    let refused = story.refusal("a", map(json!({"x": "2"})));
    assert_eq!(refused, "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .data.x");
}

#[test]
fn a_second_apply_of_the_same_changes_nothing() {
    let mut story = Story::of(DEPLOYMENT);
    let document = deployment(json!({"replicas": 2, "selector": {"matchLabels": {"app": "d"}}, "template": {
        "metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}}));
    story.apply("a", document.clone());
    let (live, owners) = (story.live.clone(), story.owners.clone());
    story.apply("a", document);
    assert_eq!((story.live, story.owners), (live, owners));
}

#[test]
fn what_a_write_resets_is_not_owned() {
    let mut story = Story::of(DEPLOYMENT);
    story.resets.insert_path(&["status"]);
    let mut document = deployment(json!({"replicas": 2}));
    document["status"] = json!({"replicas": 3, "conditions": [{"type": "Available", "status": "True"}]});
    story.apply("a", document.clone());
    story.update("b", document);
    assert_eq!(
        story.owned("a", Operation::Apply),
        json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:replicas": {}}})
    );
    assert_eq!(story.owned("b", Operation::Update), Value::Null);
}

#[test]
fn owners_of_a_version_that_is_gone_are_forgotten() {
    let mut story = Story::of(MAP);
    story.update("a", map(json!({"x": "1"})));
    story.owners.0[0].api_version = "v0".into();
    story.apply("b", map(json!({"x": "2"})));
    assert_eq!(story.owners.0.iter().map(|o| o.manager.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn documents_that_are_not_of_the_schema_are_refused_in_upstreams_words() {
    let mut story = Story::of(DEPLOYMENT);
    let container = |extra: Value| {
        let mut container = json!({"name": "web"});
        container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        deployment(json!({"template": {"spec": {"containers": [container]}}}))
    };
    let prefix = "failed to create typed patch object (/d; apps/v1, Kind=Deployment): ";
    for (document, why) in [
        (deployment(json!({"nope": 1})), ".spec.nope: field not declared in schema"),
        (
            deployment(json!({"replicas": "x"})),
            ".spec.replicas: expected numeric (int or float), got &value.valueUnstructured{Value:\"x\"}",
        ),
        (
            container(json!({"env": [{"name": "A", "value": 1}]})),
            ".spec.template.spec.containers[name=\"web\"].env[name=\"A\"].value: expected string, got \
             &value.valueUnstructured{Value:1}",
        ),
        (
            container(json!({"ports": [{"name": "a"}]})),
            ".spec.template.spec.containers[name=\"web\"].ports: element 0: associative list with keys has an element that \
             omits key field \"containerPort\" (and doesn't have default value)",
        ),
        (
            container(json!({"env": [{"name": "A"}, {"name": "A"}]})),
            ".spec.template.spec.containers[name=\"web\"].env: duplicate entries for key [name=\"A\"]",
        ),
        (
            deployment(json!({"selector": {"matchLabels": {"a": 1}}})),
            ".spec.selector.matchLabels.a: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            deployment(json!({"template": []})),
            ".spec.template: expected map, got &value.valueUnstructured{Value:[]interface {}[]}",
        ),
        (
            deployment(json!({"a": 1, "b": 1})),
            "errors:\n  .spec.a: field not declared in schema\n  .spec.b: field not declared in schema",
        ),
    ] {
        assert_eq!(story.refusal("a", document), format!("{prefix}{why}"));
    }
    // Quantities and ports take any scalar.
    story.apply("a", container(json!({"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}})));
}

#[test]
fn conflicts_are_a_status_with_a_cause_for_each() {
    let mut story = Story::of(MAP);
    story.update("a", map(json!({"x": "1"})));
    let refused = story.try_apply("b", &map(json!({"x": "2"})), false).err().unwrap();
    let Refusal::Conflicts(conflicts) = refused else { panic!("{refused:?}") };
    let status = conflicts.status();
    assert_eq!((status.code(), status.reason()), (409, "Conflict"));
    let cause = &status.details().unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".data.x"));
    assert_eq!(cause.message, "conflict with \"a\" using v1");
}

#[test]
fn client_side_apply_is_no_conflict_for_kubectl() {
    let annotated = |data: Value, last: &Value| {
        let mut object = map(data);
        object["metadata"]["annotations"] =
            json!({"kubectl.kubernetes.io/last-applied-configuration": format!("{last}\n")});
        object
    };
    let last = map(json!({"x": "1", "y": "1"}));
    let mut story = Story::of(MAP);
    story.update("kubectl-client-side-apply", annotated(json!({"x": "1", "y": "1"}), &last));
    story.update("editor", annotated(json!({"x": "1", "y": "2"}), &last));
    let known = last_applied::fields(Place::from(story.kind.0), &story.live);
    assert!(known.below("f:data").unwrap().has("f:x") && !known.below("f:data").unwrap().has("f:y"));
    let document = map(json!({"x": "2", "y": "3"}));
    let Err(Refusal::Conflicts(conflicts)) = story.try_apply("kubectl", &document, false).map(|_| ()) else {
        panic!("y was changed by another")
    };
    let left = conflicts.without(&known).expect("y");
    assert_eq!(left.status().message(), "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.y");

    let mut object = story.live.clone();
    last_applied::refresh(&mut object, &document);
    let annotation = &object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert_eq!(serde_json::from_str::<Value>(annotation.as_str().unwrap()).unwrap(), document);
    let mut plain = map(json!({}));
    last_applied::refresh(&mut plain, &document);
    assert_eq!(plain, map(json!({})), "who never used it gets no annotation");
}

#[test]
fn items_that_share_a_name_are_owned_as_one() {
    let pod = |env: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "c", "env": env}]}})
    };
    let mut story = Story::of("io.k8s.api.core.v1.Pod");
    let (one, two) = (json!({"name": "A", "value": "1"}), json!({"name": "A", "value": "2"}));
    story.update("a", pod(json!([one, two])));
    let env = |story: &Story, manager: &str| {
        story.owned(manager, Operation::Update)["f:spec"]["f:containers"]["k:{\"name\":\"c\"}"]["f:env"].clone()
    };
    assert_eq!(env(&story, "a"), json!({".": {}, "k:{\"name\":\"A\"}": {}}));
    story.update("b", pod(json!([two, one])));
    assert_eq!(env(&story, "b"), json!({"k:{\"name\":\"A\"}": {}}));
    story.update("c", pod(json!([two])));
    assert_eq!(env(&story, "c"), json!({"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}}));
    // An applied item takes the place of all of them.
    story.update("d", pod(json!([one, two])));
    story.try_apply("e", &pod(json!([{"name": "A", "value": "3"}])), true).expect("forced");
    assert_eq!(story.live["spec"]["containers"][0]["env"], json!([{"name": "A", "value": "3"}]));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn data() -> impl proptest::strategy::Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", "[12]", 0..4).prop_map(|m| map(json!(m)))
    }

    proptest! {
        #[test]
        fn an_applied_document_is_what_is_there_and_what_it_owned_is_gone(a in data(), b in data(), c in data()) {
            let mut story = Story::of(MAP);
            story.try_apply("a", &a, true).expect("forced");
            story.try_apply("b", &b, true).expect("forced");
            story.try_apply("a", &c, true).expect("forced");
            let fields = |v: &Value| v["data"].as_object().cloned().unwrap_or_default();
            let (a, b, c, live) = (fields(&a), fields(&b), fields(&c), fields(&story.live));
            for (name, value) in &c {
                prop_assert_eq!(live.get(name), Some(value));
            }
            for name in a.keys().filter(|n| !b.contains_key(*n) && !c.contains_key(*n)) {
                prop_assert!(!live.contains_key(name));
            }
            for name in b.keys().filter(|n| !c.contains_key(*n)) {
                prop_assert!(live.contains_key(name));
            }
            // Every field has an owner.
            let mut all = Set::default();
            story.owners.0.iter().for_each(|o| all.add(o.fields.clone()));
            for name in live.keys() {
                let owned = all.below("f:data").is_some_and(|data| data.has(&set::field(name)));
                prop_assert!(owned, "{}", name);
            }
        }
    }

    fn owner_of_nothing() -> Owner {
        Owner {
            manager: "x".into(),
            operation: Operation::Apply,
            api_version: "v1".into(),
            time: String::new(),
            subresource: String::new(),
            fields: Set::default(),
        }
    }

    #[test]
    fn who_owns_nothing_is_not_written() {
        assert_eq!(Owners(vec![owner_of_nothing()]).to_json(), None);
    }
}
