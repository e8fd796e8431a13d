//! Effects: selecting custom resources by their fields in the version of the request, where that is not how they are
//! stored: each object is converted before it is known whether it is selected.
//!
//! ```text
//! lists:    stored objects ─▶ name, namespace, labels ─▶ converted ─▶ fields ─▶ (stored form of the selected)
//! watches:  the state at the start, selected ─▶ known
//!           event ─▶ converted ─▶ selected now? known before? ─▶ ADDED, MODIFIED, DELETED or nothing
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt as _, stream};

use super::Entry;
use crate::api::key::Key;
use crate::api::object::ObjectRef;
use crate::api::selector::FieldSelector;
use crate::api::status::Status;
use crate::server::cache::Cache;
use crate::server::cache::watch::{Bookmarks, Event, Filter, Start, Watch};

/// Whether the objects have to be converted for a filter.
pub(super) fn is_by_form(entry: &Entry, filter: &Filter) -> bool {
    entry.converts_fields() && filter.fields.0.iter().any(|term| filter.selectable.contains(&term.field.as_str()))
}

/// The objects that such a filter selects, as they are stored.
///
/// # Errors
/// What kept one of them from being converted.
pub(super) async fn select(
    entry: &Entry,
    filter: &Filter,
    mut items: Vec<ObjectRef>,
) -> Result<Vec<ObjectRef>, Status> {
    let rough = without_form(filter);
    items.retain(|item| rough.selects(item));
    let forms = entry.wire_all(items.clone()).await?;
    Ok(items.into_iter().zip(forms).filter(|(_, form)| filter.selects(form)).map(|(item, _)| item).collect())
}

/// A watch by such a filter, in the version of the request.
pub(super) fn watch(cache: Arc<Cache>, entry: Arc<Entry>, filter: Filter, start: Start, bookmarks: Bookmarks) -> Watch {
    let rough = without_form(&filter);
    let namespace = filter.namespace.as_deref();
    // What the watch begins with besides what it is told, and from where it is told.
    let (state, start) = match start {
        Start::State { .. } => (Vec::new(), start),
        Start::Now => {
            let (items, at) = cache.list(&entry.storage, namespace);
            (items, Start::After(at))
        }
        // A revision that is too old is the first that the stream says.
        Start::After(at) => (cache.list_at(&entry.storage, namespace, at).unwrap_or_default(), start),
    };
    let events = cache.watch(&entry.storage, rough, start, bookmarks);
    let selecting = async move {
        let mut known = Known { entry, filter, objects: HashMap::new() };
        match known.begin(state).await {
            Ok(()) => stream::unfold((events, known), next).left_stream(),
            Err(status) => stream::iter([Err(status)]).right_stream(),
        }
    };
    Watch::new(stream::once(selecting).flatten())
}

/// The part of a filter that does not depend on the version.
fn without_form(filter: &Filter) -> Filter {
    let common = filter.fields.0.iter().filter(|term| !filter.selectable.contains(&term.field.as_str()));
    Filter { fields: FieldSelector(common.cloned().collect()), ..filter.clone() }
}

async fn next((mut events, mut known): (Watch, Known)) -> Option<(Result<Event, Status>, (Watch, Known))> {
    loop {
        let told = match events.next().await? {
            Ok(event) => known.tell(event).await.transpose(),
            Err(status) => Some(Err(status)),
        };
        if let Some(told) = told {
            return Some((told, (events, known)));
        }
    }
}

/// What a watch has told of: the last selected state of each object, in the version of the request.
struct Known {
    entry: Arc<Entry>,
    filter: Filter,
    objects: HashMap<Key, ObjectRef>,
}

impl Known {
    async fn begin(&mut self, state: Vec<ObjectRef>) -> Result<(), Status> {
        let forms = self.entry.wire_all(state).await?;
        let selected = forms.into_iter().filter(|form| self.filter.selects(form));
        self.objects.extend(selected.map(|form| (form.key.clone(), form)));
        Ok(())
    }

    /// What an event is to this watch.
    async fn tell(&mut self, event: Event) -> Result<Option<Event>, Status> {
        let object = match event {
            Event::Added(object) | Event::Modified(object) => object,
            Event::Deleted(object) => {
                let Some(last) = self.objects.remove(&object.key) else { return Ok(None) };
                return Ok(Some(Event::Deleted(Arc::new(last.at(object.revision)))));
            }
            bookmark @ Event::Bookmark { .. } => return Ok(Some(bookmark)),
        };
        let form = self.entry.wire(object).await?;
        if !self.filter.selects(&form) {
            let last = self.objects.remove(&form.key);
            return Ok(last.map(|last| Event::Deleted(Arc::new(last.at(form.revision)))));
        }
        Ok(Some(match self.objects.insert(form.key.clone(), form.clone()) {
            None => Event::Added(form),
            Some(_) => Event::Modified(form),
        }))
    }
}
