//! Decides: the history of a template, kept as ControllerRevisions: for StatefulSets and DaemonSets.
//!
//! `kubectl rollout history` reads them and `kubectl rollout undo` applies their data, so that is a patch of the owner,
//! as upstream's.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use serde_json::{Value, json};

use super::action::{Plan, Write};
use super::hash::hash;
use super::owners::{self, Claim};
use super::stores::row;
use crate::api::resource::Resource;
use crate::client::request::{Request, Verb};
use crate::client::store::Meta as _;

/// Characters of the owner's name that a revision's name takes over, so that the hash fits (upstream: 223).
const NAME_MAX: usize = 223;

/// The history of one workload.
#[derive(Clone, Copy)]
pub struct History<'a> {
    pub resource: &'static Resource,
    pub owner: &'a ObjectMeta,
    pub selector: &'a LabelSelector,
    pub template: &'a PodTemplateSpec,
    /// Where the hash is kept on revisions.
    pub label: &'static str,
    pub collisions: Option<i32>,
}

/// The revision of the template as it is now.
pub enum Current {
    Known(Arc<ControllerRevision>),
    /// To be made, or an older one to become the newest again.
    Write(Box<Write>),
    /// Its name belongs to something else: `collisions` must rise.
    Taken,
}

impl History<'_> {
    /// Those that it owns of `all` in its namespace, oldest first. Adoptions and releases go to `plan`.
    pub fn owned(&self, all: &[Arc<ControllerRevision>], plan: &mut Plan) -> Vec<Arc<ControllerRevision>> {
        let revisions = row("apps/controllerrevisions");
        let mut owned = Vec::new();
        for revision in all {
            match owners::claim(self.owner, self.selector, &revision.metadata) {
                // One whose labels were changed is still a part of the history.
                Claim::Owned | Claim::Release => owned.push(Arc::clone(revision)),
                Claim::Adopt => {
                    let owner = owners::reference(self.resource, self.owner);
                    plan.push(owners::adopt(revisions, &revision.metadata, &owner));
                }
                Claim::Foreign => {}
            }
        }
        owned.sort_by(|a, b| {
            let key = |r: &ControllerRevision| (r.revision, r.metadata.creation_timestamp.clone());
            key(a).cmp(&key(b)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
        });
        owned
    }

    /// `all`: every revision of the namespace; `owned`: as from [`History::owned`].
    #[must_use]
    pub fn current(&self, all: &[Arc<ControllerRevision>], owned: &[Arc<ControllerRevision>]) -> Current {
        let data = self.data();
        let same = |r: &&Arc<ControllerRevision>| r.data.as_ref().is_some_and(|d| d.0 == data);
        let newest = owned.last().map_or(0, |r| r.revision);
        let hash = hash(&data, self.collisions);
        match owned.iter().rfind(same) {
            Some(found) if found.revision == newest => Current::Known(Arc::clone(found)),
            Some(found) => {
                let meta = &found.metadata;
                let body = json!({ "metadata": { "uid": meta.uid }, "revision": newest.saturating_add(1) });
                let request = Request::new(
                    Verb::MergePatch,
                    row("apps/controllerrevisions"),
                    meta.namespace(),
                    meta.name(),
                    body,
                );
                Current::Write(Box::new(Write::new(request)))
            }
            None if all.iter().any(|r| r.metadata.name() == self.name(&hash)) => Current::Taken,
            None => Current::Write(Box::new(self.create(&hash, &data, newest.saturating_add(1)))),
        }
    }

    fn name(&self, hash: &str) -> String {
        let owner = self.owner.name();
        format!("{}-{hash}", &owner[..owner.len().min(NAME_MAX)])
    }

    fn create(&self, hash: &str, data: &Value, revision: i64) -> Write {
        let mut labels = self.template.metadata.as_ref().and_then(|m| m.labels.clone()).unwrap_or_default();
        labels.insert(self.label.to_owned(), hash.to_owned());
        let body = json!({
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": self.name(hash),
                "namespace": self.owner.namespace(),
                "labels": labels,
                "annotations": self.owner.annotations,
                "ownerReferences": [owners::reference(self.resource, self.owner)],
            },
            "data": data,
            "revision": revision,
        });
        Write::new(Request::create(row("apps/controllerrevisions"), self.owner.namespace(), body))
    }

    /// The strategic merge patch that brings the template back.
    fn data(&self) -> Value {
        let mut template = serde_json::to_value(self.template).unwrap_or_default();
        template["$patch"] = "replace".into();
        json!({ "spec": { "template": template } })
    }
}

/// The template that a revision holds; `None` for one that was not made by us or upstream.
#[must_use]
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Deletes the oldest of those that nothing uses, beyond `limit`.
#[must_use]
pub fn surplus(
    owned: &[Arc<ControllerRevision>],
    limit: Option<i32>,
    used: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Write> {
    let limit = usize::try_from(limit.unwrap_or(10)).unwrap_or(0);
    let unused: Vec<_> = owned.iter().filter(|r| !used(r)).collect();
    let surplus = unused.len().saturating_sub(limit);
    let delete = |r: &&Arc<ControllerRevision>| {
        let meta = &r.metadata;
        Write::delete(Request::delete(row("apps/controllerrevisions"), meta.namespace(), meta.name(), meta.uid()))
    };
    unused.iter().take(surplus).map(delete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(name: &str) -> ObjectMeta {
        let labels = [("app".to_owned(), "a".to_owned())];
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            uid: Some(name.into()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        }
    }

    fn of_image(image: &str) -> PodTemplateSpec {
        let labels = json!({ "app": "a" });
        serde_json::from_value(json!({ "metadata": { "labels": labels },
            "spec": { "containers": [{ "name": "c", "image": image }] } }))
        .unwrap()
    }

    #[test]
    fn a_template_becomes_a_revision_and_an_old_one_becomes_the_newest_again() {
        let owner = meta("web");
        let selector = LabelSelector { match_labels: owner.labels.clone(), ..LabelSelector::default() };
        let resource = row("apps/statefulsets");
        let made = |template: &PodTemplateSpec, all: &[Arc<ControllerRevision>], collisions| {
            let history = History { resource, owner: &owner, selector: &selector, template, label: "hash", collisions };
            let mut plan = Plan::default();
            let owned = history.owned(all, &mut plan);
            assert!(plan.actions.is_empty());
            history.current(all, &owned)
        };
        let stored = |write: &Write| -> Arc<ControllerRevision> {
            Arc::new(serde_json::from_value(write.request.body.clone()).unwrap())
        };
        let (one, two) = (of_image("v1"), of_image("v2"));
        let Current::Write(first) = made(&one, &[], None) else { panic!("nothing is there") };
        let first = stored(&first);
        assert_eq!((first.revision, first.metadata.labels.as_ref().unwrap().len()), (1, 2));
        assert_eq!(template(&first).unwrap(), one);
        let Current::Known(known) = made(&one, std::slice::from_ref(&first), None) else { panic!("it is there") };
        assert_eq!(known, first);
        let Current::Write(second) = made(&two, std::slice::from_ref(&first), None) else { panic!("another template") };
        let second = stored(&second);
        assert_eq!(second.revision, 2);
        let Current::Write(again) = made(&one, &[first.clone(), second.clone()], None) else { panic!("an old one") };
        assert_eq!((again.request.name.as_str(), &again.request.body["revision"]), (first.metadata.name(), &json!(3)));
        // The name is there and is another's.
        let mut foreign = (*first).clone();
        foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "other".into();
        assert!(matches!(made(&one, &[Arc::new(foreign.clone())], None), Current::Taken));
        assert!(matches!(made(&one, &[Arc::new(foreign)], Some(1)), Current::Write(_)));

        let used = |r: &ControllerRevision| r.revision == 2;
        assert_eq!(surplus(&[first.clone(), second.clone()], Some(0), used)[0].request.name, first.metadata.name());
        assert!(surplus(&[first, second], Some(1), used).is_empty());
    }
}
