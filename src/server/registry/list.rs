//! Effects: list and watch. Everything comes from the cache.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::request::{Context, Event, List, ListOptions, RevisionMatch, Target, Watch};
use super::{Entry, Registry, selection};
use crate::api::field::{FieldError, Path};
use crate::api::object::{Object, ObjectRef};
use crate::api::revision::Revision;
use crate::api::selector::FieldTerm;
use crate::api::status::{Cause, Details, Status};
use crate::clock;
use crate::server::cache::watch::{Bookmarks, Filter, Start};
use crate::server::cache::{MAX_AGE, Page};

/// Objects, how many follow them, and the revision they are the state of.
type Found = (Vec<ObjectRef>, usize, Revision);

impl Registry {
    /// # Errors
    /// 400 and 422 for options that make no sense, 410 for a revision that is no longer known.
    pub async fn list(&self, cx: &Context, t: &Target, o: &ListOptions) -> Result<List, Status> {
        let _ = cx;
        let entry = &*self.entry(t)?;
        let mut list = self.select(entry, t, o).await?;
        list.items = entry.wire_all(list.items).await?;
        Ok(list)
    }

    /// A list in the stored version.
    pub(super) async fn select(&self, entry: &Entry, t: &Target, o: &ListOptions) -> Result<List, Status> {
        check_list(o)?;
        let filter = filter(entry, t, o)?;
        let plain = filter.labels.is_everything() && filter.fields.0.is_empty();
        // Whoever takes any revision takes all of it, as upstream's watch cache gives it.
        let any = o.revision == Some(Revision(0));
        let limit = if any { 0 } else { usize::try_from(o.limit).unwrap_or(usize::MAX) };
        let token = (!o.continue_token.is_empty()).then(|| Token::decode(&o.continue_token)).transpose()?;
        let page = Page {
            namespace: (!t.namespace.is_empty()).then_some(t.namespace.as_str()),
            after: token.as_ref().map(Token::place),
            // What a selector selects is not known before all of it was looked at.
            limit: if plain && limit > 0 { limit } else { usize::MAX },
        };
        let (mut items, mut rest, revision) = match &token {
            None => self.state(entry, t, o, (&filter, page))?,
            Some(token) => self.further(entry, o, token, page)?,
        };
        if selection::is_by_form(entry, &filter) {
            // Boxed: every other list would have to be as large as this.
            items = Box::pin(selection::select(entry, &filter, items)).await?;
        } else if !plain {
            items.retain(|item| filter.selects(item));
        }
        if limit > 0 && items.len() > limit {
            rest = items.len() - limit;
            items.truncate(limit);
        }
        let mut list = List { items, revision, continue_token: String::new(), remaining: None };
        if let Some(last) = list.items.last().filter(|_| rest > 0) {
            // With a selector upstream does not count what is left.
            list.remaining = plain.then_some(rest as u64);
            // A list that goes on in another state begins there.
            let begun = token.as_ref().filter(|t| t.rv > 0).map_or_else(now, |t| t.at);
            list.continue_token = Token::new(last, revision, begun).encode();
        }
        Ok(list)
    }

    /// What a list goes on with, how much follows, and the revision.
    fn further(&self, entry: &Entry, o: &ListOptions, token: &Token, page: Page<'_>) -> Result<Found, Status> {
        if o.revision.is_some_and(|r| r.0 > 0) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        let cache = &self.0.cache;
        match token.revision() {
            None => Ok(cache.page(&entry.storage, page)),
            Some(at) if at > cache.revision() || token.is_old(now()) => Err(token.expired()),
            Some(at) => {
                let (items, rest) = cache.page_at(&entry.storage, page, at).ok_or_else(|| token.expired())?;
                Ok((items, rest, at))
            }
        }
    }

    fn state(
        &self,
        entry: &Entry,
        t: &Target,
        o: &ListOptions,
        (filter, page): (&Filter, Page<'_>),
    ) -> Result<Found, Status> {
        let cache = &self.0.cache;
        if let Some(at) = o.revision.filter(|at| at.0 > 0) {
            if at > cache.revision() {
                return Err(too_large(at, cache.revision()));
            }
            // A page of a revision has always been a page of just that one.
            let single = filter.fields.exact("metadata.name").is_some();
            let of_one = o.revision_match.is_none() && o.limit > 0 && !single;
            if of_one || o.revision_match == Some(RevisionMatch::Exact) {
                let found = cache.page_at(&entry.storage, page, at);
                let (items, rest) =
                    found.ok_or_else(|| Status::expired("The resourceVersion for the provided list is too old."))?;
                return Ok((items, rest, at));
            }
        }
        if let (Some(name), true) =
            (filter.fields.exact("metadata.name"), page.namespace.is_some() || !t.resource.namespaced)
        {
            let revision = cache.revision();
            let found = cache.get(&entry.storage, &t.namespace, name);
            let revision = found.as_ref().map_or(revision, |o| revision.max(o.revision));
            return Ok((found.into_iter().collect(), 0, revision));
        }
        Ok(cache.page(&entry.storage, page))
    }

    /// Whether reads have come as far as a client has seen.
    ///
    /// # Errors
    /// 504, to be tried again, when they have not.
    pub fn check_fresh(&self, at: Revision) -> Result<(), Status> {
        let current = self.0.cache.revision();
        if at > current { Err(too_large(at, current)) } else { Ok(()) }
    }

    /// # Errors
    /// 400 and 422 for options that make no sense. That the revision is too old is the first item of the stream.
    pub fn watch(&self, cx: &Context, t: &Target, o: &ListOptions) -> Result<Watch, Status> {
        let _ = cx;
        let entry = self.entry(t)?;
        check_watch(o)?;
        let mut filter = filter(&entry, t, o)?;
        if !t.name.is_empty() {
            let term = FieldTerm { field: "metadata.name".into(), equal: true, value: t.name.clone() };
            filter.fields.0.push(term);
        }
        let cache = &self.0.cache;
        let at = o.revision.unwrap_or_default();
        let start = match o.send_initial_events {
            // A watch learns it inside the stream.
            Some(true) if at > cache.revision() => {
                return Ok(Watch::new(stream::iter([Err(too_large(at, cache.revision()))])));
            }
            Some(true) => Start::State { end: o.bookmarks },
            Some(false) if at.0 == 0 => Start::Now,
            None if at.0 == 0 => Start::State { end: false },
            _ => Start::After(at),
        };
        let bookmarks = Bookmarks { wanted: o.bookmarks, end: o.lasts.map(|lasts| clock::instant() + lasts) };
        if selection::is_by_form(&entry, &filter) {
            return Ok(selection::watch(cache.clone(), entry, filter, start, bookmarks));
        }
        let watch = cache.watch(&entry.storage, filter, start, bookmarks);
        if entry.serves_as_stored() {
            return Ok(watch);
        }
        Ok(Watch::new(watch.then(move |event| {
            let entry = entry.clone();
            async move { convert(&entry, event?).await }
        })))
    }
}

async fn convert(entry: &Entry, event: Event) -> Result<Event, Status> {
    Ok(match event {
        Event::Added(object) => Event::Added(entry.wire(object).await?),
        Event::Modified(object) => Event::Modified(entry.wire(object).await?),
        Event::Deleted(object) => Event::Deleted(entry.wire(object).await?),
        bookmark @ Event::Bookmark { .. } => bookmark,
    })
}

fn filter(entry: &Entry, t: &Target, o: &ListOptions) -> Result<Filter, Status> {
    for FieldTerm { field, .. } in &o.fields.0 {
        let common = matches!(field.as_str(), "metadata.name" | "metadata.namespace");
        if !common && !entry.selectable().contains(&field.as_str()) {
            return Err(Status::bad_request(t.resource.not_selected(field)));
        }
    }
    Ok(Filter {
        namespace: (!t.namespace.is_empty()).then(|| t.namespace.clone()),
        labels: o.labels.clone(),
        fields: o.fields.clone(),
        selectable: entry.selectable(),
    })
}

fn now() -> i64 {
    clock::now().as_second()
}

fn place(object: &Object) -> (&str, &str) {
    (&object.key.namespace, &object.key.name)
}

/// What `continue` holds: the form of upstream's token, with the last object given out as the place to go on after.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Token {
    v: String,
    /// -1: whatever is there now.
    rv: i64,
    start: String,
    /// When the first page was given out, in seconds since 1970. 0: nobody knows.
    at: i64,
}

impl Token {
    fn new(last: &Object, revision: Revision, at: i64) -> Self {
        let (namespace, name) = place(last);
        let (rv, start) = (revision.0.cast_signed(), format!("{namespace}/{name}\0"));
        Self { v: "meta.k8s.io/v1".into(), rv, start, at }
    }

    /// Upstream compacts by time, whether or not anything changed: a list that takes longer has to say so.
    fn is_old(&self, now: i64) -> bool {
        self.at > 0 && now - self.at > MAX_AGE.as_secs().cast_signed()
    }

    fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let invalid =
            |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| {
            let at = match e {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol { offset: at, .. } => at,
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len(),
            };
            invalid(&format!("illegal base64 data at input byte {at}"))
        })?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| match bytes.first() {
            Some(first) if *first != b'{' => {
                let first = char::from(*first);
                invalid(&format!("invalid character {first:?} looking for beginning of value"))
            }
            _ => invalid(&e.to_string()),
        })?;
        if token.v != "meta.k8s.io/v1" {
            return Err(invalid(&format!("server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        if !token.start.contains('/') || token.start.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(invalid(&token.start));
        }
        Ok(token)
    }

    fn revision(&self) -> Option<Revision> {
        u64::try_from(self.rv).ok().map(Revision)
    }

    fn place(&self) -> (&str, &str) {
        self.start.trim_end_matches('\0').split_once('/').unwrap_or_default()
    }

    /// 410 with a token that goes on from the same place in what is there now.
    fn expired(&self) -> Status {
        let anyway = Self { v: self.v.clone(), rv: -1, start: self.start.clone(), at: 0 };
        Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the \
             list.",
        )
        .with_continue(anyway.encode())
    }
}

/// A revision from the future: of another data directory, or of before a snapshot was restored.
fn too_large(given: Revision, current: Revision) -> Status {
    let message = format!("Too large resource version: {given}, current: {current}");
    let cause = Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    };
    Status::timeout(format!("Timeout: {message}")).with_details(Details {
        causes: vec![cause],
        retry_after_seconds: 1,
        ..Details::default()
    })
}

fn check_list(o: &ListOptions) -> Result<(), Status> {
    let wrong = match (o.revision_match, o.revision) {
        (Some(_), None) => Some("resourceVersionMatch is forbidden unless resourceVersion is provided"),
        (Some(_), _) if !o.continue_token.is_empty() => {
            Some("resourceVersionMatch is forbidden when continue is provided")
        }
        (Some(RevisionMatch::Exact), Some(Revision(0))) => {
            Some("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        _ => None,
    };
    if let Some(why) = wrong {
        return Err(invalid_option("resourceVersionMatch", why));
    }
    if o.send_initial_events.is_some() {
        return Err(invalid_option("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    Ok(())
}

fn check_watch(o: &ListOptions) -> Result<(), Status> {
    match (o.send_initial_events, o.revision_match) {
        (None, Some(_)) => Err(invalid_option(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
        (Some(_), Some(RevisionMatch::NotOlderThan)) | (None, None) => Ok(()),
        (Some(_), _) => Err(invalid_option(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
    }
}

fn invalid_option(field: &str, why: &str) -> Status {
    let error = FieldError::forbidden(&Path::new(field), why);
    Status::new(422, "Invalid", format!("ListOptions.meta.k8s.io \"\" is invalid: {error}")).with_details(Details {
        group: "meta.k8s.io".into(),
        kind: "ListOptions".into(),
        causes: vec![Cause {
            reason: error.reason.cause().into(),
            message: error.message.clone(),
            field: error.path.to_string(),
        }],
        ..Details::default()
    })
}
