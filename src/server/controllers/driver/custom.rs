//! Loop: follows the definitions and what extension servers have, and with each of them the metadata of its objects, for
//! garbage collection and for the end of namespaces.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::remote;
use crate::api::resource::custom::Rows;
use crate::api::resource::{DELETE, DELETE_COLLECTION, LIST, WATCH};
use crate::client::reflector::{self, Source};
use crate::client::store::{Store, View as _};
use crate::server::controllers::partial::Partial;
use crate::server::controllers::stores::Stores;

/// What a resource of an extension server must offer.
const FOLLOWED: u16 = LIST | WATCH | DELETE | DELETE_COLLECTION;

struct Followed {
    rows: Rows,
    store: Arc<Store<Partial>>,
    stop: CancellationToken,
}

/// Until `stop`; returns when every task it started is gone.
pub async fn follow(client: kube::Client, stores: Arc<Stores>, stop: CancellationToken) {
    let (changed, mut changes) = watch::channel(());
    let mut followed: HashMap<&'static str, Followed> = HashMap::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(remote::follow(client.clone(), Arc::clone(&stores), changed.clone(), stop.clone()));
    stores.definitions.subscribe(move |_| changed.send_modify(|()| {}));
    loop {
        let definitions = stores.definitions.all();
        let mut wanted: HashMap<&'static str, Rows> =
            definitions.iter().filter_map(|d| d.rows()).map(|rows| (rows.stored.storage, rows)).collect();
        for row in stores.remote().into_values().flatten().filter(|r| r.verbs & FOLLOWED == FOLLOWED) {
            wanted.entry(row.storage).or_insert_with(|| Rows { stored: row, served: vec![row] });
        }
        followed.retain(|storage, one| {
            let kept = wanted.get(storage) == Some(&one.rows);
            if !kept {
                one.stop.cancel();
                stores.remove_custom(&one.store);
            }
            kept
        });
        for (storage, rows) in wanted {
            // One that serves no version has objects that nobody can ask for.
            if followed.contains_key(storage) || rows.served.is_empty() {
                continue;
            }
            let one = Followed { store: stores.add_custom(rows.clone()), rows, stop: stop.child_token() };
            let (client, store, stop) = (client.clone(), one.store.clone(), one.stop.clone());
            tasks.spawn(async move {
                let source = Source::all(store.resource());
                reflector::run(client, source, &*store, || {}, stop).await;
            });
            followed.insert(storage, one);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            changed = changes.changed() => if changed.is_err() { break },
        }
    }
    while tasks.join_next().await.is_some() {}
}
