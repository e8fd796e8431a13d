//! Decides: the columns and rows of Jobs, CronJobs, HorizontalPodAutoscalers and PodDisruptionBudgets.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::{age, at, count, list, name, number, or, selector, since, text, time};
use super::columns::{AGE, CONTAINERS, Column, IMAGES, NAME, SELECTOR, number as integer, text as string};
use super::duration::human;

/// Metrics of an autoscaler that are shown.
const SHOWN_METRICS: usize = 2;
const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

pub const JOB: &[Column] = &[
    NAME,
    string("Status", "How far the job is."),
    string("Completions", "Number of pods that succeeded, of those wanted."),
    string("Duration", "Time from the start to the end, or until now."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub const CRON_JOB: &[Column] = &[
    NAME,
    string("Schedule", "When jobs are made, in cron format."),
    string("Timezone", "Time zone of the schedule."),
    Column { kind: "boolean", ..string("Suspend", "Whether no more jobs are made.") },
    integer("Active", "Number of jobs that run."),
    string("Last Schedule", "Time since a job was made."),
    AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

pub const AUTOSCALER: &[Column] = &[
    NAME,
    string("Reference", "What is scaled."),
    string("Targets", "Each metric: what it is, and what it should be."),
    string("MinPods", "Least number of pods."),
    string("MaxPods", "Greatest number of pods."),
    string("Replicas", "Number of pods as last seen."),
    AGE,
];

pub const DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    string("Min Available", "Pods that must stay available."),
    string("Max Unavailable", "Pods that may be unavailable."),
    integer("Allowed Disruptions", "Number of pods that may be evicted now."),
    AGE,
];

pub fn job(job: &Value, now: Timestamp) -> Vec<Value> {
    let is = |condition: &str| {
        let found = list(job, "status.conditions").iter().find(|c| text(c, "type") == condition);
        found.is_some_and(|c| text(c, "status") == "True")
    };
    let status = match () {
        () if is("Complete") => "Complete",
        () if is("Failed") => "Failed",
        () if !text(job, "metadata.deletionTimestamp").is_empty() => "Terminating",
        () if is("Suspended") => "Suspended",
        () if is("FailureTarget") => "FailureTarget",
        () if is("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    };
    let succeeded = number(job, "status.succeeded");
    let completions = match (at(job, "spec.completions").as_i64(), number(job, "spec.parallelism")) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    };
    let end = time(job, "status.completionTime").unwrap_or(now);
    let took = time(job, "status.startTime").map(|start| human(end.duration_since(start)));
    let mut cells = vec![name(job), status.into(), completions.into(), took.unwrap_or_default().into(), age(job, now)];
    cells.extend(template(job, "spec"));
    cells
}

pub fn cron_job(cron_job: &Value, now: Timestamp) -> Vec<Value> {
    let suspend = match at(cron_job, "spec.suspend").as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last = match time(cron_job, "status.lastScheduleTime") {
        None => "<none>".to_owned(),
        last => since(last, now),
    };
    let mut cells = vec![
        name(cron_job),
        text(cron_job, "spec.schedule").into(),
        at(cron_job, "spec.timeZone").as_str().unwrap_or("<none>").into(),
        suspend.into(),
        count(cron_job, "status.active").into(),
        last.into(),
        age(cron_job, now),
    ];
    cells.extend(template(cron_job, "spec.jobTemplate.spec"));
    cells
}

/// Containers, images and selector of the Job whose spec is at `path`.
fn template(object: &Value, path: &str) -> [Value; 3] {
    let job = at(object, path);
    let all = |key: &str| {
        let containers = list(job, "template.spec.containers").iter();
        Value::from(containers.map(|c| text(c, key)).collect::<Vec<_>>().join(","))
    };
    [all("name"), all("image"), selector(&job["selector"]).into()]
}

pub fn disruption_budget(budget: &Value, now: Timestamp) -> Vec<Value> {
    let amount = |path: &str| match at(budget, path) {
        Value::Null => "N/A".into(),
        Value::Number(number) => number.to_string().into(),
        percent => percent.clone(),
    };
    vec![
        name(budget),
        amount("spec.minAvailable"),
        amount("spec.maxUnavailable"),
        number(budget, "status.disruptionsAllowed").into(),
        age(budget, now),
    ]
}

/// An autoscaler of either API version.
pub fn autoscaler(autoscaler: &Value, now: Timestamp) -> Vec<Value> {
    let reference = at(autoscaler, "spec.scaleTargetRef");
    let least = at(autoscaler, "spec.minReplicas").as_i64();
    vec![
        name(autoscaler),
        format!("{}/{}", text(reference, "kind"), text(reference, "name")).into(),
        targets(autoscaler).into(),
        least.map_or_else(|| "<unset>".into(), |least| least.to_string()).into(),
        number(autoscaler, "spec.maxReplicas").into(),
        number(autoscaler, "status.currentReplicas").into(),
        age(autoscaler, now),
    ]
}

fn targets(autoscaler: &Value) -> String {
    let mut metrics = metrics(autoscaler, "spec.metrics", METRICS);
    let percent = at(autoscaler, "spec.targetCPUUtilizationPercentage");
    if !percent.is_null() {
        let cpu = json!({"name": "cpu", "targetAverageUtilization": percent});
        metrics.push(json!({"type": "Resource", "resource": cpu}));
    }
    let current = metrics_of_status(autoscaler);
    let shown: Vec<String> = metrics
        .iter()
        .enumerate()
        .take(SHOWN_METRICS)
        .map(|(i, metric)| target(metric, current.get(i).unwrap_or(&Value::Null)))
        .collect();
    let list = shown.join(", ");
    match metrics.len().saturating_sub(SHOWN_METRICS) {
        0 => or(&list, "<none>").to_owned(),
        more => format!("{list} + {more} more..."),
    }
}

fn metrics_of_status(autoscaler: &Value) -> Vec<Value> {
    let current = metrics(autoscaler, "status.currentMetrics", CURRENT_METRICS);
    let percent = at(autoscaler, "status.currentCPUUtilizationPercentage");
    if !current.is_empty() || percent.is_null() {
        return current;
    }
    let cpu = json!({"name": "cpu", "currentAverageUtilization": percent});
    vec![json!({"type": "Resource", "resource": cpu})]
}

/// `v1` has its metrics in an annotation.
fn metrics(autoscaler: &Value, path: &str, annotation: &str) -> Vec<Value> {
    if let Some(metrics) = at(autoscaler, path).as_array() {
        return metrics.clone();
    }
    let annotation = at(autoscaler, "metadata.annotations").get(annotation).and_then(Value::as_str);
    annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// `cpu: 50%/80%`
fn target(metric: &Value, status: &Value) -> String {
    let field = match text(metric, "type") {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".into(),
    };
    let (wanted, current) = (&metric[field], &status[field]);
    let pair = |measure: &str, missing: &str| {
        let current = amount(current, "current", measure).unwrap_or_else(|| "<unknown>".into());
        let wanted = amount(wanted, "target", measure).unwrap_or_else(|| missing.into());
        format!("{current}/{wanted}")
    };
    let average = amount(wanted, "target", "averageValue").is_some();
    match field {
        "pods" => pair("averageValue", "<nil>"),
        "object" | "external" if average => format!("{} (avg)", pair("averageValue", "<nil>")),
        "object" | "external" => pair("value", "<nil>"),
        _ if average => format!("{}: {}", text(wanted, "name"), pair("averageValue", "<auto>")),
        _ => format!("{}: {}", text(wanted, "name"), pair("averageUtilization", "<auto>")),
    }
}

/// `target.averageValue`, which is `targetAverageValue` in `v1`, and `averageValue` there when the metric is of an object.
fn amount(source: &Value, side: &str, measure: &str) -> Option<String> {
    let (first, rest) = measure.split_at(1);
    let old = format!("{side}{}{rest}", first.to_uppercase());
    let found = [&source[side][measure], &source[old.as_str()], &source[measure]].into_iter().find(|v| !v.is_null())?;
    Some(found.as_str().map_or_else(|| format!("{found}%"), str::to_owned))
}

#[cfg(test)]
mod tests;
