//! Decides: what an operator is shown at `/debug/api_priority_and_fairness`, in upstream's columns: values with a comma
//! and blanks between them. Of queues and requests only those that are in use; of requests only those that wait.

use std::fmt::Write as _;

use jiff::Timestamp;
use tokio::time::Instant;

use super::gate::Fairness;
use super::level::Waiter;
use super::queues::Waiting;

/// Narrowest column, in characters.
const COLUMN_MIN: usize = 8;

const LEVELS: &[&str] = &[
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: &[&str] = &[
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
/// As upstream spells them.
const REQUESTS: &[&str] = &[
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: &[&str] = &["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];
/// The start of a request that has not started: Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[must_use]
pub fn levels(fairness: &Fairness) -> String {
    let mut rows = vec![header(LEVELS)];
    for (level, draining) in fairness.levels() {
        let name = level.name.to_string();
        let (active, waiting, running, counts) = match level.queues() {
            Some(queues) => {
                let active = queues.in_use().iter().filter(|q| !q.waiting.is_empty()).count();
                (active, queues.waiting(), queues.running(), queues.counts())
            }
            None => {
                let (running, dispatched) = level.exempt();
                (0, 0, running, super::queues::Counts { dispatched, ..Default::default() })
            }
        };
        rows.push(vec![
            name,
            active.to_string(),
            (waiting == 0 && running == 0).to_string(),
            draining.to_string(),
            waiting.to_string(),
            running.to_string(),
            counts.dispatched.to_string(),
            counts.rejected.to_string(),
            // Upstream has the column and never counts in it.
            "0".to_owned(),
            counts.cancelled.to_string(),
        ]);
    }
    table(&rows)
}

#[must_use]
pub fn queues(fairness: &Fairness) -> String {
    let mut rows = vec![header(QUEUES)];
    for (level, _) in fairness.levels() {
        let Some(queues) = level.queues() else { continue };
        for queue in queues.in_use() {
            let sum = |of: fn(&Waiting<Waiter>) -> u32| queue.waiting.iter().map(of).sum::<u32>().to_string();
            rows.push(vec![
                level.name.to_string(),
                queue.index.to_string(),
                queue.waiting.len().to_string(),
                queue.running.to_string(),
                queue.seats.to_string(),
                seat_seconds(queue.start),
                sum(|w| w.work.seats),
                sum(|w| w.work.widest()),
                seat_seconds(queue.work()),
            ]);
        }
    }
    table(&rows)
}

/// `details` adds who asks for what.
#[must_use]
pub fn requests(fairness: &Fairness, details: bool, (wall, now): (Timestamp, Instant)) -> String {
    let mut rows = vec![header(REQUESTS)];
    if details {
        rows[0].extend(header(DETAILS));
    }
    for (level, _) in fairness.levels() {
        let Some(queues) = level.queues() else { continue };
        for queue in queues.in_use() {
            for (index, one) in queue.waiting.iter().enumerate() {
                let (who, arrived) = (&one.who.details, wall - now.saturating_duration_since(one.arrived));
                let mut row = vec![
                    level.name.to_string(),
                    one.who.schema.name.clone(),
                    queue.index.to_string(),
                    index.to_string(),
                    who.flow.clone(),
                    arrived.to_string(),
                    one.work.seats.to_string(),
                    one.work.last_seats.to_string(),
                    latency(one.work.linger),
                    NEVER.to_owned(),
                ];
                if details {
                    let words = [&who.user, &who.verb, &who.path, &who.namespace, &who.name];
                    row.extend(words.into_iter().chain([&who.api_version, &who.resource, &who.subresource]).cloned());
                }
                rows.push(row);
            }
        }
    }
    table(&rows)
}

fn header(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Milliseconds, as Go prints them; below a second in all that is known of.
fn latency(time: std::time::Duration) -> String {
    if time.is_zero() { "0s".to_owned() } else { format!("{}ms", time.as_secs_f64() * 1000.0) }
}

/// `1.50000000ss`, rounded down to a hundred-millionth.
fn seat_seconds(nanoseconds: i128) -> String {
    let parts = nanoseconds.max(0) / 10;
    format!("{}.{:08}ss", parts / 100_000_000, parts % 100_000_000)
}

fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let wide = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    // A comma and a blank after the widest.
    let widths: Vec<usize> = (0..columns).map(|c| (wide(c) + 2).max(COLUMN_MIN)).collect();
    let mut out = String::new();
    for row in rows {
        for (column, text) in row.iter().enumerate() {
            if column + 1 == row.len() {
                let _ = writeln!(out, "{text}");
            } else {
                let _ = write!(out, "{:width$}", format!("{text},"), width = widths[column]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        let rows =
            [vec!["Name".to_owned(), "A".into(), "B".into()], vec!["workload".into(), "12".into(), String::new()]];
        assert_eq!(table(&rows), "Name,     A,      B\nworkload, 12,     \n");
        assert_eq!(seat_seconds(1_500_000_019), "1.50000001ss");
        assert_eq!(latency(std::time::Duration::from_millis(5)), "5ms");
    }
}
