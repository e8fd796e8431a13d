//! Decides: server-side apply: who owns which field, what an applied document makes of an object, and who is in the
//! way (KEP-555, <https://kubernetes.io/docs/reference/using-api/server-side-apply/>).
//!
//! ```text
//! any write   live, new ─▶ compare ─▶ changed fields leave their owners and go to the writer
//! apply       live + document ─▶ merge ─▶ prune what the applier had and dropped ─▶ compare
//!                                  ─▶ changed fields of others are conflicts, unless forced
//! ```
//!
//! Paths are [`set`], owners [`owners`]; what a value is to them is [`place`]. The words and the order of everything are
//! those of `sigs.k8s.io/structured-merge-diff` and `k8s.io/apimachinery/pkg/util/managedfields`.

pub mod compare;
pub mod last_applied;
pub mod merge;
pub mod owners;
pub mod place;
pub mod set;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use self::compare::{Comparison, fields_of, with_structs};
use self::owners::{Operation, Owner, Owners};
use self::place::Place;
use self::set::Set;
use super::status::{Cause, Details, Status};

/// Who owns what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The writer who gives no name.
const UNKNOWN: &str = "unknown";
/// Nobody owns these: the server sets them, or they name the object.
static NOT_OWNED: LazyLock<Set> = LazyLock::new(|| {
    let mut out = Set::default();
    ["apiVersion", "kind", "metadata"].iter().for_each(|name| out.insert_path(&[name]));
    for name in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        out.insert_path(&["metadata", name]);
    }
    out
});

/// A write: by whom, in which version, and what it cannot change.
pub struct Writer<'a> {
    /// Empty when the client named none.
    pub manager: &'a str,
    /// The version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    /// `status`, `scale`… or empty.
    pub subresource: &'a str,
    /// RFC 3339 in UTC, whole seconds.
    pub now: &'a str,
    /// Fields that the write resets, such as `status` of the main resource: nobody comes to own them by it.
    pub resets: &'a Set,
    /// Paths outside of which the write changes nothing, as [`Set::keep`] reads them; empty when it changes anything.
    pub only: &'a [&'a [&'a str]],
    pub versions: &'a dyn Versions,
}

/// The versions in which the objects of a resource can be had.
pub trait Versions {
    /// `None` for a version that there is not.
    fn place(&self, api_version: &str) -> Option<Place<'_>>;
    /// Converts an object between two versions that there are.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Value;
}

/// Fields that others own and an apply would change.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflicts(Vec<(Owner, Set)>);

/// What an apply makes of an object.
#[derive(Debug)]
pub struct Applied {
    pub object: Value,
    pub owners: Owners,
}

/// Why a document cannot be applied.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    Conflicts(Conflicts),
    Status(Status),
}

impl Writer<'_> {
    fn actor(&self, operation: Operation) -> Owner {
        Owner {
            manager: if self.manager.is_empty() { UNKNOWN } else { self.manager }.into(),
            operation,
            api_version: self.api_version.into(),
            time: self.now.into(),
            subresource: self.subresource.into(),
            fields: Set::default(),
        }
    }

    fn place(&self) -> Result<Place<'_>, Status> {
        let version = self.api_version;
        self.versions.place(version).ok_or_else(|| Status::internal(format!("no schema of version {version:?}")))
    }

    fn compare(&self, place: Place<'_>, live: &Value, new: &Value) -> Comparison {
        let mut comparison = Comparison::of(place, live, new);
        comparison.exclude(self.resets);
        if !self.only.is_empty() {
            comparison.keep(self.only);
        }
        comparison
    }

    /// The owners after a write that is no apply. `live` is an empty object when `new` is created.
    ///
    /// # Errors
    /// When there is no schema.
    pub fn updated(&self, live: &Value, new: &Value, mut owners: Owners) -> Result<Owners, Status> {
        let comparison = self.compare(self.place()?, live, new);
        if comparison.is_empty() {
            return Ok(owners);
        }
        for (at, (_, conflict)) in self.conflicts(live, new, &comparison, &owners, None) {
            owners.0[at].fields.subtract(&conflict);
        }
        self.remove(live, new, &comparison, &mut owners, None);
        let mut taken = comparison.modified;
        taken.add(comparison.added);
        taken.subtract(&NOT_OWNED);
        if !taken.is_empty() {
            let entry = owners.entry(&self.actor(Operation::Update));
            entry.fields.add(taken);
            entry.time = self.now.into();
        }
        owners.0.retain(|o| !o.fields.is_empty());
        owners.limit();
        Ok(owners)
    }

    /// Applies a document. `live` is an empty object when it is created.
    ///
    /// # Errors
    /// [`Refusal::Conflicts`] unless `force`; a Status for a document that is not of the schema.
    pub fn applied(&self, live: &Value, document: &Value, mut owners: Owners, force: bool) -> Result<Applied, Refusal> {
        let place = self.place().map_err(Refusal::Status)?;
        let problems = merge::problems(place, document);
        if !problems.is_empty() {
            return Err(Refusal::Status(unfit(document, &problems)));
        }
        if owners.0.is_empty() {
            let first = Writer { manager: BEFORE_FIRST_APPLY, ..*self };
            owners = first.updated(&Value::Object(serde_json::Map::new()), live, owners).map_err(Refusal::Status)?;
        }
        let actor = self.actor(Operation::Apply);
        let mut fields = fields_of(place, document);
        fields.subtract_whole(self.resets);
        if !self.only.is_empty() {
            fields.keep(self.only);
        }
        let last = owners.put(Owner { fields, ..actor.clone() });

        let merged = merge::merge(place, Some(live), document);
        let object = match &last {
            Some(last) if self.drops(last, &owners) => self.prune(merged, &owners, last),
            _ => merged,
        };
        let comparison = self.compare(place, live, &object);
        let conflicts = self.conflicts(live, &object, &comparison, &owners, Some(&actor));
        if !force && !conflicts.is_empty() {
            return Err(Refusal::Conflicts(Conflicts(conflicts.into_values().collect())));
        }
        for (at, (_, conflict)) in conflicts {
            owners.0[at].fields.subtract(&conflict);
        }
        self.remove(live, &object, &comparison, &mut owners, Some(&actor));
        let entry = owners.entry(&actor);
        entry.fields.subtract(&NOT_OWNED);
        if let Some(last) = last
            && comparison.is_empty()
            && (&last.fields, &last.api_version) == (&entry.fields, &entry.api_version)
        {
            entry.time = last.time;
        }
        owners.0.retain(|o| !o.fields.is_empty());
        Ok(Applied { object, owners })
    }

    /// The comparison as the fields of an owner are named.
    fn compared_for(&self, owner: &Owner, live: &Value, new: &Value) -> Option<Comparison> {
        let to = owner.api_version.as_str();
        let place = self.versions.place(to)?;
        let [live, new] = [live, new].map(|object| self.versions.convert(object, self.api_version, to));
        Some(self.compare(place, &live, &new))
    }

    /// The changed fields that owners have, by the place of the owner.
    fn conflicts(
        &self,
        live: &Value,
        new: &Value,
        comparison: &Comparison,
        owners: &Owners,
        but: Option<&Owner>,
    ) -> BTreeMap<usize, (Owner, Set)> {
        let mut out = BTreeMap::new();
        for (at, owner) in owners.0.iter().enumerate().filter(|(_, o)| !but.is_some_and(|actor| o.is(actor))) {
            let other = if owner.api_version == self.api_version { None } else { self.compared_for(owner, live, new) };
            let comparison = match (&other, owner.api_version == self.api_version) {
                (Some(comparison), _) => comparison,
                (None, true) => comparison,
                // Nobody can own fields of a version that is gone.
                (None, false) => continue,
            };
            let mut conflict = owner.fields.both(&comparison.modified);
            conflict.add(owner.fields.both(&comparison.added));
            if !conflict.is_empty() {
                out.insert(at, (owner.clone(), conflict));
            }
        }
        out
    }

    /// Takes what is no longer there from its owners, and owners of versions that are gone out of the list.
    fn remove(&self, live: &Value, new: &Value, comparison: &Comparison, owners: &mut Owners, but: Option<&Owner>) {
        owners.0.retain_mut(|owner| {
            if but.is_some_and(|actor| owner.is(actor)) {
                return true;
            }
            if owner.api_version == self.api_version {
                owner.fields.subtract(&comparison.removed);
                return true;
            }
            let Some(comparison) = self.compared_for(owner, live, new) else { return false };
            owner.fields.subtract(&comparison.removed);
            true
        });
    }

    /// Whether the applier had something that it no longer has: seldom, and all that [`Self::prune`] can act upon.
    fn drops(&self, last: &Owner, owners: &Owners) -> bool {
        let now = owners.find(last).map(|owner| &owner.fields);
        let other_version = last.api_version != self.api_version && !last.fields.is_empty();
        other_version || now.is_none_or(|now| !last.fields.is_in(now))
    }

    /// Takes out what the applier had before and neither it nor anyone else has now.
    fn prune(&self, merged: Value, owners: &Owners, last: &Owner) -> Value {
        let Some(place) = self.versions.place(&last.api_version) else { return merged };
        let merged = self.versions.convert(&merged, self.api_version, &last.api_version);
        let had = with_structs(place, &last.fields);
        let empty = || Value::Object(serde_json::Map::new());
        let mut pruned = merge::without(place, merged.clone(), &had).unwrap_or_else(empty);

        let mut by_version: BTreeMap<&str, Set> = BTreeMap::new();
        for owner in &owners.0 {
            by_version.entry(&owner.api_version).or_default().add(owner.fields.clone());
        }
        for (version, owned) in by_version {
            let Some(place) = self.versions.place(version) else { continue };
            let whole = self.versions.convert(&merged, &last.api_version, version);
            let mut kept =
                with_structs(place, &fields_of(place, &self.versions.convert(&pruned, &last.api_version, version)));
            kept.add(with_structs(place, &owned));
            let mut gone = with_structs(place, &fields_of(place, &whole));
            gone.subtract(&kept);
            let left = merge::without(place, whole, &gone).unwrap_or_else(empty);
            pruned = self.versions.convert(&left, version, &last.api_version);
        }

        // Whatever the applier did not have stays.
        let mut gone = with_structs(place, &fields_of(place, &merged));
        gone.subtract(&with_structs(place, &fields_of(place, &pruned)));
        let left = merge::without(place, merged, &gone.both(&had)).unwrap_or_else(empty);
        self.versions.convert(&left, &last.api_version, self.api_version)
    }
}

fn unfit(document: &Value, problems: &[String]) -> Status {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text(&document["metadata"]["namespace"]), text(&document["metadata"]["name"]));
    let (version, kind) = (text(&document["apiVersion"]), text(&document["kind"]));
    let why = match problems {
        [one] => one.clone(),
        all => format!("errors:\n  {}", all.join("\n  ")),
    };
    Status::bad_request(format!(
        "failed to create typed patch object ({namespace}/{name}; {version}, Kind={kind}): {why}"
    ))
}

impl Conflicts {
    /// Forgets conflicts about these fields; `None` when none is left.
    #[must_use]
    pub fn without(mut self, fields: &Set) -> Option<Self> {
        self.0.iter_mut().for_each(|(_, conflict)| conflict.subtract(fields));
        self.0.retain(|(_, conflict)| !conflict.is_empty());
        (!self.0.is_empty()).then_some(self)
    }

    /// 409 with a cause for each field.
    #[must_use]
    pub fn status(&self) -> Status {
        let mut each: Vec<(String, Vec<String>)> = self.0.iter().map(|(o, set)| (o.to_string(), set.paths())).collect();
        each.sort();
        let count: usize = each.iter().map(|(_, paths)| paths.len()).sum();
        let message = match each.as_slice() {
            [(owner, paths)] if count == 1 => {
                format!("Apply failed with 1 conflict: conflict with {owner}: {}", paths[0])
            }
            _ => {
                let lines = each.iter().flat_map(|(owner, paths)| {
                    std::iter::once(format!("conflicts with {owner}:")).chain(paths.iter().map(|p| format!("- {p}")))
                });
                format!("Apply failed with {count} conflicts: {}", lines.collect::<Vec<_>>().join("\n"))
            }
        };
        let causes = each
            .iter()
            .flat_map(|(owner, paths)| paths.iter().map(move |path| (owner, path)))
            .map(|(owner, path)| Cause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {owner}"),
                field: path.clone(),
            })
            .collect();
        Status::new(409, "Conflict", message).with_details(Details { causes, ..Details::default() })
    }
}
