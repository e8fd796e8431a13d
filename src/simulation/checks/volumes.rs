//! Decides: what may become of claims and volumes: a claim is bound once, to a volume that is its alone; a pod runs where
//! its volumes are; nothing goes that is still in use.

use serde_json::Value;

use super::{CONTROLLERS, State, is_ending, is_over, name, number, text};

/// The claims that a pod uses, by name.
fn claims_of(pod: &Value) -> Vec<String> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let claim = |v: &Value| {
        let named = v.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str).map(str::to_owned);
        named.or_else(|| v.get("ephemeral").map(|_| format!("{}-{}", name(pod), text(v, "/name"))))
    };
    volumes.filter_map(claim).collect()
}

/// The node that a volume is on.
fn home(volume: &Value) -> &str {
    text(volume, "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/values/0")
}

fn chosen_node(claim: &Value) -> &str {
    text(claim, "/metadata/annotations/volume.kubernetes.io~1selected-node")
}

fn owning_pods(claim: &Value) -> impl Iterator<Item = &str> {
    let owners = claim.pointer("/metadata/ownerReferences").and_then(Value::as_array).into_iter().flatten();
    owners.filter(|o| o["kind"] == "Pod").map(|o| text(o, "/uid"))
}

impl State {
    /// Paths of the folders that the volumes of a pod are.
    pub(super) fn folders_of(&self, pod: &Value) -> Vec<String> {
        let claim = |name: String| self.objects.get(&("persistentvolumeclaims".into(), name.into()));
        let volume = |claim: &Value| {
            let name = text(claim, "/spec/volumeName");
            Some(text(self.objects.get(&("persistentvolumes".into(), name.into()))?, "/spec/hostPath/path").to_owned())
        };
        claims_of(pod).into_iter().filter_map(|name| volume(claim(name)?)).collect()
    }

    /// The scheduler has chosen a node for the claims of a pod.
    pub(super) fn is_expected(&self, pod: &Value, node: &str) -> bool {
        claims_of(pod).into_iter().any(|named| {
            let claim = self.objects.get(&("persistentvolumeclaims".into(), named.into()));
            claim.is_some_and(|c| chosen_node(c) == node)
        })
    }

    pub(super) fn claim(&mut self, who: &str, old: Option<&Value>, new: Option<&Value>) {
        let Some(new) = new else {
            let Some(old) = old else { return };
            let user = self.of("pods").find(|p| {
                !text(p, "/spec/nodeName").is_empty() && !is_over(p) && claims_of(p).iter().any(|c| c == name(old))
            });
            if let Some(user) = user.map(|p| name(p).to_owned()) {
                self.fail(format!("claim {} is gone, {user} uses it", name(old)));
            }
            return;
        };
        let nodes = [old.map(chosen_node).unwrap_or_default(), chosen_node(new)].map(str::to_owned);
        nodes.iter().filter(|node| !node.is_empty()).for_each(|node| self.room(node));
        let (was, is) = (old.map(|o| text(o, "/spec/volumeName")).unwrap_or_default(), text(new, "/spec/volumeName"));
        if was != is {
            let twin =
                self.of("persistentvolumeclaims").any(|c| text(c, "/spec/volumeName") == is && name(c) != name(new));
            if !was.is_empty() || twin {
                self.fail(format!("claim {} had volume {was:?} and has {is:?}", name(new)));
            }
        }
        if who == CONTROLLERS && is_ending(new) && old.is_some_and(|o| !is_ending(o)) {
            let there = self.of("pods").find(|p| owning_pods(new).any(|uid| uid == text(p, "/metadata/uid")));
            let there = there.map(|p| name(p).to_owned());
            if there.is_some() || owning_pods(new).next().is_none() {
                self.fail(format!("claim {} is deleted, its pod is {there:?}", name(new)));
            }
        }
        let owned = owning_pods(new).next().is_some() && old.is_some_and(|o| owning_pods(o).next().is_none());
        if let Some(ordinal) = name(new).strip_prefix("data-db-").filter(|_| owned) {
            let least = self.lately("replicas", "db").into_iter().min().unwrap_or(0);
            let kept = self
                .objects
                .get(&("apps/statefulsets".into(), "db".into()))
                .is_some_and(|set| text(set, "/spec/persistentVolumeClaimRetentionPolicy/whenScaled") == "Retain");
            if kept || ordinal.parse::<i64>().is_ok_and(|o| o < least) {
                self.fail(format!("claim {} is to go, {least} members are wanted", name(new)));
            }
        }
    }

    pub(super) fn set(&mut self, new: &Value) {
        self.limit("replicas", name(new), number(new, "/spec/replicas", 1));
    }

    pub(super) fn volume(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let whose = |v: &Value| text(v, "/spec/claimRef/uid").to_owned();
        let claim = |state: &Self, uid: &str| {
            state.of("persistentvolumeclaims").find(|c| text(c, "/metadata/uid") == uid).cloned()
        };
        match (old, new) {
            (None, Some(new)) => {
                let chosen = claim(self, &whose(new))
                    .map(|claim| text(&claim, "/metadata/annotations/volume.kubernetes.io~1selected-node").to_owned());
                if chosen.as_ref().is_some_and(|node| node != home(new)) {
                    self.fail(format!("volume {} is on {}, {chosen:?} was chosen", name(new), home(new)));
                }
            }
            (Some(old), Some(new)) if !whose(old).is_empty() && whose(old) != whose(new) => {
                self.fail(format!("volume {} was of {} and is of {}", name(new), whose(old), whose(new)));
            }
            (Some(old), new) if new.is_none_or(|new| is_ending(new) && !is_ending(old)) => {
                if let Some(claim) = claim(self, &whose(old)) {
                    self.fail(format!("volume {} goes, claim {} has it", name(old), name(&claim)));
                }
            }
            _ => {}
        }
    }

    /// A pod has come to a node: its volumes must be there.
    pub(super) fn bound_with_volumes(&mut self, pod: &Value) {
        let node = text(pod, "/spec/nodeName");
        let away = claims_of(pod).into_iter().find_map(|named| {
            let claim = self.objects.get(&("persistentvolumeclaims".into(), named.as_str().into()));
            let volume = claim.map(|c| text(c, "/spec/volumeName")).unwrap_or_default();
            let volume = self.objects.get(&("persistentvolumes".into(), volume.into()));
            let on = volume.map(home).unwrap_or_default();
            (on != node).then(|| format!("{named} on {on:?}"))
        });
        if let Some(away) = away {
            self.fail(format!("{} was put on {node}, it uses {away}", name(pod)));
        }
    }
}
