//! Decides and loop: the pods in the API that show static pods: one is made for each, made again when somebody deletes
//! it, and deleted with its static pod. The static pod itself follows its manifest only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;

use super::context::NodeContext;
use super::pod::{name, namespace, uid};

pub const SOURCE: &str = "kubernetes.io/config.source";
pub const HASH: &str = "kubernetes.io/config.hash";
pub const SEEN: &str = "kubernetes.io/config.seen";
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Between two tries while something fails: the API is away, or refuses. Doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Namespace and name.
pub type FullName = (String, String);

/// What there should be, and what there is.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Static pods that run, or are still on their way out.
    pub statics: BTreeMap<FullName, Arc<Pod>>,
    /// `None` until the API has told once.
    pub mirrors: Option<BTreeMap<FullName, Arc<Pod>>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Create(Arc<Pod>),
    Delete(Arc<Pod>),
}

#[must_use]
pub fn full_name(pod: &Pod) -> FullName {
    (namespace(pod).to_owned(), name(pod).to_owned())
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The pod comes from a manifest of this node.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, SOURCE).is_some_and(|source| source != "api") && !is_mirror(pod)
}

/// The pod shows a static one.
#[must_use]
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether that is the mirror of this static pod, as it is now.
#[must_use]
pub fn shows(mirror: &Pod, of: &Pod) -> bool {
    annotation(mirror, MIRROR) == annotation(of, HASH) && mirror.metadata.deletion_timestamp.is_none()
}

fn plan(picture: &Picture) -> Vec<Action> {
    let Some(mirrors) = &picture.mirrors else { return Vec::new() };
    let stale =
        mirrors.iter().filter(|(name, mirror)| !picture.statics.get(*name).is_some_and(|pod| shows(mirror, pod)));
    let mut actions: Vec<Action> = stale.map(|(_, mirror)| Action::Delete(mirror.clone())).collect();
    // One that is still there is deleted first; the watch tells when it is gone.
    let missing = picture.statics.iter().filter(|(name, _)| !mirrors.contains_key(*name));
    actions.extend(missing.map(|(_, pod)| Action::Create(pod.clone())));
    actions
}

/// Runs until the sender is gone.
pub async fn run(cx: Arc<NodeContext>, mut picture: watch::Receiver<Picture>) {
    let mut delay = FIRST_RETRY;
    loop {
        let actions = plan(&picture.borrow_and_update());
        let mut failed = false;
        for action in &actions {
            if let Err(error) = apply(&cx, action).await {
                let pod = match action {
                    Action::Create(pod) | Action::Delete(pod) => pod,
                };
                tracing::info!(%error, pod = name(pod), "mirror pod not brought up to date; trying again");
                failed = true;
            }
        }
        delay = if failed { (delay * 2).min(LONGEST_RETRY) } else { FIRST_RETRY };
        let again = async {
            match failed {
                true => tokio::time::sleep(delay / 2).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = picture.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

async fn apply(cx: &NodeContext, action: &Action) -> Result<(), kube::Error> {
    match action {
        Action::Create(pod) => {
            let node = Api::<Node>::all(cx.client.clone()).get(&cx.config.node_name).await?;
            let api: Api<Pod> = Api::namespaced(cx.client.clone(), namespace(pod));
            match api.create(&PostParams::default(), &mirror(pod, &node)).await {
                // The watch shows it soon.
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
                other => other.map(drop),
            }
        }
        Action::Delete(mirror) => {
            let api: Api<Pod> = Api::namespaced(cx.client.clone(), namespace(mirror));
            let mut options = DeleteParams::default().grace_period(0);
            options.preconditions = Some(Preconditions { uid: Some(uid(mirror).to_owned()), resource_version: None });
            match api.delete(name(mirror), &options).await {
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
                other => other.map(drop),
            }
        }
    }
}

fn mirror(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = pod.clone();
    let metadata = &mut mirror.metadata;
    metadata.uid = None;
    let hash = annotation(pod, HASH).unwrap_or_default().to_owned();
    metadata.annotations.get_or_insert_default().insert(MIRROR.into(), hash);
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    mirror
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(annotations: Value) -> Arc<Pod> {
        let metadata = json!({"name": "p", "namespace": "ns", "uid": "u", "annotations": annotations});
        Arc::new(serde_json::from_value(json!({"metadata": metadata})).expect("valid"))
    }

    fn of_file(hash: &str) -> Arc<Pod> {
        pod(json!({SOURCE: "file", HASH: hash}))
    }

    fn shown(hash: &str) -> Arc<Pod> {
        pod(json!({SOURCE: "file", HASH: hash, MIRROR: hash}))
    }

    #[test]
    fn a_mirror_is_made_when_missing_and_deleted_when_stale() {
        let named =
            |pod: Option<Arc<Pod>>| pod.into_iter().map(|pod| (full_name(&pod), pod)).collect::<BTreeMap<_, _>>();
        let check = |of: Option<Arc<Pod>>, mirrors: Option<Option<Arc<Pod>>>, expect: &[Action]| {
            let picture = Picture { statics: named(of), mirrors: mirrors.map(named) };
            assert_eq!(plan(&picture), expect, "{picture:?}");
        };
        check(Some(of_file("1")), None, &[]);
        check(Some(of_file("1")), Some(None), &[Action::Create(of_file("1"))]);
        check(Some(of_file("1")), Some(Some(shown("1"))), &[]);
        check(Some(of_file("2")), Some(Some(shown("1"))), &[Action::Delete(shown("1"))]);
        check(None, Some(Some(shown("1"))), &[Action::Delete(shown("1"))]);
        let mut going = (*shown("1")).clone();
        going.metadata.deletion_timestamp = Some(crate::clock::time());
        let going = Arc::new(going);
        check(Some(of_file("1")), Some(Some(going.clone())), &[Action::Delete(going)]);
    }

    #[test]
    fn kinds_of_pods_are_told_apart() {
        for (pod, expect) in [
            (of_file("1"), (true, false)),
            (shown("1"), (false, true)),
            (pod(json!({SOURCE: "api"})), (false, false)),
            (pod(json!({})), (false, false)),
        ] {
            assert_eq!((is_static(&pod), is_mirror(&pod)), expect, "{pod:?}");
        }
    }

    #[test]
    fn a_mirror_belongs_to_its_node() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1", "uid": "nu"}})).expect("valid");
        let mirror = mirror(&of_file("1"), &node);
        let owner = &mirror.metadata.owner_references.as_ref().expect("owned")[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("Node", "nu", Some(true)));
        assert!(shows(&mirror, &of_file("1")) && mirror.metadata.uid.is_none());
    }
}
