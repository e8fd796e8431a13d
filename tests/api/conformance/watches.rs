//! Watches of config maps: what each observer sees, and from where it may go on.

use serde_json::{Value, json};

use super::{MERGE, Watching, map};
use crate::Server;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn labelled(name: &str, label: &str) -> Value {
    let mut map = map(name);
    map["metadata"]["labels"] = json!({"watched": label});
    map
}

async fn change(server: &Server, name: &str, value: &str) -> Value {
    server.patched(&format!("{MAPS}/{name}"), MERGE, &json!({"data": {"mutation": value}})).await
}

async fn delete(server: &Server, name: &str) {
    server.deleted(&format!("{MAPS}/{name}"), &json!({})).await;
}

fn revision(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap()
}

/// Each watcher sees its own label; who watches both sees both.
#[tokio::test]
async fn several_watchers_see_what_they_selected() {
    let server = Server::new().await;
    let of = |selector: &str| format!("{MAPS}?watch=1&labelSelector=watched+{selector}");
    let mut a = Watching::new(&server, &of("in+(a)")).await;
    let mut b = Watching::new(&server, &of("in+(b)")).await;
    let mut both = Watching::new(&server, &of("in+(a,b)")).await;
    server.made(MAPS, &labelled("of-a", "a")).await;
    for value in ["1", "2"] {
        change(&server, "of-a", value).await;
    }
    delete(&server, "of-a").await;
    server.made(MAPS, &labelled("of-none", "c")).await;
    server.made(MAPS, &labelled("of-b", "b")).await;
    delete(&server, "of-b").await;
    let of_a = ["ADDED of-a", "MODIFIED of-a", "MODIFIED of-a", "DELETED of-a"];
    let of_b = ["ADDED of-b", "DELETED of-b"];
    for expect in of_a {
        assert_eq!((a.told().await.as_str(), both.told().await.as_str()), (expect, expect));
    }
    // The first that the others are told after it is of their own label: what is not theirs was never sent.
    for expect in of_b {
        assert_eq!((b.told().await.as_str(), both.told().await.as_str()), (expect, expect));
    }
    server.made(MAPS, &labelled("last-of-a", "a")).await;
    assert_eq!(a.told().await, "ADDED last-of-a");
}

#[tokio::test]
async fn a_watch_begins_at_a_revision() {
    let server = Server::new().await;
    server.made(MAPS, &labelled("m", "v")).await;
    let first = change(&server, "m", "1").await;
    let second = change(&server, "m", "2").await;
    delete(&server, "m").await;
    let from = revision(&first);
    let mut watch =
        Watching::new(&server, &format!("{MAPS}?watch=1&labelSelector=watched%3Dv&resourceVersion={from}")).await;
    assert_eq!(watch.next().await, ("MODIFIED".to_owned(), second));
    let (kind, last) = watch.next().await;
    assert_eq!((kind.as_str(), &last["data"]["mutation"]), ("DELETED", &json!("2")));
}

/// The first watch is closed by its client; the second begins at the last event of the first.
#[tokio::test]
async fn a_watch_goes_on_where_another_ended() {
    let server = Server::new().await;
    let uri = format!("{MAPS}?watch=1&labelSelector=watched%3Dr");
    let mut first = Watching::new(&server, &uri).await;
    server.made(MAPS, &labelled("m", "r")).await;
    change(&server, "m", "1").await;
    assert_eq!(first.told().await, "ADDED m");
    let (kind, last) = first.next().await;
    assert_eq!((kind.as_str(), &last["data"]["mutation"]), ("MODIFIED", &json!("1")));
    drop(first);
    let missed = change(&server, "m", "2").await;
    delete(&server, "m").await;
    let mut second = Watching::new(&server, &format!("{uri}&resourceVersion={}", revision(&last))).await;
    assert_eq!(second.next().await, ("MODIFIED".to_owned(), missed));
    assert_eq!(second.told().await, "DELETED m");
}

/// Leaving the selection is a deletion, changes outside are nothing, coming back is a creation.
#[tokio::test]
async fn what_loses_its_label_is_gone_for_the_watch() {
    let server = Server::new().await;
    let mut watch = Watching::new(&server, &format!("{MAPS}?watch=1&labelSelector=watched%3Dl")).await;
    let relabel = async |label: &str| {
        server.patched(&format!("{MAPS}/m"), MERGE, &json!({"metadata": {"labels": {"watched": label}}})).await
    };
    server.made(MAPS, &labelled("m", "l")).await;
    change(&server, "m", "1").await;
    relabel("other").await;
    for expect in ["ADDED m", "MODIFIED m", "DELETED m"] {
        assert_eq!(watch.told().await, expect);
    }
    change(&server, "m", "2").await;
    let back = relabel("l").await;
    let third = change(&server, "m", "3").await;
    delete(&server, "m").await;
    assert_eq!(watch.next().await, ("ADDED".to_owned(), back));
    assert_eq!(watch.next().await, ("MODIFIED".to_owned(), third));
    assert_eq!(watch.told().await, "DELETED m");
}

/// While maps come, change and go, a watch from each event's revision sees the same events in the same order.
#[tokio::test]
async fn concurrent_watches_agree() {
    const EVENTS: usize = 60;
    let server = Server::new().await;
    let start = server.get(MAPS).await.json();
    let from = start["metadata"]["resourceVersion"].as_str().unwrap();
    let mut first = Watching::new(&server, &format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    let write = async {
        for i in 0..EVENTS / 3 {
            let name = format!("m{}", i % 4);
            server.made(MAPS, &map(&name)).await;
            change(&server, &name, "1").await;
            delete(&server, &name).await;
        }
    };
    let read = async {
        let mut watches: Vec<Watching> = Vec::new();
        let mut seen = Vec::new();
        for _ in 0..EVENTS {
            let event = first.next().await;
            for watch in &mut watches {
                assert_eq!(watch.next().await, event);
            }
            let from = revision(&event.1).to_owned();
            watches.push(Watching::new(&server, &format!("{MAPS}?watch=1&resourceVersion={from}")).await);
            seen.push(from.parse::<u64>().unwrap());
        }
        assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    };
    tokio::join!(write, read);
}
