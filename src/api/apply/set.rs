//! Types: sets of field paths, as `metadata.managedFields` holds them (`FieldsV1` in
//! `k8s.io/apimachinery/pkg/apis/meta/v1/types.go`).
//!
//! A path is a list of elements, and an element is the text that it has in `FieldsV1`: `f:spec`, `k:{"name":"web"}`,
//! `v:"finalizer"`, `i:3`. A set is a tree of them, each level a sorted list: most operations are merges, and most levels
//! are short.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::iter::Peekable;

use serde_json::{Map, Value};

use crate::api::encode;

/// Deepest path that is read; objects themselves are less deep.
const MAX_DEPTH: usize = 256;

/// One step of a path, in the text of `FieldsV1`.
pub type Element = Box<str>;

/// Sorted by element.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set(Vec<(Element, Node)>);

/// An element and what is below it. One of the two is always there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Node {
    member: bool,
    below: Set,
}

/// The element of a field of an object.
#[must_use]
pub fn field(name: &str) -> Element {
    ["f:", name].concat().into()
}

/// The element of an item of a list that is a set.
#[must_use]
pub fn value(item: &Value) -> Element {
    format!("v:{item}").into()
}

/// The element of an item of a list with keys, which come in any order.
#[must_use]
pub fn key<'a>(keys: impl Iterator<Item = (&'a str, Cow<'a, Value>)>) -> Element {
    let mut keys: Vec<_> = keys.collect();
    keys.sort_unstable_by_key(|(name, _)| *name);
    // Most names fit.
    let mut text = Vec::with_capacity(64);
    text.extend_from_slice(b"k:{");
    for (i, (name, value)) in keys.iter().enumerate() {
        text.extend((i > 0).then_some(b','));
        encode::push_field(&mut text, name, value);
    }
    text.push(b'}');
    String::from_utf8(text).unwrap_or_default().into()
}

impl Set {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, element: &str) -> Option<&Node> {
        let at = self.0.binary_search_by(|(e, _)| (**e).cmp(element)).ok()?;
        Some(&self.0[at].1)
    }

    /// The node of an element, which is added where it is missing.
    fn node(&mut self, element: Element) -> &mut Node {
        // Whoever walks an object adds its fields in order.
        let at = match self.0.last() {
            Some((last, _)) if *last >= element => self.0.binary_search_by(|(e, _)| e.cmp(&element)),
            _ => Err(self.0.len()),
        };
        let at = at.unwrap_or_else(|at| {
            self.0.insert(at, (element, Node::default()));
            at
        });
        &mut self.0[at].1
    }

    /// Adds an element itself.
    pub fn insert(&mut self, element: Element) {
        self.node(element).member = true;
    }

    /// Adds an element, itself where `member` says so, and paths below it.
    pub fn insert_with(&mut self, element: Element, member: bool, below: Self) {
        if member || !below.is_empty() {
            let node = self.node(element);
            node.member |= member;
            node.below.add(below);
        }
    }

    /// Adds paths below an element.
    pub fn insert_below(&mut self, element: Element, below: Self) {
        self.insert_with(element, false, below);
    }

    /// Adds a path of field names.
    pub fn insert_path(&mut self, path: &[&str]) {
        match path {
            [] => {}
            [last] => self.insert(field(last)),
            [first, rest @ ..] => self.node(field(first)).below.insert_path(rest),
        }
    }

    #[must_use]
    pub fn has(&self, element: &str) -> bool {
        self.find(element).is_some_and(|n| n.member)
    }

    /// What is below an element.
    #[must_use]
    pub fn below(&self, element: &str) -> Option<&Self> {
        self.find(element).map(|n| &n.below).filter(|s| !s.is_empty())
    }

    /// Adds all of another set.
    pub fn add(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for (element, node) in other.0 {
            self.insert_with(element, node.member, node.below);
        }
    }

    /// Takes the paths of another set out of this one.
    pub fn subtract(&mut self, other: &Self) {
        self.retain(other, &|mine, theirs| {
            mine.member &= !theirs.member;
            mine.below.subtract(&theirs.below);
        });
    }

    /// Takes the paths of another set, and everything below them, out of this one.
    pub fn subtract_whole(&mut self, other: &Self) {
        self.retain(other, &|mine, theirs| {
            if theirs.member {
                *mine = Node::default();
            } else {
                mine.below.subtract_whole(&theirs.below);
            }
        });
    }

    /// Keeps what lies on one of these paths of field names, and everything below their ends; `*` stands for any element.
    pub fn keep(&mut self, paths: &[&[&str]]) {
        self.0.retain_mut(|(element, node)| {
            let here = |first: &str| first == "*" || element.strip_prefix("f:") == Some(first);
            let further: Vec<&[&str]> =
                paths.iter().filter_map(|p| p.split_first()).filter(|(f, _)| here(f)).map(|(_, rest)| rest).collect();
            if further.is_empty() || further.iter().any(|rest| rest.is_empty()) {
                return !further.is_empty();
            }
            node.below.keep(&further);
            node.member || !node.below.is_empty()
        });
    }

    fn retain(&mut self, other: &Self, change: &dyn Fn(&mut Node, &Node)) {
        if other.is_empty() {
            return;
        }
        let mut theirs = other.0.iter().peekable();
        self.0.retain_mut(|(element, mine)| {
            if let Some(theirs) = same(&mut theirs, element) {
                change(mine, theirs);
            }
            mine.member || !mine.below.is_empty()
        });
    }

    /// Whether another set has all of this one.
    #[must_use]
    pub fn is_in(&self, other: &Self) -> bool {
        let mut theirs = other.0.iter().peekable();
        self.0.iter().all(|(element, mine)| {
            let theirs = same(&mut theirs, element);
            theirs.is_some_and(|theirs| (theirs.member || !mine.member) && mine.below.is_in(&theirs.below))
        })
    }

    /// What is in both.
    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        let mut out = Vec::new();
        let mut theirs = other.0.iter().peekable();
        for (element, mine) in &self.0 {
            let Some(theirs) = same(&mut theirs, element) else { continue };
            let node = Node { member: mine.member && theirs.member, below: mine.below.both(&theirs.below) };
            if node.member || !node.below.is_empty() {
                out.push((element.clone(), node));
            }
        }
        Self(out)
    }

    /// Every path, as an error message shows it: `.spec.containers[name="web"].image`.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out
    }

    fn collect(&self, prefix: &mut String, out: &mut Vec<String>) {
        for (element, node) in &self.0 {
            let length = prefix.len();
            prefix.push_str(&shown(element));
            if node.member {
                out.push(prefix.clone());
            }
            node.below.collect(prefix, out);
            prefix.truncate(length);
        }
    }

    /// Visits every element of this level, with whether it is a member and what is below.
    pub fn elements(&self) -> impl Iterator<Item = (&Element, bool, &Self)> {
        self.0.iter().map(|(element, node)| (element, node.member, &node.below))
    }

    /// The value of `fieldsV1`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let entries = self.0.iter().map(|(element, node)| {
            let mut below = node.below.to_json();
            if let (true, false, Value::Object(map)) = (node.member, node.below.is_empty(), &mut below) {
                map.insert(".".into(), Value::Object(Map::new()));
            }
            (element.to_string(), below)
        });
        Value::Object(entries.collect())
    }

    /// Reads the value of `fieldsV1`. `None` when it is not one.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        Some(parse(value, 0)?.1)
    }
}

/// What another sorted list has of an element, asked for one element after the other.
fn same<'a>(others: &mut Peekable<impl Iterator<Item = &'a (Element, Node)>>, element: &Element) -> Option<&'a Node> {
    loop {
        match others.peek()?.0.cmp(element) {
            Ordering::Less => others.next(),
            Ordering::Equal => return others.next().map(|(_, node)| node),
            Ordering::Greater => return None,
        };
    }
}

/// Whether the value says that what it belongs to is a member, and what is below.
fn parse(value: &Value, depth: usize) -> Option<(bool, Set)> {
    let map = value.as_object().filter(|_| depth < MAX_DEPTH)?;
    let mut below = Set(Vec::with_capacity(map.len()));
    for (element, value) in map.iter().filter(|(e, _)| *e != ".") {
        let (member, set) = parse(value, depth + 1)?;
        *below.node(canonical(element)?) = Node { member, below: set };
    }
    Some((map.is_empty() || map.contains_key("."), below))
}

/// An element in the text that we would write. `None` for what is no element.
fn canonical(element: &str) -> Option<Element> {
    let (kind, rest) = element.split_once(':')?;
    match kind {
        "f" => Some(element.into()),
        "i" => rest.parse::<u64>().ok().map(|_| element.into()),
        "v" => Some(value(&serde_json::from_str(rest).ok()?)),
        "k" => match serde_json::from_str(rest).ok()? {
            Value::Object(keys) => Some(key(keys.iter().map(|(name, value)| (name.as_str(), Cow::Borrowed(value))))),
            _ => None,
        },
        _ => None,
    }
}

/// An element as an error message shows it.
#[must_use]
pub fn shown(element: &str) -> String {
    let (kind, rest) = element.split_once(':').unwrap_or_default();
    match kind {
        "f" => format!(".{rest}"),
        "v" => format!("[={rest}]"),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        _ => format!("[{rest}]"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> Set {
        Set::from_json(&value).expect("a set")
    }

    #[test]
    fn paths_are_shown_as_upstream_does() {
        let fields = json!({
            "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:ports": {
                "k:{\"protocol\":\"TCP\",\"containerPort\":80}": {"f:name": {}}}}}},
            "f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}, "f:labels": {"f:app.kubernetes.io/name": {}}},
            "f:list": {"i:3": {}},
        });
        assert_eq!(
            set(fields.clone()).paths(),
            [
                ".list[3]",
                ".metadata.finalizers[=\"a/b\"]",
                ".metadata.labels.app.kubernetes.io/name",
                ".spec.containers[name=\"web\"]",
                ".spec.containers[name=\"web\"].ports[containerPort=80,protocol=\"TCP\"].name",
            ]
        );
        let text = set(fields).to_json().to_string();
        assert!(text.contains(r#""k:{\"containerPort\":80,\"protocol\":\"TCP\"}""#), "keys are put in order: {text}");
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for bad in [
            json!([]),
            json!({"spec": {}}),
            json!({"x:a": {}}),
            json!({"f:a": 1}),
            json!({"k:1": {}}),
            json!({"i:x": {}}),
        ] {
            assert_eq!(Set::from_json(&bad), None, "{bad}");
        }
        let deep = (0..MAX_DEPTH + 1).fold(json!({}), |below, _| json!({"f:a": below}));
        assert_eq!(Set::from_json(&deep), None, "no stack is used up by what a client sends");
    }

    #[test]
    fn a_whole_is_taken_out_with_what_is_below() {
        let mut all = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"f:d": {}, "f:e": {}}}));
        all.subtract_whole(&set(json!({"f:a": {}, "f:c": {"f:d": {}}})));
        assert_eq!(all, set(json!({"f:c": {"f:e": {}}})));
    }

    #[test]
    fn what_lies_on_a_path_is_kept() {
        let mut all = set(json!({"f:spec": {"f:a": {}, "f:list": {
            "k:{\"name\":\"x\"}": {".": {}, "f:b": {"f:c": {}}, "f:d": {}}, "k:{\"name\":\"y\"}": {"f:d": {}}}}}));
        all.keep(&[&["spec", "list", "*", "b"]]);
        assert_eq!(all, set(json!({"f:spec": {"f:list": {"k:{\"name\":\"x\"}": {".": {}, "f:b": {"f:c": {}}}}}})));
    }

    fn any_set() -> impl Strategy<Value = Set> {
        let paths = prop::collection::vec(prop::collection::vec("[a-c]", 1..4), 0..8);
        paths.prop_map(|paths| {
            let mut set = Set::default();
            for path in paths {
                set.insert_path(&path.iter().map(String::as_str).collect::<Vec<_>>());
            }
            set
        })
    }

    fn sorted(mut paths: Vec<String>) -> Vec<String> {
        paths.sort();
        paths
    }

    proptest! {
        #[test]
        fn operations_are_those_of_sets(a in any_set(), b in any_set()) {
            let (pa, pb) = (a.paths(), b.paths());
            let mut sum = a.clone();
            sum.add(b.clone());
            let mut expect: Vec<String> = pa.iter().chain(&pb).cloned().collect();
            expect.sort();
            expect.dedup();
            prop_assert_eq!(sorted(sum.paths()), expect);
            let mut rest = a.clone();
            rest.subtract(&b);
            prop_assert_eq!(sorted(rest.paths()), sorted(pa.iter().filter(|p| !pb.contains(p)).cloned().collect()));
            prop_assert_eq!(a.is_in(&b), pa.iter().all(|p| pb.contains(p)));
            prop_assert_eq!(sorted(a.both(&b).paths()), sorted(pa.iter().filter(|p| pb.contains(p)).cloned().collect()));
            prop_assert_eq!(Set::from_json(&a.to_json()), Some(a));
        }
    }
}
