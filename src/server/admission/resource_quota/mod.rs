//! Decides that nothing in a namespace takes more than its quotas allow. What is used is not read from their statuses,
//! which follow: it is what is stored, and what was let through and is not stored yet. So nothing is written for a
//! check, a write that fails charges nobody, and two writes at once never get the same room.
//!
//! - [`entries`]: which objects use what an entry of a quota limits
//! - [`subject`]: what one object uses, and the scopes it is in; [`of_devices`]: what claims for devices use
//! - [`book`]: the sums of one namespace
//!
//! The process that checks is the one that stores: several servers over one store would each know the others' writes
//! a moment late.

mod book;
mod entries;
mod of_devices;
mod subject;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use self::book::Book;
use self::entries::{CLAIMS, DEVICE_CLAIMS, PODS, SERVICES};
use self::of_devices::DEVICE_CLASSES;
use self::subject::{Place, Subject, is_measured};
use super::{Attributes, Operation};
use crate::api::quantity::Quantity;
use crate::api::quota::Measured;
use crate::api::resource::custom::DEFINITIONS;
use crate::api::resource::{LIST, find_storage};
use crate::api::status::Status;
use crate::clock;
use crate::server::objects::{Changed, SharedObjects};

const QUOTAS: &str = "resourcequotas";
const MEASURED: [&str; 4] = [PODS, SERVICES, CLAIMS, DEVICE_CLAIMS];

/// What is used of the quotas of all namespaces that have any.
pub struct Ledger {
    objects: SharedObjects,
    quotas: Changed,
    classes: Changed,
    measured: [Changed; 4],
    books: Mutex<HashMap<Box<str>, Arc<Mutex<Book>>>>,
    tickets: AtomicU64,
}

/// Room that was given to a write, until this is dropped: after it was stored, or was not.
pub struct Reservation {
    book: Arc<Mutex<Book>>,
    ticket: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.book).settle(self.ticket);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    #[must_use]
    pub fn new(objects: SharedObjects) -> Arc<Self> {
        let (quotas, measured) = (objects.changed(QUOTAS), MEASURED.map(|storage| objects.changed(storage)));
        let classes = objects.changed(DEVICE_CLASSES);
        Arc::new(Self { objects, quotas, classes, measured, books: Mutex::default(), tickets: AtomicU64::new(0) })
    }

    fn made_of(&self) -> (u64, u64) {
        (self.quotas.load(Ordering::Acquire), self.classes.load(Ordering::Acquire))
    }

    /// Room for an object that is about to be written; `None` when no quota is about it, or it takes nothing more.
    ///
    /// # Errors
    /// 403 when there is not enough, or when the object does not say what a quota must know.
    pub fn reserve(&self, a: &Attributes<'_>, object: &Value) -> Result<Option<Reservation>, Status> {
        if !is_charged(a) {
            return Ok(None);
        }
        let Some(book) = self.book(a.namespace) else { return Ok(None) };
        let storage = a.resource.storage;
        let now = clock::now();
        let mut open = lock(&book);
        open.refresh(self.made_of(), &*self.objects, a.namespace, now);
        let subject = Subject::of_value(storage, object);
        for tally in open.tallies.iter().filter(|t| t.is_about(storage, &subject)) {
            let limited = tally.entries.iter().filter(|e| e.is_of(storage)).map(|e| &*e.name);
            if let Some(why) = subject.unsaid(limited) {
                return Err(a.forbidden(Some(object), &format!("failed quota: {}: {why}", tally.name)));
            }
        }
        self.follow(&mut open, a.namespace, Some(storage));
        let place = Place { objects: &*self.objects, namespace: a.namespace };
        let shares = open.shares(storage, &subject, place, now);
        // What was not a quota's before is all new to it.
        let had =
            a.old.map(|old| open.shares(storage, &Subject::of_value(storage, old), place, now)).unwrap_or_default();
        let mut takes = false;
        for of_one in shares.chunk_by(|a, b| a.tally == b.tally) {
            let mut exceeded = Exceeded::default();
            for share in of_one {
                let before = had.iter().find(|s| s.is_of(share)).map_or_else(Quantity::default, |s| s.amount);
                let more = share.amount - before;
                if more.is_zero() || more.is_negative() {
                    continue;
                }
                takes = true;
                let used = open.taken(share, &*self.objects, a.namespace);
                let entry = &open.tallies[share.tally].entries[share.entry];
                if used + more > entry.limit {
                    exceeded.push(&entry.name, more, used, entry.limit);
                }
            }
            if let Some(why) = exceeded.told(&open.tallies[of_one[0].tally].name) {
                return Err(a.forbidden(Some(object), &why));
            }
        }
        if !takes || a.dry_run {
            return Ok(None);
        }
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        open.hold(ticket, storage, a.name, subject, shares);
        drop(open);
        Ok(Some(Reservation { book, ticket }))
    }

    /// A quota as it is now; `None` when there is none of that name.
    #[must_use]
    pub fn measure(&self, namespace: &str, name: &str) -> Option<Measured> {
        let book = self.book(namespace)?;
        let mut open = lock(&book);
        let objects = &*self.objects;
        open.refresh(self.made_of(), objects, namespace, clock::now());
        self.follow(&mut open, namespace, None);
        let t = open.tallies.iter().position(|t| *t.name == *name)?;
        let tally = &open.tallies[t];
        let there = |(_, entry): &(usize, &book::Entry)| is_measured(&entry.storage) || self.is_served(&entry.storage);
        let used = tally.entries.iter().enumerate().filter(there);
        let used = used.map(|(e, entry)| (entry.name.clone(), open.used((t, e), objects, namespace))).collect();
        Some(Measured { hard: tally.hard.clone(), used, until: open.until() })
    }

    /// The book of a namespace that has quotas.
    fn book(&self, namespace: &str) -> Option<Arc<Mutex<Book>>> {
        if self.objects.count(QUOTAS, namespace) == 0 {
            // What holds room in it keeps it.
            if !lock(&self.books).is_empty() {
                lock(&self.books).remove(namespace);
            }
            return None;
        }
        Some(lock(&self.books).entry(namespace.into()).or_default().clone())
    }

    /// Brings what the quotas of a namespace measure up to date: of one resource, or of all.
    fn follow(&self, book: &mut Book, namespace: &str, only: Option<&str>) {
        let entries = || book.tallies.iter().flat_map(|t| &t.entries);
        let (shared, any) = (entries().any(|e| e.may_be_devices), |storage| entries().any(|e| e.is_of(storage)));
        let both = |one: &str| shared && [PODS, DEVICE_CLAIMS].contains(&one);
        let measured = MEASURED.map(any);
        for ((storage, changed), any) in MEASURED.into_iter().zip(&self.measured).zip(measured) {
            let wanted = only.is_none_or(|only| only == storage || (both(only) && both(storage)));
            if wanted && any {
                book.follow(storage, changed.load(Ordering::Acquire), &*self.objects, namespace, clock::now());
            }
        }
    }

    /// There are such objects, in namespaces, or could be.
    fn is_served(&self, storage: &str) -> bool {
        if let Some(row) = find_storage(storage) {
            return row.namespaced && row.has(LIST);
        }
        let Some((group, plural)) = storage.split_once('/') else { return false };
        let definition = self.objects.get(DEFINITIONS, "", &format!("{plural}.{group}"));
        definition.and_then(|d| d.value().ok()).is_some_and(|d| d["spec"]["scope"] == "Namespaced")
    }
}

/// Only of some kinds a change can take more. A pod takes what it was made with, until it is resized.
fn is_charged(a: &Attributes<'_>) -> bool {
    let storage = a.resource.storage;
    !a.namespace.is_empty()
        && storage != "namespaces"
        && match a.operation {
            Operation::Create => a.subresource.is_empty(),
            Operation::Update if storage == PODS => a.subresource == "resize",
            Operation::Update => is_measured(storage) && a.subresource.is_empty(),
            Operation::Delete | Operation::Connect => false,
        }
}

/// The entries of a quota that there is not enough of.
#[derive(Default)]
struct Exceeded {
    requested: Vec<String>,
    used: Vec<String>,
    limited: Vec<String>,
}

impl Exceeded {
    fn push(&mut self, name: &str, requested: Quantity, used: Quantity, limit: Quantity) {
        self.requested.push(format!("{name}={requested}"));
        self.used.push(format!("{name}={used}"));
        self.limited.push(format!("{name}={limit}"));
    }

    fn told(&self, quota: &str) -> Option<String> {
        let [requested, used, limited] = [&self.requested, &self.used, &self.limited].map(|list| list.join(","));
        (!self.requested.is_empty())
            .then(|| format!("exceeded quota: {quota}, requested: {requested}, used: {used}, limited: {limited}"))
    }
}

#[cfg(test)]
mod tests;
