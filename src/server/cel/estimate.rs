//! Decides: what an expression may cost at most (`checker/cost.go` of cel-go): every loop runs as often as the schema allows,
//! every string is as long as it may be.

use super::ast::{Expr, Kind, Loop, Macro, Mode};
use super::check::{Checked, Reference};
use super::environment::Environment;
use super::functions::cost::{Known, Size, estimate};
use super::functions::{Cost, Overload};
use super::types::{Decl, Type};
use super::value::Constant;

/// Units of cel-go: a variable, a field, a list, a map, a message.
pub(super) const NAME: u64 = 1;
pub(super) const LIST: u64 = 10;
pub(super) const MAP: u64 = 30;
pub(super) const MESSAGE: u64 = 40;

/// What one round of a loop costs beside its body, as the expansion of the macro would: condition and step.
pub(super) struct Round {
    pub first: u64,
    pub each: u64,
    /// Where a filter says no.
    pub skipped: u64,
    pub last: u64,
}

impl Round {
    pub(super) fn of(kind: Loop) -> Self {
        let (first, each, skipped, last) = match kind {
            Loop::All => (0, 3, 0, 1),
            Loop::Exists => (0, 4, 0, 1),
            Loop::ExistsOne => (0, 2, 1, 2),
            Loop::Map | Loop::SortBy => (LIST, 2 + LIST, 1, 1),
            Loop::TransformMap => (MAP, 3, 1, 1),
            Loop::TransformMapEntry => (MAP, 2, 1, 1),
            // `hasValue`, `value` and `optional.of`, and the list that a binding does not go through.
            Loop::OptMap => (3 + LIST, 0, 0, 0),
            Loop::OptFlatMap => (2 + LIST, 0, 0, 0),
            Loop::Bind => (LIST, 0, 0, 0),
        };
        Self { first, each, skipped, last }
    }
}

/// The most that the expression may cost.
#[must_use]
pub fn cost(root: &Expr, checked: &Checked, environment: &Environment) -> u64 {
    Estimator { checked, environment, scope: Vec::new() }.of(root).cost
}

/// What is known of an expression.
#[derive(Clone, Default)]
struct Estimate {
    cost: u64,
    size: Option<Size>,
    /// Of the keys and values, or of the items, of a list or map that the expression makes.
    entries: Option<(Size, Size)>,
    /// The declaration of the schema, for what comes out of a variable.
    decl: Option<Decl>,
}

impl Estimate {
    fn size_or_unknown(&self) -> Size {
        self.size.unwrap_or(Size::UNKNOWN)
    }
}

struct Estimator<'e> {
    checked: &'e Checked,
    environment: &'e Environment,
    scope: Vec<(String, Estimate)>,
}

/// What always has the same size.
fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        Type::Optional(of) => is_scalar(of),
        _ => false,
    }
}

impl Estimator<'_> {
    fn of(&mut self, e: &Expr) -> Estimate {
        let mut estimate = match &*e.kind {
            Kind::Literal(constant) => Estimate { size: Some(Size::exactly(literal(constant))), ..Estimate::default() },
            Kind::Ident(name) => self.ident(e, name),
            Kind::Select { operand, field, mode } => self.select(e, operand, field, *mode),
            Kind::Call { target, arguments, .. } => self.call(e, target.as_deref(), arguments),
            Kind::Logical { terms, .. } => {
                let cost = terms.iter().fold(0_u64, |sum, term| sum.saturating_add(self.of(term).cost));
                Estimate { cost, ..Estimate::default() }
            }
            Kind::List(elements) => {
                let mut cost = LIST;
                let mut item: Option<Size> = None;
                for element in elements {
                    let of = self.of(&element.value);
                    cost = cost.saturating_add(of.cost);
                    item = Some(item.map_or(of.size_or_unknown(), |item| item.union(of.size_or_unknown())));
                }
                let size = Some(Size::exactly(elements.len() as u64));
                let entries = Some((Size::exactly(1), item.unwrap_or(Size::exactly(0))));
                Estimate { cost, size, entries, decl: None }
            }
            Kind::Map(entries) => {
                let mut cost = MAP;
                let mut sizes: Option<(Size, Size)> = None;
                for entry in entries {
                    let (key, value) = (self.of(&entry.key), self.of(&entry.value));
                    cost = cost.saturating_add(key.cost).saturating_add(value.cost);
                    let found = (key.size_or_unknown(), value.size_or_unknown());
                    sizes = Some(sizes.map_or(found, |s| (s.0.union(found.0), s.1.union(found.1))));
                }
                let size = Some(Size::exactly(entries.len() as u64));
                let none = (Size::exactly(0), Size::exactly(0));
                Estimate { cost, size, entries: Some(sizes.unwrap_or(none)), decl: None }
            }
            Kind::Struct { fields, .. } => {
                let cost = fields.iter().fold(MESSAGE, |sum, field| sum.saturating_add(self.of(&field.value).cost));
                Estimate { cost, ..Estimate::default() }
            }
            Kind::Macro(m) => self.macro_(m),
        };
        if estimate.size.is_none() {
            // What the schema says counts before what the type says (`computeSize`).
            estimate.size = match &estimate.decl {
                Some(decl) => Some(Size { min: 0, max: decl.max }),
                None if is_scalar(self.checked.ty(e)) => Some(Size::exactly(1)),
                None => None,
            };
        }
        estimate
    }

    fn ident(&self, e: &Expr, name: &str) -> Estimate {
        if let Some((_, known)) = self.scope.iter().rev().find(|(other, _)| other == name) {
            return Estimate { cost: NAME, ..known.clone() };
        }
        let decl = match self.checked.reference(e) {
            Reference::Variable(slot) => self.environment.decl(*slot).cloned(),
            _ => None,
        };
        Estimate { cost: NAME, decl, ..Estimate::default() }
    }

    fn select(&mut self, e: &Expr, operand: &Expr, field: &str, mode: Mode) -> Estimate {
        if matches!(self.checked.reference(e), Reference::Type(_)) {
            return Estimate { cost: NAME, ..Estimate::default() };
        }
        let of = self.of(operand);
        if mode == Mode::Test {
            // Presence is free in Kubernetes (`PresenceTestHasCost(false)`).
            return Estimate { cost: of.cost, ..Estimate::default() };
        }
        let counts = matches!(self.checked.ty(operand), Type::Map(_) | Type::Object(_)) || mode == Mode::Optional;
        let decl = match of.decl.map(|decl| decl.ty) {
            Some(Type::Object(object)) => object.field(field).map(|field| field.decl.clone()),
            Some(Type::Map(map)) if self.environment.is_for_devices() => Some(map.value.clone()),
            _ => None,
        };
        Estimate { cost: of.cost.saturating_add(u64::from(counts)), decl, ..Estimate::default() }
    }

    fn call(&mut self, e: &Expr, target: Option<&Expr>, arguments: &[Expr]) -> Estimate {
        let Reference::Function { overloads, qualified } = self.checked.reference(e) else {
            return Estimate::default();
        };
        let parts: Vec<&Expr> = target.filter(|_| !qualified).into_iter().chain(arguments).collect();
        let known: Vec<Estimate> = parts.iter().map(|part| self.of(part)).collect();
        let sum = known.iter().fold(0_u64, |sum, part| sum.saturating_add(part.cost));
        let Some(name) = overloads.first().map(|overload| overload.name) else { return Estimate::default() };
        match (name, known.as_slice()) {
            // `dyn` only hides the type.
            ("dyn", [inner]) => Estimate { cost: 1 + sum, ..inner.clone() },
            ("_?_:_", [condition, yes, no]) => Estimate {
                cost: condition.cost.saturating_add(yes.cost.max(no.cost)),
                size: Some(yes.size_or_unknown().union(no.size_or_unknown())),
                entries: union(yes.entries, no.entries),
                decl: None,
            },
            ("_[_]", [container, _]) => {
                let (size, decl) = element(container);
                Estimate { cost: sum.saturating_add(1), size, entries: None, decl }
            }
            _ => {
                let mut found = self.function(overloads, &parts, &known);
                found.cost = found.cost.saturating_add(sum);
                if name == "_+_" {
                    found.entries = match known.as_slice() {
                        [a, b] => union(a.entries, b.entries),
                        _ => None,
                    };
                }
                found
            }
        }
    }

    /// The dearest of the overloads that may be meant.
    fn function(&self, overloads: &[&'static Overload], parts: &[&Expr], known: &[Estimate]) -> Estimate {
        let arguments: Vec<Known<'_>> = parts
            .iter()
            .zip(known)
            .map(|(part, known)| Known {
                size: known.size,
                ty: self.checked.ty(part),
                item: match &known.decl {
                    Some(Decl { ty: Type::List(list), .. }) => Some(Size { min: 0, max: list.element.max }),
                    _ => None,
                },
                literal: match &*part.kind {
                    Kind::Literal(constant) => Some(constant),
                    _ => None,
                },
            })
            .collect();
        let mut found = Estimate::default();
        for overload in overloads {
            let (cost, size) = estimate(overload.cost, &arguments);
            found.cost = found.cost.max(cost);
            found.size = match (found.size, size) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
        }
        found
    }

    fn macro_(&mut self, m: &Macro) -> Estimate {
        let round = Round::of(m.kind);
        let range = self.of(&m.range);
        let outer = self.scope.len();
        if m.kind == Loop::Bind {
            self.scope.push((m.variables[0].clone(), Estimate { cost: 0, ..range.clone() }));
            let body = self.of(&m.body);
            self.scope.truncate(outer);
            let cost = round.first.saturating_add(range.cost).saturating_add(body.cost);
            return Estimate { cost, ..body };
        }
        if matches!(m.kind, Loop::OptMap | Loop::OptFlatMap) {
            let held = Estimate { cost: 0, ..range.clone() };
            self.scope.push((m.variables[0].clone(), held));
            let body = self.of(&m.body);
            self.scope.truncate(outer);
            let cost = round.first.saturating_add(range.cost.saturating_mul(2)).saturating_add(body.cost);
            return Estimate { cost, ..Estimate::default() };
        }
        for (index, name) in m.variables.iter().enumerate() {
            let known = self.variable(&m.range, &range, m.variables.len() == 2, index);
            self.scope.push((name.clone(), known));
        }
        let filter = m.filter.as_ref().map_or(0, |filter| self.of(filter).cost);
        let body = self.of(&m.body);
        self.scope.truncate(outer);
        let each = round.each.max(round.skipped).saturating_add(filter).saturating_add(body.cost);
        let rounds = range.size_or_unknown();
        let mut cost =
            range.cost.saturating_add(round.first + round.last).saturating_add(rounds.max.saturating_mul(each));
        if m.kind == Loop::SortBy {
            cost = cost.saturating_add(estimate_sort(rounds));
        }
        match m.kind {
            Loop::All | Loop::Exists | Loop::ExistsOne => Estimate { cost, ..Estimate::default() },
            Loop::SortBy => Estimate { cost, ..range },
            Loop::Map => {
                let item = Size { min: 0, max: body.size_or_unknown().max };
                Estimate { cost, size: Some(rounds), entries: Some((Size::exactly(1), item)), decl: None }
            }
            _ => Estimate { cost, size: Some(rounds), ..Estimate::default() },
        }
    }

    /// What is known of a variable of a loop.
    fn variable(&self, range: &Expr, known: &Estimate, two: bool, index: usize) -> Estimate {
        let list = matches!(self.checked.ty(range), Type::List(_));
        let keys = if two { index == 0 } else { !list };
        let size = known.entries.map(|(key, value)| if keys { key } else { value });
        let decl = match (known.decl.as_ref().map(|decl| &decl.ty), keys) {
            (Some(Type::List(ty)), false) => Some(ty.element.clone()),
            (Some(Type::Map(ty)), false) => Some(ty.value.clone()),
            // Upstream gives keys no size.
            (Some(Type::Map(_)), true) => Some(Decl { ty: Type::String, max: 0, nullable: false }),
            _ => None,
        };
        Estimate { cost: 0, size, entries: None, decl }
    }
}

fn estimate_sort(rounds: Size) -> u64 {
    estimate(Cost::Product, &[Known { size: Some(rounds), ty: &Type::Dyn, item: None, literal: None }]).0
}

/// What is known of an item of a list or a value of a map.
fn element(container: &Estimate) -> (Option<Size>, Option<Decl>) {
    let decl = match container.decl.as_ref().map(|decl| &decl.ty) {
        Some(Type::List(ty)) => Some(ty.element.clone()),
        Some(Type::Map(ty)) => Some(ty.value.clone()),
        _ => None,
    };
    (container.entries.map(|(_, value)| value), decl)
}

fn union(a: Option<(Size, Size)>, b: Option<(Size, Size)>) -> Option<(Size, Size)> {
    let (a, b) = (a?, b?);
    Some((a.0.union(b.0), a.1.union(b.1)))
}

fn literal(constant: &Constant) -> u64 {
    match constant {
        Constant::String(text) => text.chars().count() as u64,
        Constant::Bytes(bytes) => bytes.len() as u64,
        Constant::List(items) => items.len() as u64,
        _ => 1,
    }
}
