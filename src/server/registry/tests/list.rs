//! Tests: lists, pages, selectors, watches.

use super::*;

fn page(limit: u64, token: &str) -> ListOptions {
    ListOptions { limit, continue_token: token.into(), ..ListOptions::default() }
}

#[tokio::test]
async fn the_pages_of_a_list_are_one_snapshot() {
    let bed = Bed::new();
    for i in 0..7 {
        bed.create(&configmap(""), json!({"metadata": {"name": format!("c{i}")}})).await.unwrap();
    }
    let t = configmap("");
    let first = bed.registry.list(&bed.cx, &t, &page(3, "")).await.unwrap();
    assert_eq!((first.items.len(), first.remaining), (3, Some(4)));
    // What happens between the pages does not show.
    bed.delete(&configmap("c4"), json!({})).await.unwrap();
    bed.create(&t, json!({"metadata": {"name": "c31"}})).await.unwrap();
    bed.patch(&configmap("c5"), json!({"data": {"new": "1"}})).await.unwrap();
    let second = bed.registry.list(&bed.cx, &t, &page(3, &first.continue_token)).await.unwrap();
    let names: Vec<_> = second.items.iter().map(|o| &*o.key.name).collect();
    assert_eq!((names, second.revision, second.remaining), (vec!["c3", "c4", "c5"], first.revision, Some(1)));
    assert!(second.items[2].value().unwrap().get("data").is_none());
    let third = bed.registry.list(&bed.cx, &t, &page(3, &second.continue_token)).await.unwrap();
    assert_eq!((third.items.len(), third.continue_token.as_str(), third.remaining), (1, "", None));

    // All namespaces, in order.
    let all = Target { namespace: String::new(), ..t.clone() };
    let other = Target { namespace: "a".into(), ..t.clone() };
    bed.create(&other, json!({"metadata": {"name": "z"}})).await.unwrap();
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let list = bed.registry.list(&bed.cx, &all, &page(2, &token)).await.unwrap();
        names.extend(list.items.iter().map(|o| o.key.name.to_string()));
        token = list.continue_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["z", "c0", "c1", "c2", "c3", "c31", "c5", "c6"]);
}

#[tokio::test]
async fn a_page_of_a_forgotten_snapshot_is_expired_but_can_go_on() {
    let bed = Bed::new();
    let t = configmap("");
    for i in 0..4 {
        bed.create(&t, json!({"metadata": {"name": format!("c{i}")}})).await.unwrap();
    }
    let first = bed.registry.list(&bed.cx, &t, &page(2, "")).await.unwrap();
    for i in 0..crate::server::cache::MAX_EVENTS + 1 {
        bed.patch(&configmap("c3"), json!({"data": {"i": i.to_string()}})).await.unwrap();
    }
    let status = bed.registry.list(&bed.cx, &t, &page(2, &first.continue_token)).await.unwrap_err();
    assert_eq!((status.code(), status.reason()), (410, "Expired"));
    assert!(status.message().starts_with("The provided continue parameter is too old"));
    let token = status.to_json()["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(bed.names(&t, &page(2, &token)).await, ["c2", "c3"]);

    let exact = ListOptions {
        revision: Some(first.revision),
        revision_match: Some(RevisionMatch::Exact),
        ..ListOptions::default()
    };
    let status = bed.registry.list(&bed.cx, &t, &exact).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (410, "The resourceVersion for the provided list is too old."));
}

#[tokio::test]
async fn list_options_that_make_no_sense_are_refused() {
    let bed = Bed::new();
    let t = configmap("");
    let now = bed.revision();
    let check = async |o: ListOptions, code: u16, message: &str| {
        let status = bed.registry.list(&bed.cx, &t, &o).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, message));
    };
    let base = ListOptions::default;
    let field =
        |text: &str| ListOptions { fields: crate::api::selector::FieldSelector::parse(text).unwrap(), ..base() };
    check(
        field("spec.x=1"),
        400,
        "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
    )
    .await;
    let future = ListOptions { revision: Some(Revision(now.0 + 9)), ..base() };
    check(future, 504, &format!("Timeout: Too large resource version: {}, current: {now}", now.0 + 9)).await;
    let unset = ListOptions { revision_match: Some(RevisionMatch::Exact), ..base() };
    check(
        unset,
        422,
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden \
         unless resourceVersion is provided",
    )
    .await;
    // {"v": "meta.k8s.io/v1", "rv": -1, "start": "default/a"}
    let token = "eyJ2IjogIm1ldGEuazhzLmlvL3YxIiwgInJ2IjogLTEsICJzdGFydCI6ICJkZWZhdWx0L2EifQ";
    let both = ListOptions { revision: Some(now), ..page(1, token) };
    check(both, 400, "specifying resource version is not allowed when using continue").await;
    let status = bed.registry.list(&bed.cx, &t, &page(1, "!")).await.unwrap_err();
    assert!(status.code() == 400 && status.message().starts_with("invalid continue token: continue key is not valid"));
    let pods = Target { resource: row("", "pods"), ..t.clone() };
    let status = bed.registry.list(&bed.cx, &pods, &field("spec.x=1")).await.unwrap_err();
    assert_eq!(status.message(), "field label not supported: spec.x");
}

#[tokio::test]
async fn selectors_select() {
    let bed = Bed::new();
    let t = target("", "pods", "");
    for (name, node, tier) in [("a", "n1", "web"), ("b", "n2", "web"), ("c", "n1", "db")] {
        let body = json!({"metadata": {"name": name, "labels": {"tier": tier}}, "spec": {"nodeName": node}});
        bed.create(&t, body).await.unwrap();
    }
    let labels = |text: &str| crate::api::selector::LabelSelector::parse(text).unwrap();
    let fields = |text: &str| crate::api::selector::FieldSelector::parse(text).unwrap();
    let by = |l: &str, f: &str| ListOptions { labels: labels(l), fields: fields(f), ..ListOptions::default() };
    assert_eq!(bed.names(&t, &by("tier=web", "")).await, ["a", "b"]);
    assert_eq!(bed.names(&t, &by("tier=web", "spec.nodeName=n1")).await, ["a"]);
    assert_eq!(bed.names(&t, &by("", "metadata.name=c")).await, ["c"]);
    assert_eq!(bed.names(&t, &by("tier=web", "metadata.name=c")).await, [""; 0]);
    let everywhere = Target { namespace: String::new(), ..t.clone() };
    assert_eq!(bed.names(&everywhere, &by("", "metadata.namespace!=default")).await, [""; 0]);
    let selected = ListOptions { limit: 1, ..by("tier=web", "") };
    let list = bed.registry.list(&bed.cx, &t, &selected).await.unwrap();
    assert_eq!((list.items.len(), list.remaining), (1, None), "upstream counts nothing where a selector is");
    let rest = ListOptions { continue_token: list.continue_token, ..selected };
    assert_eq!(bed.names(&t, &rest).await, ["b"]);

    let deleted = bed.registry.delete_collection(&bed.cx, &t, &by("tier=web", ""), DeleteOptions::default()).await;
    assert_eq!(deleted.unwrap().items.len(), 2);
    assert_eq!(bed.names(&t, &ListOptions::default()).await, ["c"]);
}

#[tokio::test]
async fn a_watch_follows_a_list() {
    use futures::{FutureExt, StreamExt};
    let bed = Bed::new();
    let t = configmap("");
    bed.create(&t, json!({"metadata": {"name": "a"}})).await.unwrap();
    let list = bed.registry.list(&bed.cx, &t, &ListOptions::default()).await.unwrap();
    bed.patch(&configmap("a"), json!({"data": {"k": "v"}})).await.unwrap();
    bed.delete(&configmap("a"), json!({})).await.unwrap();
    let o = ListOptions { revision: Some(list.revision), ..ListOptions::default() };
    let mut watch = bed.registry.watch(&bed.cx, &t, &o).unwrap();
    assert!(matches!(watch.next().await, Some(Ok(Event::Modified(_)))));
    assert!(matches!(watch.next().await, Some(Ok(Event::Deleted(_)))));
    assert!(watch.next().now_or_never().is_none());
    bed.create(&t, json!({"metadata": {"name": "b"}})).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(Event::Added(_)))));

    let one = Target { name: "b".into(), ..t.clone() };
    let mut one = bed.registry.watch(&bed.cx, &one, &ListOptions::default()).unwrap();
    assert!(matches!(one.next().await, Some(Ok(Event::Added(_)))));
    bed.create(&t, json!({"metadata": {"name": "c"}})).await.unwrap();
    assert!(one.next().now_or_never().is_none());

    let streaming = ListOptions {
        send_initial_events: Some(true),
        revision_match: Some(RevisionMatch::NotOlderThan),
        bookmarks: true,
        ..ListOptions::default()
    };
    let mut streaming = bed.registry.watch(&bed.cx, &t, &streaming).unwrap();
    assert!(matches!(streaming.next().await, Some(Ok(Event::Added(_)))));
    assert!(matches!(streaming.next().await, Some(Ok(Event::Added(_)))));
    let end = streaming.next().await.unwrap().unwrap();
    assert_eq!(end, Event::Bookmark { revision: bed.revision(), initial_end: true });
    let wrong = ListOptions { send_initial_events: Some(true), ..ListOptions::default() };
    assert_eq!(bed.registry.watch(&bed.cx, &t, &wrong).unwrap_err().code(), 422);
}
