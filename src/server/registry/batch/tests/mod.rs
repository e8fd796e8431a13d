//! Tables: Job and CronJob; what the tests share.

mod cron_job;
mod job;
mod updates;

use serde_json::{Value, json};

use super::cron_job::CronJobKind;
use super::job::JobKind;
use crate::api::field::FieldError;
use crate::api::user::User;
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Part, Strategy, Typed};

const JOB: Typed<JobKind> = Typed(JobKind);
const CRON_JOB: Typed<CronJobKind> = Typed(CronJobKind);

fn cx() -> Context {
    Context::new(User::default())
}

fn texts(errors: &[FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn put(object: &mut Value, pointer: &str, value: Value) {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field] = value;
}

fn spec() -> Value {
    json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}}})
}

/// As it is when it is validated: with a name and a uid.
fn created(strategy: &dyn Strategy, spec: Value, change: &[(&str, Value)]) -> Value {
    let mut object = json!({
        "apiVersion": "batch/v1", "kind": strategy.resource().kind,
        "metadata": {"name": "a", "namespace": "default", "uid": "1"}, "spec": spec,
    });
    change.iter().for_each(|(pointer, value)| put(&mut object, pointer, value.clone()));
    strategy.defaults(&mut object).unwrap();
    strategy.prepare_create(&cx(), &mut object).unwrap();
    object
}

fn job(change: &[(&str, Value)]) -> Value {
    created(&JOB, spec(), change)
}

fn cron_job(change: &[(&str, Value)]) -> Value {
    created(&CRON_JOB, json!({"schedule": "@hourly", "jobTemplate": {"spec": spec()}}), change)
}

fn check(change: &[(&str, Value)], expect: &[&str]) {
    assert_eq!(texts(&JOB.prepare_create(&cx(), &mut job(change)).unwrap().errors), expect);
}

fn check_cron(change: &[(&str, Value)], expect: &[&str]) {
    assert_eq!(texts(&CRON_JOB.prepare_create(&cx(), &mut cron_job(change)).unwrap().errors), expect);
}

fn update(strategy: &dyn Strategy, old: &Value, part: Part, change: &[(&str, Value)]) -> (Value, Vec<String>) {
    let mut new = old.clone();
    change.iter().for_each(|(pointer, value)| put(&mut new, pointer, value.clone()));
    let errors = strategy.prepare_update(&cx(), part, &mut new, old).unwrap().errors;
    (new, texts(&errors))
}

fn indexed(completions: i32, parallelism: i32) -> Vec<(&'static str, Value)> {
    vec![
        ("/spec/completionMode", json!("Indexed")),
        ("/spec/completions", json!(completions)),
        ("/spec/parallelism", json!(parallelism)),
    ]
}

#[test]
fn warnings() {
    let mut change = indexed(100_001, 10_001);
    change.push(("/metadata/name", json!("a.b")));
    assert_eq!(
        JOB.prepare_create(&cx(), &mut job(&change)).unwrap().warnings,
        [
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS \
             label is recommended: [must not contain dots]",
            "spec: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
             Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
        ]
    );
    let pointer = "/spec/jobTemplate/spec/template/spec/terminationGracePeriodSeconds";
    assert_eq!(
        CRON_JOB.prepare_create(&cx(), &mut cron_job(&[(pointer, json!(-1))])).unwrap().warnings,
        ["spec.jobTemplate.spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values are \
          invalid and will be treated as 1"]
    );
}
