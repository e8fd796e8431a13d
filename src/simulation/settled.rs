//! Decides: whether all is as it should be once nothing befalls the cluster any more.

use serde_json::Value;

use super::checks::{Checks, app, is_active, is_ending, is_ready, name, number, owner, text};
use super::disks::Disks;
use super::wanted::{CRON_JOBS, DEPLOYMENTS, IDLE};

/// What is not as it should be when all has settled; `None` when nothing is left to do.
pub fn unfinished(checks: &Checks, disks: &Disks) -> Option<String> {
    let pods = checks.of("pods");
    let others = || {
        let stuck = pods.iter().find(|p| is_ending(p));
        stuck.map(|p| format!("{} does not end", name(p)))
    };
    let alone = || {
        let left = pods.iter().filter(|p| app(p) == "alone" && is_active(p)).count();
        (left != 1).then(|| "the pod that is nobody's is gone".to_owned())
    };
    workloads(checks, &pods)
        .or_else(|| budgets(checks, &pods))
        .or_else(|| jobs(checks))
        .or_else(|| cron_jobs(checks))
        .or_else(|| room(checks, &pods))
        .or_else(|| volumes(checks, disks, &pods))
        .or_else(alone)
        .or_else(others)
}

fn of<'a>(pods: &'a [Value], app: &str) -> Vec<&'a Value> {
    pods.iter().filter(|p| self::app(p) == app && is_active(p)).collect()
}

fn workloads(checks: &Checks, pods: &[Value]) -> Option<String> {
    let deployments = DEPLOYMENTS.map(|d| ("apps/deployments", d));
    for (storage, named) in deployments.into_iter().chain([("apps/statefulsets", "db"), ("apps/daemonsets", "agent")]) {
        let Some(object) = checks.get(storage, named) else { return Some(format!("{named} is gone")) };
        let daemon = storage == "apps/daemonsets";
        let replicas = if daemon { 4 } else { number(&object, "/spec/replicas", 1) };
        let image = text(&object, "/spec/template/spec/containers/0/image");
        let pods = of(pods, named);
        let good = |p: &&&Value| is_ready(p) && text(p, "/spec/containers/0/image") == image;
        let are = i64::try_from(pods.iter().filter(good).count()).unwrap();
        if are != replicas || pods.len() != usize::try_from(replicas).unwrap() {
            return Some(format!("{named}: {are} good ones of {} pods, {replicas} are wanted", pods.len()));
        }
        let counts: &[&str] = match daemon {
            true => &[
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
            ],
            false => &["replicas", "readyReplicas", "updatedReplicas", "availableReplicas"],
        };
        for count in counts {
            let is = number(&object, &format!("/status/{count}"), 0);
            if is != replicas {
                return Some(format!("{named}: status.{count} is {is}, {replicas} is right"));
            }
        }
        if number(&object, "/status/observedGeneration", 0) != number(&object, "/metadata/generation", 0) {
            return Some(format!("{named}: the last change was not observed"));
        }
    }
    None
}

fn budgets(checks: &Checks, pods: &[Value]) -> Option<String> {
    for budget in checks.of("policy/poddisruptionbudgets") {
        let are = i64::try_from(of(pods, name(&budget)).iter().filter(|p| is_ready(p)).count()).unwrap();
        let allowed = (are - number(&budget, "/spec/minAvailable", 0)).max(0);
        let is = number(&budget, "/status/disruptionsAllowed", -1);
        if is != allowed {
            return Some(format!("budget {} allows {is} disruptions of {are} pods", name(&budget)));
        }
    }
    None
}

fn jobs(checks: &Checks) -> Option<String> {
    for job in checks.of("batch/jobs") {
        if owner(&job, "CronJob").is_some() {
            if !super::checks::is_finished(&job) {
                return Some(format!("{} has not finished: {}", name(&job), job["status"]));
            }
            continue;
        }
        let done = number(&job, "/status/succeeded", 0);
        if done != number(&job, "/spec/completions", 1) {
            return Some(format!("{}: {done} have succeeded: {}", name(&job), job["status"]));
        }
    }
    None
}

/// What has ended is kept within the limits, and nothing else.
fn cron_jobs(checks: &Checks) -> Option<String> {
    let jobs = checks.of("batch/jobs");
    for (named, _) in CRON_JOBS {
        let Some(cron_job) = checks.get("batch/cronjobs", named) else { return Some(format!("{named} is gone")) };
        for (how, limit) in [("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")] {
            let most = number(&cron_job, &format!("/spec/{limit}"), 0);
            let ended = |j: &&Value| owner(j, "CronJob") == Some(named) && super::checks::condition(j, how) == "True";
            let are = i64::try_from(jobs.iter().filter(ended).count()).unwrap();
            if are > most {
                return Some(format!("{named}: {are} Jobs are {how}, {most} are the limit"));
            }
        }
        let active = cron_job.pointer("/status/active").and_then(Value::as_array).map_or(0, Vec::len);
        if active > 0 {
            return Some(format!("{named}: status.active has {active}"));
        }
    }
    None
}

/// Who waits has no place to go, and keeps none.
fn room(checks: &Checks, pods: &[Value]) -> Option<String> {
    for pod in pods.iter().filter(|p| is_active(p) && text(p, "/spec/nodeName").is_empty()) {
        if !IDLE.contains(&app(pod)) {
            return Some(format!("{} waits", name(pod)));
        }
        if !text(pod, "/status/nominatedNodeName").is_empty() {
            return Some(format!("{} waits for a place that it does not get", name(pod)));
        }
        for node in checks.of("nodes") {
            let (free, wants) = (checks.free(name(&node)), super::checks::milli_cpu(pod));
            if free >= wants {
                return Some(format!(
                    "{} waits although {} has {free} m, and it asks for {wants}",
                    name(pod),
                    name(&node)
                ));
            }
        }
    }
    None
}

/// Each claim has its volume, each volume its claim, each folder its volume.
fn volumes(checks: &Checks, disks: &Disks, pods: &[Value]) -> Option<String> {
    let claims = checks.of("persistentvolumeclaims");
    for claim in &claims {
        if text(claim, "/status/phase") != "Bound" {
            return Some(format!("claim {} is {}", name(claim), claim["status"]));
        }
        let pod = claim["metadata"]["ownerReferences"][0]["uid"].as_str();
        if pod.is_some_and(|uid| !pods.iter().any(|p| text(p, "/metadata/uid") == uid)) {
            return Some(format!("claim {} is there although its pod is not", name(claim)));
        }
    }
    let all = checks.of("persistentvolumes");
    for volume in &all {
        let whose = text(volume, "/spec/claimRef/uid");
        if !claims.iter().any(|c| text(c, "/metadata/uid") == whose) || text(volume, "/status/phase") != "Bound" {
            return Some(format!("volume {} of {} is {}", name(volume), volume["spec"]["claimRef"], volume["status"]));
        }
    }
    if let Some((node, folder)) =
        disks.folders().into_iter().find(|(_, folder)| !all.iter().any(|v| folder.starts_with(name(v))))
    {
        return Some(format!("{folder} is still on {node}"));
    }
    let set = checks.get("apps/statefulsets", "db")?;
    let replicas = number(&set, "/spec/replicas", 1);
    let ordinals: Vec<i64> = claims.iter().filter_map(|c| name(c).strip_prefix("data-db-")?.parse().ok()).collect();
    let kept = text(&set, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled") == "Retain";
    if let Some(extra) = ordinals.iter().find(|o| **o >= replicas && !kept) {
        return Some(format!("db has {replicas} members, and the claim of member {extra} is there"));
    }
    let missing = (0..replicas).find(|o| !ordinals.contains(o));
    missing.map(|o| format!("member {o} of db has no claim"))
}

mod tests;
