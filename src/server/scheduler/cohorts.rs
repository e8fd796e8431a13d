//! Types: pods that are alike where pods are counted by topology: same namespace, labels and affinity to other pods.
//!
//! A selector is asked once for each cohort and not once for each pod: the thousand replicas of a workload are one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, WeightedPodAffinityTerm};

use super::selector::{Labels, Selector};

/// What such pods have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cohort {
    pub namespace: String,
    pub labels: Labels,
    pub affinity: PodTerms,
}

/// Affinity and anti-affinity to other pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodTerms {
    pub required: Vec<Term>,
    pub anti_required: Vec<Term>,
    /// Negative weights are those of anti-affinity.
    pub preferred: Vec<(i64, Term)>,
}

/// A `PodAffinityTerm`, read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Term {
    pub topology_key: String,
    namespaces: BTreeSet<String>,
    namespace_selector: Selector,
    selector: Selector,
}

/// Labels of namespaces by their name.
pub type Namespaces = HashMap<String, Labels>;

impl Term {
    fn new(term: &PodAffinityTerm, namespace: &str) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        Self {
            topology_key: term.topology_key.clone(),
            namespaces,
            namespace_selector: Selector::new(term.namespace_selector.as_ref()),
            selector: Selector::new(term.label_selector.as_ref()),
        }
    }

    /// Whether it means the pods of a cohort. A namespace that is not known has no labels.
    #[must_use]
    pub fn matches(&self, pods: &Cohort, namespaces: &Namespaces) -> bool {
        let nameless = Labels::new();
        let here = || {
            let labels = namespaces.get(&pods.namespace).unwrap_or(&nameless);
            self.namespaces.contains(&pods.namespace) || self.namespace_selector.matches(labels)
        };
        self.selector.matches(&pods.labels) && here()
    }

    /// Whether labels of a namespace can change what it means.
    #[must_use]
    pub fn asks_for_namespaces(&self) -> bool {
        !self.namespace_selector.is_empty() && self.namespace_selector != Selector::nothing()
    }
}

impl PodTerms {
    #[must_use]
    pub fn new(affinity: Option<&Affinity>, namespace: &str) -> Self {
        let required = |terms: Option<&Vec<PodAffinityTerm>>| -> Vec<Term> {
            terms.into_iter().flatten().map(|t| Term::new(t, namespace)).collect()
        };
        let preferred = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| -> Vec<(i64, Term)> {
            let one =
                |t: &WeightedPodAffinityTerm| (sign * i64::from(t.weight), Term::new(&t.pod_affinity_term, namespace));
            terms.into_iter().flatten().map(one).collect()
        };
        let mut terms = Self::default();
        if let Some(with) = affinity.and_then(|a| a.pod_affinity.as_ref()) {
            terms.required = required(with.required_during_scheduling_ignored_during_execution.as_ref());
            terms.preferred = preferred(with.preferred_during_scheduling_ignored_during_execution.as_ref(), 1);
        }
        if let Some(apart) = affinity.and_then(|a| a.pod_anti_affinity.as_ref()) {
            terms.anti_required = required(apart.required_during_scheduling_ignored_during_execution.as_ref());
            terms.preferred.extend(preferred(apart.preferred_during_scheduling_ignored_during_execution.as_ref(), -1));
        }
        terms
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.anti_required.is_empty() && self.preferred.is_empty()
    }
}

/// Pods of one cohort on one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub all: i32,
    /// Those that are not being deleted.
    pub staying: i32,
}

/// Pods of one cohort by the slot of their node.
pub type PerNode = HashMap<usize, Count>;

/// Every cohort that has pods, waiting or placed.
#[derive(Default)]
pub struct Cohorts {
    all: HashMap<Arc<Cohort>, PerNode>,
    /// Those with affinity or anti-affinity that have pods on nodes: theirs counts for others too.
    with_terms: HashSet<Arc<Cohort>>,
}

impl Cohorts {
    /// The one kept for all pods that are alike.
    pub fn shared(&mut self, cohort: Cohort) -> Arc<Cohort> {
        if let Some((known, _)) = self.all.get_key_value(&cohort) {
            return Arc::clone(known);
        }
        let cohort = Arc::new(cohort);
        self.all.insert(Arc::clone(&cohort), PerNode::new());
        cohort
    }

    pub fn place(&mut self, cohort: &Arc<Cohort>, slot: usize, deleting: bool) {
        let count = self.all.entry(Arc::clone(cohort)).or_default().entry(slot).or_default();
        count.all += 1;
        count.staying += i32::from(!deleting);
        if !cohort.affinity.is_empty() {
            self.with_terms.insert(Arc::clone(cohort));
        }
    }

    pub fn unplace(&mut self, cohort: &Arc<Cohort>, slot: usize, deleting: bool) {
        let Some(placed) = self.all.get_mut(cohort) else { return };
        if let Some(count) = placed.get_mut(&slot) {
            count.all -= 1;
            count.staying -= i32::from(!deleting);
            if count.all <= 0 {
                placed.remove(&slot);
            }
        }
        if placed.is_empty() {
            self.with_terms.remove(cohort);
        }
    }

    /// Drops cohorts that no pod is of any more. Walks over all: for times when many may have gone.
    pub fn sweep(&mut self) {
        self.all.retain(|cohort, placed| !placed.is_empty() || Arc::strong_count(cohort) > 1);
    }

    pub fn placed(&self) -> impl Iterator<Item = (&Cohort, &PerNode)> {
        self.all.iter().filter(|(_, placed)| !placed.is_empty()).map(|(cohort, placed)| (&**cohort, placed))
    }

    pub fn placed_with_terms(&self) -> impl Iterator<Item = (&Cohort, &PerNode)> {
        self.with_terms.iter().filter_map(|cohort| Some((&**cohort, self.all.get(cohort)?)))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
