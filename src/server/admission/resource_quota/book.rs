//! Decides: what the quotas of one namespace allow and what is used of them: kept as sums, which follow the objects when
//! someone asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaSpec, ScopedResourceSelectorRequirement as Requirement};

use super::entries::{DEVICE_CLAIMS, may_be_devices, storage_of};
use super::subject::{Place, Subject, is_measured};
use crate::api::object::ObjectRef;
use crate::api::quantity::{Format, Quantity};
use crate::api::quota::Amounts;
use crate::api::revision::Revision;
use crate::server::admission::pod_resources::parse;
use crate::server::objects::Objects;

/// One quota.
pub struct Tally {
    pub name: Arc<str>,
    pub hard: Amounts,
    /// The entries that something can use.
    pub entries: Vec<Entry>,
    pub scopes: Vec<Requirement>,
    spec: ResourceQuotaSpec,
}

pub struct Entry {
    pub name: String,
    /// Whose objects use it.
    pub storage: Box<str>,
    /// So do claims for devices.
    pub may_be_devices: bool,
    pub limit: Quantity,
    /// By what is stored and measured. What is only counted is counted when someone asks.
    used: Quantity,
}

/// What an object uses of one entry of a quota: both by their places.
#[derive(Clone, Copy)]
pub struct Share {
    pub tally: usize,
    pub entry: usize,
    pub amount: Quantity,
}

impl Share {
    /// Of the same entry.
    pub fn is_of(&self, other: &Self) -> bool {
        (self.tally, self.entry) == (other.tally, other.entry)
    }
}

#[derive(Default)]
pub struct Book {
    /// The revisions of all quotas, and of all device classes, that the tallies were made of.
    made_at: Option<(u64, u64)>,
    pub tallies: Vec<Tally>,
    seen: HashMap<&'static str, Seen>,
    pending: HashMap<u64, Pending>,
}

/// The objects of a resource, by name, and what they use.
#[derive(Default)]
struct Seen {
    at: Option<u64>,
    objects: Vec<One>,
    /// When one of them has to be measured again.
    until: Option<Timestamp>,
}

struct One {
    name: Arc<str>,
    revision: Revision,
    shares: Vec<Share>,
    until: Option<Timestamp>,
}

/// A write that was let through, and is not stored yet.
struct Pending {
    storage: &'static str,
    name: Box<str>,
    subject: Subject,
    /// All that the object will use.
    shares: Vec<Share>,
}

impl Entry {
    pub fn is_of(&self, storage: &str) -> bool {
        *self.storage == *storage || (self.may_be_devices && storage == DEVICE_CLAIMS)
    }
}

impl Tally {
    fn new(quota: ResourceQuota) -> Self {
        let spec = quota.spec.unwrap_or_default();
        let hard = parse(spec.hard.as_ref());
        let entry = |(name, limit): (&String, &Quantity)| {
            let storage = storage_of(name)?.into();
            Some(Entry {
                name: name.clone(),
                storage,
                may_be_devices: may_be_devices(name),
                limit: *limit,
                used: zero(),
            })
        };
        let plain = |scope: &String| Requirement { scope_name: scope.clone(), operator: "Exists".into(), values: None };
        let selected = spec.scope_selector.iter().filter_map(|s| s.match_expressions.as_ref()).flatten().cloned();
        Self {
            name: quota.metadata.name.unwrap_or_default().into(),
            entries: hard.iter().filter_map(entry).collect(),
            hard,
            scopes: spec.scopes.iter().flatten().map(plain).chain(selected).collect(),
            spec,
        }
    }

    /// Whether the quota is about such an object.
    pub fn is_about(&self, storage: &str, subject: &Subject) -> bool {
        self.entries.iter().any(|e| e.is_of(storage)) && self.scopes.iter().all(|s| subject.is_in(s))
    }
}

impl Book {
    /// Takes the quotas as they are now. Their statuses change often, and nothing is measured again for those.
    pub fn refresh(&mut self, at: (u64, u64), objects: &dyn Objects, namespace: &str, now: Timestamp) {
        if self.made_at == Some(at) {
            return;
        }
        let quotas = objects.list("resourcequotas", Some(namespace));
        let quotas = quotas.iter().filter_map(|q| q.typed::<ResourceQuota>().ok());
        let tallies: Vec<Tally> = quotas.map(Tally::new).collect();
        let classes = self.made_at.replace(at).map(|(_, classes)| classes);
        // What a claim uses depends on what the classes say.
        let unchanged = classes == Some(at.1) || !tallies.iter().flat_map(|t| &t.entries).any(|e| e.may_be_devices);
        let same = |(a, b): (&Tally, &Tally)| a.name == b.name && a.spec == b.spec;
        if unchanged && tallies.len() == self.tallies.len() && tallies.iter().zip(&self.tallies).all(same) {
            return;
        }
        self.tallies = tallies;
        self.seen.clear();
        for pending in self.pending.values_mut() {
            let place = Place { objects, namespace };
            pending.shares = shares(&self.tallies, pending.storage, &pending.subject, place, now).0;
        }
    }

    /// Follows the objects of a resource. `at`: the revision of its last change.
    pub fn follow(&mut self, storage: &'static str, at: u64, objects: &dyn Objects, namespace: &str, now: Timestamp) {
        let before = self.seen.remove(storage).unwrap_or_default();
        if before.at == Some(at) && before.until.is_none_or(|until| now <= until) {
            self.seen.insert(storage, before);
            return;
        }
        let mut old = before.objects.into_iter().peekable();
        let mut seen = Seen { at: Some(at), ..Seen::default() };
        for object in objects.list(storage, Some(namespace)) {
            while let Some(gone) = old.next_if(|o| o.name < object.key.name) {
                self.subtract(&gone.shares);
            }
            let one = match old.next_if(|o| o.name == object.key.name) {
                Some(one) if one.revision == object.revision && one.until.is_none_or(|until| now <= until) => one,
                changed => {
                    if let Some(changed) = changed {
                        self.subtract(&changed.shares);
                    }
                    self.measure(storage, &object, Place { objects, namespace }, now)
                }
            };
            seen.until = earlier(seen.until, one.until);
            seen.objects.push(one);
        }
        old.for_each(|gone| self.subtract(&gone.shares));
        self.seen.insert(storage, seen);
    }

    fn measure(&mut self, storage: &str, object: &ObjectRef, place: Place<'_>, now: Timestamp) -> One {
        let subject = Subject::of_object(object);
        let (shares, until) = shares(&self.tallies, storage, &subject, place, now);
        for share in &shares {
            self.tallies[share.tally].entries[share.entry].used += share.amount;
        }
        One { name: object.key.name.clone(), revision: object.revision, shares, until }
    }

    fn subtract(&mut self, shares: &[Share]) {
        for share in shares {
            self.tallies[share.tally].entries[share.entry].used -= share.amount;
        }
    }

    /// What is used of an entry by what is stored, without the writes that were let through.
    pub fn used(&self, (tally, entry): (usize, usize), objects: &dyn Objects, namespace: &str) -> Quantity {
        let entry = &self.tallies[tally].entries[entry];
        if is_measured(&entry.storage) {
            return entry.used;
        }
        let scoped = !self.tallies[tally].scopes.is_empty();
        let count = if scoped { 0 } else { objects.count(&entry.storage, namespace) };
        Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::Decimal)
    }

    /// The same of the entry of a share, with the writes that were let through.
    pub fn taken(&self, share: &Share, objects: &dyn Objects, namespace: &str) -> Quantity {
        let entry = &self.tallies[share.tally].entries[share.entry];
        let storage = &*entry.storage;
        let taken = || {
            let pending = self.pending.values().filter(|p| entry.is_of(p.storage));
            let pending: Quantity = pending.map(|p| self.unstored(p, share, objects, namespace)).sum();
            pending + self.used((share.tally, share.entry), objects, namespace)
        };
        if is_measured(storage) {
            return taken();
        }
        // One of them may be stored after it was looked for and before all are counted.
        let changed = objects.changed(storage);
        loop {
            let before = changed.load(Ordering::Acquire);
            let taken = taken();
            if changed.load(Ordering::Acquire) == before {
                return taken;
            }
        }
    }

    /// What a write that was let through takes of an entry besides what its object has already.
    fn unstored(&self, pending: &Pending, share: &Share, objects: &dyn Objects, namespace: &str) -> Quantity {
        let of = |shares: &[Share]| shares.iter().find(|s| s.is_of(share)).map_or_else(zero, |s| s.amount);
        let stored = match self.seen.get(pending.storage) {
            Some(seen) => {
                let place = seen.objects.binary_search_by(|o| (*o.name).cmp(&pending.name));
                place.map_or_else(|_| zero(), |i| of(&seen.objects[i].shares))
            }
            None if objects.get(pending.storage, namespace, &pending.name).is_some() => of(&pending.shares),
            None => zero(),
        };
        of(&pending.shares).max(stored) - stored
    }

    /// What an object uses.
    pub fn shares(&self, storage: &str, subject: &Subject, place: Place<'_>, now: Timestamp) -> Vec<Share> {
        shares(&self.tallies, storage, subject, place, now).0
    }

    pub fn until(&self) -> Option<Timestamp> {
        self.seen.values().filter_map(|s| s.until).min()
    }

    /// Holds what an object will use until [`Book::settle`].
    pub fn hold(&mut self, ticket: u64, storage: &'static str, name: &str, subject: Subject, shares: Vec<Share>) {
        self.pending.insert(ticket, Pending { storage, name: name.into(), subject, shares });
    }

    pub fn settle(&mut self, ticket: u64) {
        self.pending.remove(&ticket);
    }
}

fn zero() -> Quantity {
    Quantity::from_units(0, Format::Decimal)
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    a.into_iter().chain(b).min()
}

/// Also: until when, if it uses less after that.
fn shares(
    tallies: &[Tally],
    storage: &str,
    subject: &Subject,
    place: Place<'_>,
    now: Timestamp,
) -> (Vec<Share>, Option<Timestamp>) {
    let (usage, until) = subject.usage(place, now);
    let mut shares = Vec::new();
    for (tally, of) in tallies.iter().enumerate().filter(|(_, t)| t.is_about(storage, subject)) {
        for (entry, of) in of.entries.iter().enumerate().filter(|(_, e)| e.is_of(storage)) {
            // What is only counted counts one.
            let one = || (!is_measured(storage)).then(|| Quantity::from_units(1, Format::Decimal));
            if let Some(amount) = usage.get(&of.name).copied().or_else(one).filter(|amount| !amount.is_zero()) {
                shares.push(Share { tally, entry, amount });
            }
        }
    }
    (shares, until)
}
