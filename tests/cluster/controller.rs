//! A controller as people write them with `kube`: a custom resource that is derived, a finalizer, what it owns, its status.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher;
use kube::{Client, CustomResource, CustomResourceExt as _, Resource as _, ResourceExt as _};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::bench::client;
use crate::lab::{Lab, binary};
use crate::support::skip;

const FINALIZER: &str = "example.com/tidied";
const LONG: Duration = Duration::from_secs(60);

/// A page that is kept in a ConfigMap.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(group = "example.com", version = "v1", kind = "Page", namespaced, status = "PageStatus", shortname = "pg")]
#[kube(validation = "self.metadata.name != \'forbidden\'")]
#[serde(rename_all = "camelCase")]
struct PageSpec {
    #[schemars(length(min = 1))]
    title: String,
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    copies: i32,
}

fn one() -> i32 {
    1
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PageStatus {
    observed_generation: i64,
    shown: String,
}

struct Context {
    client: Client,
    /// What was tidied up after.
    gone: Mutex<Vec<String>>,
}

async fn reconcile(page: Arc<Page>, cx: Arc<Context>) -> Result<Action, kube::runtime::finalizer::Error<kube::Error>> {
    let pages: Api<Page> = Api::namespaced(cx.client.clone(), &page.namespace().unwrap());
    finalizer(&pages, FINALIZER, page, |event| async {
        match event {
            Event::Apply(page) => apply(&page, &cx).await,
            Event::Cleanup(page) => {
                cx.gone.lock().unwrap().push(page.name_any());
                Ok(Action::await_change())
            }
        }
    })
    .await
}

async fn apply(page: &Page, cx: &Context) -> Result<Action, kube::Error> {
    let (namespace, name) = (page.namespace().unwrap(), page.name_any());
    let owner = page.controller_owner_ref(&()).unwrap();
    let text = page.spec.title.repeat(usize::try_from(page.spec.copies).unwrap());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"page": text},
        "metadata": {"name": name, "namespace": namespace, "ownerReferences": [owner]}});
    let manager = PatchParams::apply("pages.example.com").force();
    let maps: Api<ConfigMap> = Api::namespaced(cx.client.clone(), &namespace);
    maps.patch(&name, &manager, &Patch::Apply(map)).await?;
    let status = PageStatus { observed_generation: page.metadata.generation.unwrap(), shown: text };
    let status = json!({"apiVersion": "example.com/v1", "kind": "Page", "status": status});
    let pages: Api<Page> = Api::namespaced(cx.client.clone(), &namespace);
    pages.patch_status(&name, &manager, &Patch::Apply(status)).await?;
    Ok(Action::await_change())
}

/// Waits for what a controller is to bring about.
async fn until<K>(api: &Api<K>, name: &str, what: &str, holds: impl Fn(Option<&K>) -> bool)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let waiting = await_condition(api.clone(), name, |object: Option<&K>| holds(object));
    match tokio::time::timeout(LONG, waiting).await {
        Ok(seen) => drop(seen.unwrap()),
        Err(_) => panic!("{what}: {:?}", api.get_opt(name).await),
    }
}

async fn story(kubeconfig: &Path) {
    let client = client(kubeconfig).await.unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let manager = PatchParams::apply("story");
    let name = Page::crd_name();
    definitions.patch(name, &manager, &Patch::Apply(Page::crd())).await.unwrap();
    tokio::time::timeout(LONG, await_condition(definitions.clone(), name, conditions::is_crd_established()))
        .await
        .expect("established")
        .unwrap();

    let pages: Api<Page> = Api::namespaced(client.clone(), "default");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let cx = Arc::new(Context { client: client.clone(), gone: Mutex::default() });
    // One that lists first, and one that is sent the list as events.
    let controller = Controller::new(pages.clone(), watcher::Config::default().streaming_lists())
        .owns(maps.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), cx.clone())
        .for_each(|_| async {});
    tokio::select! {
        () = controller => panic!("the controller ended"),
        () = used(&pages, &maps, &cx) => {}
    }
}

/// What its users do, and see.
async fn used(pages: &Api<Page>, maps: &Api<ConfigMap>, cx: &Context) {
    let forbidden = Page::new("forbidden", PageSpec { title: "a".into(), copies: 1 });
    let refused = pages.create(&PostParams::default(), &forbidden).await.unwrap_err();
    assert!(refused.to_string().contains("failed rule: self.metadata.name != \'forbidden\'"), "{refused}");
    let page = Page::new("a", PageSpec { title: "ab".into(), copies: 2 });
    pages.create(&PostParams::default(), &page).await.unwrap();
    let shows = |text: &'static str| move |map: Option<&ConfigMap>| map.is_some_and(|m| data(m) == text);
    until(maps, "a", "it is made", shows("abab")).await;
    until(pages, "a", "its status is written", |p| {
        p.and_then(|p| p.status.as_ref()).is_some_and(|s| s.observed_generation == 1 && s.shown == "abab")
    })
    .await;
    let change = Patch::Merge(json!({"spec": {"copies": 3}}));
    let changed = pages.patch("a", &PatchParams::default(), &change).await.unwrap();
    assert_eq!(changed.metadata.generation, Some(2));
    until(maps, "a", "it follows", shows("ababab")).await;
    maps.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"page": "no"}}))).await.unwrap();
    until(maps, "a", "a change of others is taken back", shows("ababab")).await;
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    until(maps, "a", "it is made again", shows("ababab")).await;

    pages.delete("a", &DeleteParams::default()).await.unwrap();
    until(pages, "a", "the finalizer is taken away", |p| p.is_none()).await;
    assert_eq!(*cx.gone.lock().unwrap(), ["a"]);
    until(maps, "a", "it goes with its owner", |m| m.is_none()).await;
}

fn data(map: &ConfigMap) -> &str {
    map.data.as_ref().and_then(|d| d.get("page")).map_or("", String::as_str)
}

#[test]
fn a_controller_that_is_written_with_kube_works() {
    if !nix::unistd::geteuid().is_root() || !binary().exists() {
        return skip("needs root");
    }
    let mut lab = Lab::new(1);
    lab.launch_server_with(&["--disable-agent"]);
    crate::lab::wait_for("the server", || lab.json(&["get", "namespace", "default"]).ok());
    let kubeconfig = lab.kubeconfig();
    let story = lab.machines[0].in_network(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(story(&kubeconfig));
    });
    if let Err(panic) = story.join() {
        println!("{}", lab.logs());
        std::panic::resume_unwind(panic);
    }
}
