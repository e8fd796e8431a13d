//! Decides: the priority levels and flow schemas that every cluster has, and which flow schemas refer to a level that
//! there is not (upstream's `pkg/registry/flowcontrol/ensurer` and the status part of its `apf_controller.go`).
//!
//! The mandatory ones are always as they have to be. A suggested one is kept up to date while its annotation says
//! `true`, or says nothing and nobody has edited it. One that asks to be kept up to date and is none of ours, from
//! another version, goes.

use std::sync::Arc;

use k8s_openapi::Metadata;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};

use super::action::{Controller, Enqueue, Moment, Name, Plan, Write};
use super::owners;
use super::stores::{FLOW_SCHEMAS, PRIORITY_LEVELS, Stores, row};
use crate::api::flowcontrol::{self, AUTO_UPDATE};
use crate::client::request::{Class, Request, Verb};

/// The two kinds of keys, as their namespace.
const LEVEL: &str = "level";
const SCHEMA: &str = "schema";
/// As which upstream's API server writes the status.
const MANAGER: &str = "fieldManager=api-priority-and-fairness-config-consumer-v1";
const EXEMPT: &str = "exempt";

/// One of the objects that every cluster has.
struct Ours<T> {
    object: T,
    mandatory: bool,
}

pub struct FlowControl {
    levels: Vec<Ours<PriorityLevelConfiguration>>,
    schemas: Vec<Ours<FlowSchema>>,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            levels: ours(flowcontrol::mandatory_priority_levels(), flowcontrol::suggested_priority_levels()),
            schemas: ours(flowcontrol::mandatory_flow_schemas(), flowcontrol::suggested_flow_schemas()),
        }
    }
}

fn ours<T>(mandatory: Vec<T>, suggested: Vec<T>) -> Vec<Ours<T>> {
    let mandatory = mandatory.into_iter().map(|object| Ours { object, mandatory: true });
    mandatory.chain(suggested.into_iter().map(|object| Ours { object, mandatory: false })).collect()
}

impl Controller for FlowControl {
    fn name(&self) -> &'static str {
        "flow-control"
    }

    fn yields(&self) -> bool {
        true
    }

    fn wire(&self, stores: &Arc<Stores>, enqueue: &Enqueue) {
        for level in &self.levels {
            enqueue.add(LEVEL, name(&level.object.metadata));
        }
        for schema in &self.schemas {
            enqueue.add(SCHEMA, name(&schema.object.metadata));
        }
        let queue = enqueue.clone();
        stores.flow_schemas.subscribe(move |change| {
            for schema in change.each() {
                queue.add(SCHEMA, name(&schema.metadata));
            }
        });
        let (queue, known) = (enqueue.clone(), Arc::clone(&stores.flow_schemas));
        stores.priority_levels.subscribe(move |change| {
            for level in change.each() {
                queue.add(LEVEL, name(&level.metadata));
            }
            // It came or went: who refers to it has to say so.
            if let (None, Some(level)) | (Some(level), None) = (change.old, change.new) {
                for schema in known.all().iter().filter(|s| level_of(s) == name(&level.metadata)) {
                    queue.add(SCHEMA, name(&schema.metadata));
                }
            }
        });
    }

    fn plan(&self, stores: &Stores, key: &Name, moment: Moment<'_>) -> Plan {
        let mut plan = Plan::default();
        if &*key.namespace == LEVEL {
            let has = stores.priority_levels.get("", &key.name);
            let ours = self.levels.iter().find(|l| name(&l.object.metadata) == &*key.name);
            keep(PRIORITY_LEVELS, ours, has.as_deref(), level_spec, &mut plan);
        } else {
            let has = stores.flow_schemas.get("", &key.name);
            let ours = self.schemas.iter().find(|s| name(&s.object.metadata) == &*key.name);
            keep(FLOW_SCHEMAS, ours, has.as_deref(), |_, ours| json!(ours.spec), &mut plan);
            if let Some(schema) = has.filter(|_| plan.actions.is_empty()) {
                self.refer(stores, &schema, moment, &mut plan);
            }
        }
        plan
    }
}

impl FlowControl {
    /// Says in its status whether the level of a schema is there. Of a level that is about to be made it says nothing
    /// yet.
    fn refer(&self, stores: &Stores, schema: &FlowSchema, moment: Moment<'_>, plan: &mut Plan) {
        let level = level_of(schema);
        let there = stores.priority_levels.get("", level).is_some();
        if !there && self.levels.iter().any(|l| name(&l.object.metadata) == level) {
            return;
        }
        let start = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
        let (status, reason, message) = if there {
            ("False", "Found", format!("{start} and it exists"))
        } else {
            ("True", "NotFound", format!("{start} but there is no such object"))
        };
        let conditions = schema.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let said = |c: &k8s_openapi::api::flowcontrol::v1::FlowSchemaCondition| {
            c.type_.as_deref() == Some("Dangling")
                && c.status.as_deref() == Some(status)
                && c.reason.as_deref() == Some(reason)
                && c.message.as_deref() == Some(message.as_str())
        };
        if conditions.into_iter().any(said) {
            return;
        }
        let condition = json!({ "type": "Dangling", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": owners::whole_second(moment.now) });
        let body = json!({ "status": { "conditions": [condition] } });
        let name = name(&schema.metadata);
        let mut write = Write::new(Request::new(Verb::StrategicPatch, row(FLOW_SCHEMAS), "", name, body).on("status"));
        write.request.query = MANAGER;
        write.fine = &[Class::NotFound];
        plan.push(write);
    }
}

/// Makes what is missing, brings back what differs and may not, and takes away what is no longer ours. `spec` is what
/// the object should have, which may depend on what it has.
fn keep<T>(
    storage: &'static str,
    ours: Option<&Ours<T>>,
    has: Option<&T>,
    spec: impl Fn(&T, &T) -> Value,
    plan: &mut Plan,
) where
    T: Metadata<Ty = ObjectMeta> + Serialize,
{
    match (ours, has) {
        (Some(ours), None) => {
            let mut write = Write::new(Request::create(row(storage), "", json!(ours.object)));
            write.fine = &[Class::AlreadyExists];
            plan.push(write);
        }
        (Some(ours), Some(has)) => {
            let (meta, mut body) = (has.metadata(), json!(has));
            let follows = ours.mandatory || follows(meta);
            let spec = if follows { spec(has, &ours.object) } else { body["spec"].clone() };
            if annotated(meta) == Some(follows) && body["spec"] == spec {
                return;
            }
            body["spec"] = spec;
            body["metadata"]["annotations"][AUTO_UPDATE] = follows.to_string().into();
            plan.push(Request::new(Verb::Update, row(storage), "", name(meta), body));
        }
        (None, Some(has)) if annotated(has.metadata()) == Some(true) => {
            let meta = has.metadata();
            let uid = meta.uid.as_deref().unwrap_or_default();
            plan.push(Write::delete(Request::delete(row(storage), "", name(meta), uid)));
        }
        (None, _) => {}
    }
}

/// How many seats the exempt hold is for operators to say.
fn level_spec(has: &PriorityLevelConfiguration, ours: &PriorityLevelConfiguration) -> Value {
    let mut spec = json!(ours.spec);
    let exempt = has.spec.as_ref().and_then(|s| s.exempt.as_ref());
    if let Some(exempt) = exempt.filter(|_| name(&ours.metadata) == EXEMPT) {
        spec["exempt"] = json!(exempt);
    }
    spec
}

/// A suggested object whose annotation says nothing is followed as long as nobody has edited it.
fn follows(meta: &ObjectMeta) -> bool {
    annotated(meta).unwrap_or(meta.generation == Some(1))
}

/// As Go reads a boolean (`strconv.ParseBool`).
fn annotated(meta: &ObjectMeta) -> Option<bool> {
    match meta.annotations.as_ref()?.get(AUTO_UPDATE)?.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

fn level_of(schema: &FlowSchema) -> &str {
    schema.spec.as_ref().map_or("", |s| &s.priority_level_configuration.name)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::server::controllers::action::Action;

    /// `verb name` of each action of the plan for a key.
    fn check(stores: &Stores, kind: &str, key: &str, expect: &[&str]) -> Vec<Value> {
        let moment = Moment { now: Timestamp::UNIX_EPOCH, failure: None };
        let plan = FlowControl::default().plan(stores, &Name::new(kind, key), moment);
        let writes = plan.actions.into_iter().map(|a| match a {
            Action::Write(w) => w.request,
            other => panic!("{other:?}"),
        });
        let (found, bodies): (Vec<_>, Vec<_>) = writes.map(|r| (format!("{:?} {}", r.verb, r.name), r.body)).unzip();
        assert_eq!(found, expect, "{kind} {key}");
        bodies
    }

    fn stores() -> Stores {
        let (stores, all) = (Stores::new(), FlowControl::default());
        for mut level in all.levels {
            level.object.metadata.generation = Some(1);
            stores.priority_levels.put(level.object);
        }
        for mut schema in all.schemas {
            schema.object.metadata.generation = Some(1);
            stores.flow_schemas.put(schema.object);
        }
        stores
    }

    fn schema(annotation: Option<&str>, generation: i64, precedence: i32) -> FlowSchema {
        let suggested = flowcontrol::suggested_flow_schemas();
        let mut schema = suggested.into_iter().find(|s| name(&s.metadata) == "probes").unwrap();
        schema.metadata.generation = Some(generation);
        schema.metadata.annotations = annotation.map(|a| [(AUTO_UPDATE.to_owned(), a.to_owned())].into());
        schema.spec.as_mut().unwrap().matching_precedence = Some(precedence);
        let level = "This FlowSchema references the PriorityLevelConfiguration object named \"exempt\" and it exists";
        schema.status = serde_json::from_value(json!({"conditions": [
            {"type": "Dangling", "status": "False", "reason": "Found", "message": level}]}))
        .unwrap();
        schema
    }

    #[test]
    fn what_is_missing_is_made() {
        let stores = Stores::new();
        let bodies = check(&stores, LEVEL, "system", &["Create "]);
        assert_eq!(bodies[0]["kind"], "PriorityLevelConfiguration");
        assert_eq!(
            check(&stores, SCHEMA, "catch-all", &["Create "])[0]["apiVersion"],
            "flowcontrol.apiserver.k8s.io/v1"
        );
        check(&stores, SCHEMA, "mine", &[]);
    }

    /// Upstream's rule, by annotation, generation, and whether the spec differs.
    #[test]
    fn suggestions_follow_until_somebody_edits_them() {
        for (annotation, generation, precedence, expect) in [
            (Some("true"), 1, 2, None),
            (Some("true"), 7, 9, Some((2, "true"))),
            (Some("T"), 7, 2, None),
            (Some("false"), 1, 9, None),
            (None, 1, 9, Some((2, "true"))),
            (None, 1, 2, Some((2, "true"))),
            (None, 2, 9, Some((9, "false"))),
            (Some("perhaps"), 2, 9, Some((9, "false"))),
        ] {
            let stores = stores();
            stores.flow_schemas.put(schema(annotation, generation, precedence));
            let expected: &[&str] = if expect.is_some() { &["Update probes"] } else { &[] };
            let bodies = check(&stores, SCHEMA, "probes", expected);
            let found = bodies.first().map(|b| {
                let annotation = b["metadata"]["annotations"][AUTO_UPDATE].as_str().unwrap_or_default().to_owned();
                (b["spec"]["matchingPrecedence"].as_i64().unwrap_or_default(), annotation)
            });
            assert_eq!(found, expect.map(|(p, a)| (p, a.to_owned())), "{annotation:?} {generation} {precedence}");
        }
    }

    #[test]
    fn the_mandatory_stay() {
        let stores = stores();
        let mut exempt = flowcontrol::mandatory_priority_levels().remove(1);
        exempt.metadata.annotations = Some([(AUTO_UPDATE.to_owned(), "false".to_owned())].into());
        exempt.spec.as_mut().unwrap().exempt.as_mut().unwrap().nominal_concurrency_shares = Some(5);
        stores.priority_levels.put(exempt);
        let bodies = check(&stores, LEVEL, "exempt", &["Update exempt"]);
        assert_eq!(bodies[0]["metadata"]["annotations"][AUTO_UPDATE], "true");
        assert_eq!(bodies[0]["spec"]["exempt"]["nominalConcurrencyShares"], 5, "that is for operators to say");
    }

    #[test]
    fn what_is_no_longer_ours_goes() {
        let stores = stores();
        for (named, annotation, expect) in [("old", "true", &["Delete old"][..]), ("mine", "false", &[])] {
            let mut level = flowcontrol::suggested_priority_levels().remove(0);
            level.metadata.name = Some(named.into());
            level.metadata.annotations = Some([(AUTO_UPDATE.to_owned(), annotation.to_owned())].into());
            stores.priority_levels.put(level);
            check(&stores, LEVEL, named, expect);
        }
    }

    #[test]
    fn schemas_say_whether_their_level_is_there() {
        let stores = stores();
        let mut mine = schema(None, 3, 500);
        mine.metadata.name = Some("mine".into());
        mine.spec.as_mut().unwrap().priority_level_configuration.name = "gone".into();
        stores.flow_schemas.put(mine.clone());
        let bodies = check(&stores, SCHEMA, "mine", &["StrategicPatch mine"]);
        let message = "This FlowSchema references the PriorityLevelConfiguration object named \"gone\" but there is no \
                       such object";
        let condition = json!({"type": "Dangling", "status": "True", "reason": "NotFound", "message": message,
            "lastTransitionTime": "1970-01-01T00:00:00Z"});
        assert_eq!(bodies[0]["status"]["conditions"], json!([condition]));
        mine.status = serde_json::from_value(bodies[0]["status"].clone()).unwrap();
        stores.flow_schemas.put(mine);
        check(&stores, SCHEMA, "mine", &[]);
        let mut level = flowcontrol::suggested_priority_levels().remove(0);
        level.metadata.name = Some("gone".into());
        stores.priority_levels.put(level);
        let bodies = check(&stores, SCHEMA, "mine", &["StrategicPatch mine"]);
        assert_eq!(bodies[0]["status"]["conditions"][0]["reason"], "Found");
        // One of ours that is about to be made is not missed.
        stores.priority_levels.take("", "exempt");
        stores.flow_schemas.put(schema(Some("true"), 1, 2));
        check(&stores, SCHEMA, "probes", &[]);
    }
}
