//! Decides: which old pods give way next (upstream's `rollingUpdate`).
//!
//! ```text
//! without surge   an old pod that is unavailable goes at once; others as far as maxUnavailable allows;
//!                 its node then lacks a pod, which is made by the next plan
//! with surge      a new pod comes beside the old one, at once if that is unavailable, else as far as maxSurge allows;
//!                 the old one goes when the new one is available
//! ```
//!
//! Nodes with more pods than that are put right first, and count as disturbed until then.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::View;
use super::places::{Place, Places, Step};
use crate::client::store::Meta as _;

/// What a place has to do with the roll-out.
enum Stand<'a> {
    /// More than one of a kind.
    Crowded,
    Pods {
        new: Option<&'a Arc<Pod>>,
        old: Option<&'a Arc<Pod>>,
    },
}

fn stand<'a>(place: &Place<'a>, view: View<'_>) -> Stand<'a> {
    let (mut new, mut old) = (None, None);
    for pod in place.pods.iter().filter(|p| !p.metadata.deleting()) {
        let kind = if view.is_updated(pod) { &mut new } else { &mut old };
        if kind.replace(*pod).is_some() {
            return Stand::Crowded;
        }
    }
    Stand::Pods { new, old }
}

/// The next step of the roll-out, if there is one under way.
pub fn plan<'a>(places: &Places<'a>, view: View<'_>) -> Step<'a> {
    let desired = places.0.values().filter(|place| place.runs()).count();
    match view.leeway(desired) {
        None => Step::default(),
        Some((0, unavailable)) => replace(places, view, unavailable),
        Some((surge, _)) => overlap(places, view, surge, desired),
    }
}

/// Places that are to have a pod, or have one.
fn taking_part<'p, 'a>(places: &'p Places<'a>) -> impl Iterator<Item = (&'a str, &'p Place<'a>)> {
    places.0.iter().filter(|(_, p)| p.runs() || !p.pods.is_empty()).map(|(name, place)| (*name, place))
}

fn replace<'a>(places: &Places<'a>, view: View<'_>, most: usize) -> Step<'a> {
    let (mut unavailable, mut remove, mut candidates) = (0, Vec::new(), Vec::new());
    for (_, place) in taking_part(places) {
        match stand(place, view) {
            Stand::Pods { new: Some(new), old: None } => unavailable += usize::from(!view.is_available(new)),
            Stand::Pods { new: None, old: Some(old) } if view.is_available(old) => candidates.push(old),
            Stand::Pods { new: None, old: Some(old) } => {
                remove.push(old);
                unavailable += 1;
            }
            _ => unavailable += 1,
        }
    }
    remove.extend(candidates.into_iter().take(most.saturating_sub(unavailable)));
    Step { remove, make: Vec::new() }
}

fn overlap<'a>(places: &Places<'a>, view: View<'_>, most: usize, desired: usize) -> Step<'a> {
    let mut step = Step::default();
    let (mut surging, mut available) = (0, 0);
    let (mut candidates, mut unwanted) = (Vec::new(), Vec::new());
    for (name, place) in taking_part(places) {
        let Stand::Pods { new, old } = stand(place, view) else {
            surging += 1;
            continue;
        };
        available += usize::from(old.or(new).is_some_and(|p| view.is_available(p)));
        let Some(old) = old else { continue };
        match (new, view.is_available(old)) {
            (Some(new), _) if view.is_available(new) => step.remove.push(old),
            (Some(_), _) => surging += 1,
            (None, false) if place.runs() => step.make.push(name),
            (None, false) => step.remove.push(old),
            (None, true) if place.runs() => candidates.push(name),
            (None, true) => unwanted.push(old),
        }
    }
    // Of nodes that it should leave, pods go only when enough others are available.
    step.remove.extend(unwanted.into_iter().take(available.saturating_sub(desired)));
    step.make.extend(candidates.into_iter().take(most.saturating_sub(surging)));
    step
}
