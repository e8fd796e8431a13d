//! Tables: what one metric asks for.

use k8s_openapi::api::core::v1::Pod;

use super::super::calculator::{Measured, PodMetrics, Requests};
use super::*;

const EXACT: Tolerance = Tolerance { up: 0.1, down: 0.1 };

/// One letter for each pod: **r**eady; **u**nready since it started; e**x**hausted, unready after it was ready; **h**ot,
/// started a minute ago; **p**ending; **f**ailed; being **d**eleted.
fn pods(letters: &str) -> Vec<Arc<Pod>> {
    let of = |(i, letter): (usize, char)| {
        let mut pod = pod(&format!("p{i}"));
        let status = &mut pod["status"];
        match letter {
            'r' => {}
            'u' => status["conditions"][0]["status"] = json!("False"),
            'x' => {
                status["conditions"][0] =
                    json!({"type": "Ready", "status": "False", "lastTransitionTime": "2025-12-31T23:59:00Z"});
            }
            'h' => {
                status["startTime"] = json!("2025-12-31T23:59:00Z");
                status["conditions"][0]["lastTransitionTime"] = json!("2025-12-31T23:59:10Z");
            }
            'p' => *status = json!({"phase": "Pending"}),
            'f' => *status = json!({"phase": "Failed"}),
            'd' => pod["metadata"]["deletionTimestamp"] = json!(START),
            other => panic!("{other}"),
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    letters.chars().enumerate().map(of).collect()
}

fn measured(levels: &[i64]) -> PodMetrics {
    let of = |(i, milli): (usize, &i64)| {
        let measured = Measured { milli: *milli, at: later(-10), window: jiff::SignedDuration::from_secs(60) };
        (format!("p{i}"), measured)
    };
    levels.iter().enumerate().map(of).collect()
}

fn calculator(pods: &[Arc<Pod>], current: i32, tolerance: Tolerance) -> Calculator<'_> {
    Calculator { pods, current, existing: current, tolerance, now: start() }
}

fn with(tolerance: Tolerance, current: i32, letters: &str, levels: &[i64], requests: &[i64], target: i32) -> String {
    let pods = pods(letters);
    let asked: Requests =
        (0..pods.len()).map(|i| (format!("p{i}"), requests.get(i).copied().unwrap_or(1000))).collect();
    match calculator(&pods, current, tolerance).utilization(measured(levels), Ok(asked), target, true) {
        Ok((replicas, percent, average)) => format!("{replicas} at {percent}% {average}m"),
        Err(error) => error,
    }
}

/// Pods that ask for one CPU each and use so much of it; `target` in percent of that.
fn check(current: i32, letters: &str, levels: &[i64], target: i32, expect: &str) {
    assert_eq!(with(EXACT, current, letters, levels, &[], target), expect, "{current} {letters} {levels:?} {target}%");
}

#[test]
fn more_are_asked_for_than_there_are() {
    check(3, "rrr", &[300, 500, 700], 30, "5 at 50% 500m");
    // Those that are not ready could take some of it.
    check(3, "urr", &[300, 500, 700], 30, "4 at 60% 600m");
    check(3, "hrr", &[300, 500, 700], 30, "4 at 60% 600m");
    check(3, "ruu", &[400, 500, 700], 30, "3 at 40% 400m");
    check(3, "rhu", &[400, 500, 700], 30, "3 at 40% 400m");
    // One that was ready counts as it is measured.
    check(3, "xrr", &[300, 500, 700], 30, "5 at 50% 500m");
    check(2, "rrff", &[500, 700], 30, "4 at 60% 600m");
    check(2, "rrdd", &[500, 700], 30, "4 at 60% 600m");
    check(4, "rrrr", &[4000, 9500, 3000, 7000, 3200, 2000], 100, "24 at 587% 5875m");
}

#[test]
fn fewer_are_asked_for_than_there_are() {
    check(5, "rrrrr", &[100, 300, 500, 250, 250], 50, "3 at 28% 280m");
    check(5, "rrruu", &[100, 300, 500, 250, 250], 50, "2 at 30% 300m");
    check(5, "rrrhh", &[100, 300, 500, 250, 250], 50, "2 at 30% 300m");
    check(5, "rpppp", &[100], 50, "1 at 10% 100m");
    check(5, "rrrrrff", &[100, 300, 500, 250, 250], 50, "3 at 28% 280m");
    check(5, "rrrrrdd", &[100, 300, 500, 250, 250, 900, 900], 50, "3 at 28% 280m");
}

#[test]
fn what_is_not_measured_counts_against_a_change() {
    check(4, "rrrr", &[400, 95], 100, "3 at 24% 247m");
    check(2, "rr", &[1000], 100, "2 at 100% 1000m");
    check(2, "rr", &[1900], 100, "2 at 190% 1900m");
    check(2, "rr", &[600], 100, "2 at 60% 600m");
    check(3, "urr", &[100, 450], 50, "3 at 45% 450m");
    check(3, "hrr", &[100, 450], 50, "3 at 45% 450m");
    check(3, "urr", &[100, 2000], 50, "4 at 200% 2000m");
    check(3, "hrr", &[100, 2000], 50, "4 at 200% 2000m");
    check(4, "urrr", &[100, 100, 100], 50, "3 at 10% 100m");
    // During a roll-out there are more pods than replicas: that must not turn fewer into more.
    check(2, "rrr", &[100, 100], 50, "2 at 10% 100m");
    let over = with(EXACT, 4, "urrr", &[200, 100, 100], &[1000, 1000, 2000, 2000], 300);
    assert_eq!(over, "2 at 6% 100m", "a target of more than all counts as that");
}

#[test]
fn nothing_to_calculate_with() {
    check(3, "", &[100], 50, "no pods returned by selector while calculating replica count");
    let unready = "did not receive metrics for targeted pods (pods might be unready)";
    check(3, "rrr", &[], 50, unready);
    check(3, "uhp", &[100, 100, 100], 50, unready);
    let none = with(EXACT, 1, "r", &[100], &[0], 50);
    assert_eq!(none, "no metrics returned matched known pods");
}

#[test]
fn small_differences_change_nothing() {
    let asked = [900, 1000, 1100];
    let of = |up: f64, down: f64, levels: &[i64]| with(Tolerance { up, down }, 3, "rrr", levels, &asked, 100);
    assert_eq!(of(0.1, 0.1, &[1010, 1030, 1020]), "3 at 102% 1020m");
    assert_eq!(of(0.0, 0.0, &[909, 1010, 1111]), "4 at 101% 1010m");
    assert_eq!(of(2.0, 0.1, &[1890, 1910, 1900]), "3 at 190% 1900m");
    assert_eq!(of(0.08, 2.0, &[1100, 1080, 1090]), "4 at 109% 1090m");
    assert_eq!(of(0.1, 0.36, &[660, 640, 650]), "3 at 65% 650m");
    assert_eq!(of(0.1, 0.34, &[660, 640, 650]), "2 at 65% 650m");
}

/// Amounts per pod, of something else than the CPU: who is not ready counts too.
fn average(current: i32, letters: &str, levels: &[i64], target: i64, expect: &str) {
    let pods = pods(letters);
    let got = calculator(&pods, current, EXACT).average(measured(levels), target, false);
    let got = got.map_or_else(|error| error, |(replicas, used)| format!("{replicas} at {used}"));
    assert_eq!(got, expect, "{current} {letters} {levels:?} {target}");
}

#[test]
fn amounts_per_pod() {
    average(3, "rrr", &[20000, 10000, 30000], 15000, "4 at 20000");
    average(3, "ruh", &[50000, 10000, 30000], 15000, "6 at 30000");
    average(3, "rpp", &[50000, 15000, 30000], 15000, "4 at 50000");
    average(5, "rrrrr", &[12000, 12000, 12000, 12000, 12000], 20000, "3 at 12000");
    average(5, "rrrrr", &[20000, 19000, 21000], 20000, "5 at 20000");
    average(2, "rrr", &[10000, 10000], 17000, "2 at 10000");
    average(5, "rrrrrdd", &[12000, 12000, 12000, 12000, 12000, 90000, 90000], 20000, "3 at 12000");
    average(2, "rr", &[i64::MAX, i64::MAX], 1, "2147483647 at 9223372036854775807");
}

#[test]
fn amounts_of_something_else() {
    let value = |tolerance, current, letters: &str, used, target| {
        let pods = pods(letters);
        calculator(&pods, current, tolerance).value(used, target)
    };
    assert_eq!(value(EXACT, 3, "rrr", 20000, 15000), Ok(4));
    // Only pods that are ready take their part.
    assert_eq!(value(EXACT, 3, "rrup", 20000, 10000), Ok(4));
    assert_eq!(value(EXACT, 5, "rrrrr", 8600, 14400), Ok(3));
    assert_eq!(value(EXACT, 3, "rrr", 8600, 8888), Ok(3));
    assert_eq!(value(Tolerance { up: 0.01, down: 0.1 }, 3, "rrr", 8900, 8800), Ok(4));
    // From none, and to none.
    assert_eq!(value(EXACT, 0, "", 20000, 15000), Ok(2));
    assert_eq!(value(EXACT, 0, "", 0, 15000), Ok(0));
    assert_eq!(value(EXACT, 3, "rrr", 0, 15000), Ok(0));
    let none = "unable to calculate ready pods: no pods returned by selector while calculating replica count";
    assert_eq!(value(EXACT, 3, "", 20000, 15000), Err(none.into()));
    assert_eq!(value(EXACT, 3, "rrr", i64::MAX, 1), Ok(i32::MAX));
}

#[test]
fn amounts_of_something_else_per_pod() {
    let each = |existing, used, target| calculator(&[], existing, EXACT).value_per_pod(used, target);
    assert_eq!(each(3, 8600, 2150), (4, 2867));
    assert_eq!(each(4, 20208, 5000), (4, 5052));
    assert_eq!(each(5, 8600, 2867), (3, 1720));
    assert_eq!(each(0, 8600, 2150), (4, 8600));
    assert_eq!(each(2, i64::MAX, 1), (i32::MAX, i64::MAX / 2 + 1));
}
