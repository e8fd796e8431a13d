//! Decides: which devices of a resource a container gets (`devicesToAllocate` of the kubelet's device manager). Messages
//! are upstream's: they end up in the pod's status.

use std::collections::BTreeSet;

pub type Ids = BTreeSet<String>;

/// What is asked for one resource of one container.
pub struct Question<'a> {
    pub pod_uid: &'a str,
    pub container: &'a str,
    pub resource: &'a str,
    pub required: usize,
    /// The devices that work; `None` when no plugin has ever offered the resource.
    pub healthy: Option<&'a Ids>,
    /// Given to any container of any pod.
    pub in_use: &'a Ids,
    /// What this container has already.
    pub granted: Option<&'a Ids>,
    /// Of the pod's init containers, which have ended when this one starts.
    pub reusable: &'a Ids,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has what it needs.
    Nothing,
    /// All of `reused`, and so many of those that are available.
    Choose { reused: Ids, available: Ids, more: usize },
}

/// # Errors
/// Why the pod cannot have them.
pub fn answer(question: &Question) -> Result<Answer, String> {
    let Question { pod_uid, container, resource, required, .. } = *question;
    let empty = Ids::new();
    if let Some(granted) = question.granted
        && granted.len() != required
    {
        return Err(format!(
            "pod \"{pod_uid}\" container \"{container}\" changed request for resource \"{resource}\" from {} to {required}",
            granted.len()
        ));
    }
    let Some(healthy) = question.healthy else {
        return Err(format!("cannot allocate unregistered device {resource}"));
    };
    if healthy.is_empty() {
        return Err(format!("no healthy devices present; cannot allocate unhealthy devices {resource}"));
    }
    if !question.granted.unwrap_or(&empty).is_subset(healthy) {
        return Err(format!(
            "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
        ));
    }
    if question.granted.is_some() || required == 0 {
        return Ok(Answer::Nothing);
    }
    let reused: Ids = question.reusable.iter().take(required).cloned().collect();
    let more = required - reused.len();
    let available: Ids = healthy.difference(question.in_use).cloned().collect();
    if available.len() < more {
        return Err(format!(
            "requested number of devices unavailable for {resource}. Requested: {more}, Available: {}",
            available.len()
        ));
    }
    Ok(Answer::Choose { reused, available, more })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Ids {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn ask(required: usize, healthy: Option<&str>, in_use: &str, granted: Option<&str>, reusable: &str) -> String {
        let (healthy, granted) = (healthy.map(ids), granted.map(ids));
        let question = Question {
            pod_uid: "u1",
            container: "c",
            resource: "example.com/gpu",
            required,
            healthy: healthy.as_ref(),
            in_use: &ids(in_use),
            granted: granted.as_ref(),
            reusable: &ids(reusable),
        };
        let list = |ids: &Ids| ids.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        match answer(&question) {
            Err(message) => message,
            Ok(Answer::Nothing) => "nothing".into(),
            Ok(Answer::Choose { reused, available, more }) => {
                format!("[{}] and {more} of [{}]", list(&reused), list(&available))
            }
        }
    }

    #[test]
    fn who_gets_what() {
        let table = [
            (ask(1, Some("a b"), "", None, ""), "[] and 1 of [a b]"),
            (ask(1, Some("a b"), "a", None, ""), "[] and 1 of [b]"),
            (ask(2, Some("a b c"), "a b", None, "a b"), "[a b] and 0 of [c]"),
            (ask(2, Some("a b c"), "a", None, "a"), "[a] and 1 of [b c]"),
            (ask(1, Some("a b"), "a", Some("a"), ""), "nothing"),
            (ask(0, Some("a b"), "", None, ""), "nothing"),
            (
                ask(2, Some("a b"), "a", None, ""),
                "requested number of devices unavailable for example.com/gpu. Requested: 2, Available: 1",
            ),
            (
                ask(1, Some(""), "", None, ""),
                "no healthy devices present; cannot allocate unhealthy devices example.com/gpu",
            ),
            (ask(1, None, "", None, ""), "cannot allocate unregistered device example.com/gpu"),
            (
                ask(1, Some("b"), "a", Some("a"), ""),
                "previously allocated devices are no longer healthy; cannot allocate unhealthy devices example.com/gpu",
            ),
            (
                ask(2, Some("a b"), "a", Some("a"), ""),
                "pod \"u1\" container \"c\" changed request for resource \"example.com/gpu\" from 1 to 2",
            ),
        ];
        for (found, expect) in table {
            assert_eq!(found, expect);
        }
    }
}
