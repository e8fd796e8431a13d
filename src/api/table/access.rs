//! Decides: how the printers read an object: short words for paths, ages, lists and selectors.

use jiff::Timestamp;
use serde_json::Value;

use super::duration::human;

/// Text at a dotted path, empty when it isn't there.
pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).as_str().unwrap_or_default()
}

/// Number at a dotted path, 0 when it isn't there.
pub fn number(object: &Value, path: &str) -> i64 {
    at(object, path).as_i64().unwrap_or_default()
}

pub fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).as_array().map_or(&[], Vec::as_slice)
}

/// Number of entries of an object or list.
pub fn count(object: &Value, path: &str) -> usize {
    let value = at(object, path);
    value.as_object().map_or(0, serde_json::Map::len) + value.as_array().map_or(0, Vec::len)
}

pub fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(object, |value, key| value.get(key).unwrap_or(&Value::Null))
}

pub fn time(object: &Value, path: &str) -> Option<Timestamp> {
    text(object, path).parse().ok()
}

pub fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(|| "<unknown>".into(), |t| human(now.duration_since(t)))
}

pub fn name(object: &Value) -> Value {
    text(object, "metadata.name").into()
}

pub fn age(object: &Value, now: Timestamp) -> Value {
    since(time(object, "metadata.creationTimestamp"), now).into()
}

pub fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

/// `a,b,c + 2 more...`
pub fn with_more(items: &[String], limit: usize) -> String {
    let shown = items[..items.len().min(limit)].join(",");
    if items.len() > limit { format!("{shown} + {} more...", items.len() - limit) } else { shown }
}

/// `a=b,c=d` of a map of labels.
pub fn labels(map: &Value) -> String {
    let pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    or(&pairs.join(","), "<none>").into()
}

/// A `metav1.LabelSelector` as text.
pub fn selector(selector: &Value) -> String {
    let mut all: Vec<(&str, String)> = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        all.push((key, format!("{key}={}", value.as_str().unwrap_or_default())));
    }
    for expression in list(selector, "matchExpressions") {
        let key = text(expression, "key");
        let mut values: Vec<&str> = list(expression, "values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        all.push((
            key,
            match text(expression, "operator") {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "Exists" => key.into(),
                "DoesNotExist" => format!("!{key}"),
                _ => return "<error>".into(),
            },
        ));
    }
    all.sort_by(|a, b| a.0.cmp(b.0));
    let all: Vec<String> = all.into_iter().map(|(_, text)| text).collect();
    or(&all.join(","), "<none>").into()
}
