//! Decides: `anyOf`, `oneOf`, `allOf` and `not` (`schema_props.go`).

use serde_json::Value;

use super::keywords::{Outcome, Walk};
use crate::api::trail::Trail;
use crate::server::crd::shown::quoted;
use crate::server::crd::structural::{Limits, Structural};

impl Walk<'_> {
    /// Alternatives know no old value: the value they are about does.
    pub(super) fn junctors(&self, value: &Value, limits: &Limits, at: &Trail, out: &mut Outcome) {
        if !limits.any_of.is_empty() {
            self.any_of(value, &limits.any_of, at, out);
        }
        if !limits.one_of.is_empty() {
            self.one_of(value, &limits.one_of, at, out);
        }
        if !limits.all_of.is_empty() {
            self.all_of(value, &limits.all_of, at, out);
        }
        if limits.not.as_ref().is_some_and(|not| self.alone(value, not, at).failures == 0) {
            let name = || quoted(&at.dotted());
            out.push(|| self.somewhere(&format!("{} must not validate the schema (not)", name())));
        }
    }

    fn any_of(&self, value: &Value, schemas: &[Structural], at: &Trail, out: &mut Outcome) {
        let mut best = None;
        for schema in schemas {
            let outcome = self.alone(value, schema, at);
            if outcome.failures == 0 {
                out.matches += outcome.matches;
                return;
            }
            keep_better(&mut best, outcome, schema);
        }
        let name = || quoted(&at.dotted());
        out.push(|| self.somewhere(&format!("{} must validate at least one schema (anyOf)", name())));
        self.merge(value, best, at, out);
    }

    fn one_of(&self, value: &Value, schemas: &[Structural], at: &Trail, out: &mut Outcome) {
        let (mut passed, mut matches, mut best) = (0, 0, None);
        for schema in schemas {
            let outcome = self.alone(value, schema, at);
            if outcome.failures == 0 {
                passed += 1;
                matches = if passed == 1 { outcome.matches } else { matches };
            } else if passed == 0 {
                keep_better(&mut best, outcome, schema);
            }
        }
        if passed == 1 {
            out.matches += matches;
            return;
        }
        out.push(|| {
            let found = match passed {
                0 => "Found none valid".to_owned(),
                n => format!("Found {n} valid alternatives"),
            };
            let name = quoted(&at.dotted());
            self.somewhere(&format!("{name} must validate one and only one schema (oneOf). {found}"))
        });
        if passed == 0 {
            self.merge(value, best, at, out);
        }
    }

    fn all_of(&self, value: &Value, schemas: &[Structural], at: &Trail, out: &mut Outcome) {
        let mut passed = 0;
        for schema in schemas {
            let before = out.failures;
            self.value(value, schema, at, None, out);
            passed += usize::from(out.failures == before);
        }
        if passed != schemas.len() {
            let none = if passed == 0 { ". None validated" } else { "" };
            let name = || quoted(&at.dotted());
            out.push(|| self.somewhere(&format!("{} must validate all the schemas (allOf){none}", name())));
        }
    }

    fn alone(&self, value: &Value, schema: &Structural, at: &Trail) -> Outcome {
        let mut outcome = Outcome::quiet();
        self.value(value, schema, at, None, &mut outcome);
        outcome
    }

    /// Adds the failures of an alternative, which are told only now.
    fn merge(&self, value: &Value, best: Option<Best>, at: &Trail, out: &mut Outcome) {
        match best {
            None => {}
            Some((outcome, _)) if out.quiet => {
                out.failures += outcome.failures;
                out.matches += outcome.matches;
            }
            Some((_, schema)) => self.value(value, schema, at, None, out),
        }
    }
}

type Best<'a> = (Outcome, &'a Structural);

/// The first of those with the most checks that passed.
fn keep_better<'a>(best: &mut Option<Best<'a>>, outcome: Outcome, schema: &'a Structural) {
    if best.as_ref().is_none_or(|(b, _)| outcome.matches > b.matches) {
        *best = Some((outcome, schema));
    }
}
