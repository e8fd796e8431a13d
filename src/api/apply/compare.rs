//! Decides: which fields differ between two states of an object, and which fields a document has.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::place::{Place, View};
use super::set::{self, Element, Set};
use crate::api::schema::{Field, Item, Wrap};

static NULL: Value = Value::Null;

/// What changed from one state to the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

/// What happened to one value itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Added,
    Modified,
    Removed,
}

impl Comparison {
    /// Compares two objects. A field that Go always writes counts as there, with its zero, where JSON has left it out.
    #[must_use]
    pub fn of(place: Place<'_>, before: &Value, after: &Value) -> Self {
        let mut out = Self::default();
        if before != after {
            out.descend(place, Some(before), Some(after));
        }
        out
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Forgets what is at or below these paths.
    pub fn exclude(&mut self, paths: &Set) {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.subtract_whole(paths);
        }
    }

    /// What a write can make its writer own, where that is less than everything: see [`Set::keep`].
    pub fn keep(&mut self, paths: &[&[&str]]) {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.keep(paths);
        }
    }

    /// Fills in what differs below a value that differs, and says what happened to the value itself.
    fn descend(&mut self, place: Place<'_>, before: Option<&Value>, after: Option<&Value>) -> Option<Change> {
        let (left, right) = (before.unwrap_or(&NULL), after.unwrap_or(&NULL));
        let own = match (before, after) {
            (None, _) => Some(Change::Added),
            (_, None) => Some(Change::Removed),
            _ => None,
        };
        let view = place.view(if right.is_null() { left } else { right });
        if is_empty(left) && is_empty(right) {
            return own.or(Some(Change::Modified));
        }
        // Where any value may be, something else than an object may take the place of an object.
        let was = if left.is_null() { view } else { place.view(left) };
        match (was, view) {
            (View::Leaf, View::Leaf) => return own.or(Some(Change::Modified)),
            (View::Leaf, object) | (object, View::Leaf) => {
                self.fields(object, before, after);
                return own.or(Some(Change::Modified));
            }
            (_, View::Struct(_) | View::Object(..) | View::Map(_)) => self.fields(view, before, after),
            _ => self.items(view, left, right),
        }
        own
    }

    fn fields(&mut self, view: View<'_>, before: Option<&Value>, after: Option<&Value>) {
        let (left, right) = (before.and_then(Value::as_object), after.and_then(Value::as_object));
        let only_before = left.into_iter().flatten().filter(|(name, _)| right.is_none_or(|r| !r.contains_key(*name)));
        for (name, _) in right.into_iter().flatten().chain(only_before) {
            let (mut l, mut r) = (left.and_then(|o| o.get(name)), right.and_then(|o| o.get(name)));
            // Most are the same, and nothing is made for them.
            if l == r {
                continue;
            }
            let Some(place) = Place::field(view, name) else { continue };
            if let (View::Struct(t), true) = (view, l.is_none() || r.is_none()) {
                // What Go always writes is there, in a struct that is.
                let implied = t.field(name).and_then(zero);
                l = l.or(implied.filter(|_| before.is_some()));
                r = r.or(implied.filter(|_| after.is_some()));
                if l == r {
                    continue;
                }
            }
            self.step(set::field(name), place, l, r);
        }
        // A struct that is new, or no more, has its zeros too.
        let (View::Struct(t), true) = (view, before.is_some() != after.is_some()) else { return };
        let there = left.or(right);
        for field in t.fields.iter().filter(|f| there.is_none_or(|o| !o.contains_key(f.name))) {
            let zero = zero(field);
            let (l, r) = if before.is_some() { (zero, None) } else { (None, zero) };
            if l != r {
                self.step(set::field(field.name), field.into(), l, r);
            }
        }
    }

    fn items(&mut self, view: View<'_>, left: &Value, right: &Value) {
        let item = if let View::Keyed(keys) = view { Some(keys.item) } else { None };
        let mut all: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
        for (side, list) in [(0, left), (1, right)] {
            for value in list.as_array().into_iter().flatten() {
                let Ok(element) = view.element(value) else { continue };
                let sides = all.entry(element).or_default();
                if side == 0 { sides.0.push(value) } else { sides.1.push(value) }
            }
        }
        for (element, (l, r)) in all {
            let below = |out: &mut Self, element, l: Option<&Value>, r: Option<&Value>| match item {
                Some(place) if l != r => out.step(element, place, l, r),
                Some(_) => {}
                None if l.is_none() => out.added.insert(element),
                None if r.is_none() => out.removed.insert(element),
                None => {}
            };
            match (l.as_slice(), r.as_slice()) {
                // Items that share a name are owned as one.
                ([_, _, ..], [_, _, ..]) => {
                    if l != r {
                        self.modified.insert(element);
                    }
                }
                ([_, _, ..], r) => {
                    if let Some(r) = r.first() {
                        below(self, element.clone(), None, Some(r));
                    }
                    self.removed.insert(element);
                }
                (l, [_, _, ..]) => {
                    if let Some(l) = l.first() {
                        below(self, element.clone(), Some(l), None);
                    }
                    self.added.insert(element);
                }
                (l, r) => below(self, element, l.first().copied(), r.first().copied()),
            }
        }
    }

    /// Into a value that differs.
    fn step(&mut self, element: Element, place: Place<'_>, before: Option<&Value>, after: Option<&Value>) {
        let mut below = Self::default();
        let own = below.descend(place, before, after);
        let sets = [
            (&mut self.added, below.added, Change::Added),
            (&mut self.modified, below.modified, Change::Modified),
            (&mut self.removed, below.removed, Change::Removed),
        ];
        for (set, below, change) in sets {
            if own == Some(change) || !below.is_empty() {
                set.insert_with(element.clone(), own == Some(change), below);
            }
        }
    }
}

/// A list or map of nothing.
#[must_use]
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// What Go writes for a field that it always writes.
fn zero(field: &Field) -> Option<&'static Value> {
    static ZEROS: LazyLock<[Value; 5]> = LazyLock::new(|| [json!({}), json!(""), json!(false), json!(0), json!("0")]);
    let zeros = field.always.then(|| &*ZEROS)?;
    Some(match (field.shape.wrap, field.shape.item) {
        _ if field.pointer => &NULL,
        (Wrap::One, Item::Object(_)) => &zeros[0],
        (Wrap::One, Item::String) => &zeros[1],
        (Wrap::One, Item::Bool) => &zeros[2],
        (Wrap::One, Item::Int32 | Item::Int64 | Item::Double | Item::IntOrString) => &zeros[3],
        (Wrap::One, Item::Quantity) => &zeros[4],
        _ => &NULL,
    })
}

/// The fields that a document has: what an applier of it owns.
#[must_use]
pub fn fields_of(place: Place<'_>, value: &Value) -> Set {
    let mut out = Set::default();
    let view = place.view(value);
    match view {
        View::Leaf => {}
        View::Struct(_) | View::Object(..) | View::Map(_) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let Some(place) = Place::field(view, name) else { continue };
                let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                let member = empty || !view.names(name) || matches!(place.view(value), View::Leaf);
                out.insert_with(set::field(name), member, fields_of(place, value));
            }
        }
        View::Set | View::Keyed(_) => {
            let mut all: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
            for item in value.as_array().into_iter().flatten() {
                if let Ok(element) = view.element(item) {
                    all.entry(element).or_default().push(item);
                }
            }
            for (element, items) in all {
                let below = match (view, items.as_slice()) {
                    (View::Keyed(keys), [item]) => fields_of(keys.item, item),
                    _ => Set::default(),
                };
                out.insert_with(element, true, below);
            }
        }
    }
    out
}

/// The same set, where a field of a struct counts as owned when something below it is. Free names do not.
#[must_use]
pub fn with_structs(place: Place<'_>, set: &Set) -> Set {
    let mut out = Set::default();
    // Only the shape of the schema matters: where it allows any value, names are free.
    let view = place.view(&Value::Null);
    for (element, member, below) in set.elements() {
        let name = element.strip_prefix("f:");
        let place = match view {
            View::Keyed(keys) => Some(keys.item),
            _ => name.and_then(|name| Place::field(view, name)),
        };
        let named = || place.is_some() && name.is_some_and(|name| view.names(name));
        let member = member || (!below.is_empty() && named());
        let below = place.map_or_else(|| below.clone(), |place| with_structs(place, below));
        out.insert_with(element.clone(), member, below);
    }
    out
}
