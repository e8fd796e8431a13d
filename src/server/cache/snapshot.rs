//! Decides: what a resource looked like at an earlier revision, by undoing the events since. This is what makes the
//! pages of one list fit together.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::shelf::Objects;
use super::window::Window;
use crate::api::object::ObjectRef;
use crate::api::revision::Revision;

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// One namespace, or all.
    pub namespace: Option<&'a str>,
    /// What comes after this namespace and name.
    pub after: Option<(&'a str, &'a str)>,
    /// So many at most; the rest is counted.
    pub limit: usize,
}

impl<'a> Page<'a> {
    /// All of it.
    #[must_use]
    pub fn all(namespace: Option<&'a str>) -> Self {
        Self { namespace, after: None, limit: usize::MAX }
    }

    /// What follows the place where the page begins, by namespace and name.
    fn of<'o>(self, objects: &'o Objects) -> impl Iterator<Item = &'o ObjectRef> + use<'o, 'a> {
        let first = self.namespace.into_iter().chain(self.after.map(|(namespace, _)| namespace)).max();
        let of_it = objects.range::<str, _>((first.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded));
        of_it.take_while(move |(name, _)| self.namespace.is_none_or(|n| *n == ***name)).flat_map(
            move |(name, names)| {
                let first = match self.after {
                    Some((namespace, last)) if *namespace == **name => Bound::Excluded(last),
                    _ => Bound::Unbounded,
                };
                names.range::<str, _>((first, Bound::Unbounded)).map(|(_, object)| object)
            },
        )
    }

    fn has(self, object: &ObjectRef) -> bool {
        let key = &object.key;
        self.namespace.is_none_or(|n| *n == *key.namespace)
            && self.after.is_none_or(|after| (&*key.namespace, &*key.name) > after)
    }
}

/// A page of the state that is there, and how much follows it.
pub fn now(objects: &Objects, page: Page<'_>) -> (Vec<ObjectRef>, usize) {
    let mut found = page.of(objects);
    let items: Vec<ObjectRef> = found.by_ref().take(page.limit).cloned().collect();
    let rest = match page {
        // Without a walk through all of them.
        Page { namespace: Some(one), after: None, .. } => objects.get(one).map_or(0, BTreeMap::len) - items.len(),
        Page { namespace: None, after: None, .. } => objects.values().map(BTreeMap::len).sum::<usize>() - items.len(),
        _ => found.count(),
    };
    (items, rest)
}

/// A page of the state at `at`, and how much followed it; `None` when the window does not reach back to it.
pub fn at(objects: &Objects, window: &Window, page: Page<'_>, at: Revision) -> Option<(Vec<ObjectRef>, usize)> {
    // Newest first, so the entry that stays is the state before the first event after `at`.
    let mut undone: BTreeMap<(Arc<str>, Arc<str>), Option<ObjectRef>> = BTreeMap::new();
    for event in window.undo(at)? {
        let Some(object) = event.after.as_ref().or(event.gone.as_ref()) else { continue };
        if page.has(object) {
            undone.insert((object.key.namespace.clone(), object.key.name.clone()), event.before.clone());
        }
    }
    if undone.is_empty() {
        return Some(now(objects, page));
    }
    let mut undone = undone.into_iter().peekable();
    let mut items = Vec::new();
    let mut rest = 0;
    let mut give = |object: ObjectRef| {
        if items.len() < page.limit { items.push(object) } else { rest += 1 }
    };
    for object in page.of(objects) {
        let key = (object.key.namespace.clone(), object.key.name.clone());
        while let Some((_, before)) = undone.next_if(|(k, _)| *k < key) {
            before.into_iter().for_each(&mut give);
        }
        match undone.next_if(|(k, _)| *k == key) {
            Some((_, before)) => before.into_iter().for_each(&mut give),
            None => give(object.clone()),
        }
    }
    undone.filter_map(|(_, before)| before).for_each(give);
    Some((items, rest))
}
