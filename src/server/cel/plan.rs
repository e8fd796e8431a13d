//! Decides: how a checked expression is run: names become slots, functions pointers, lists of literals constants, and
//! patterns that are written out are compiled.

use std::sync::Arc;

use ::regex::Regex;

use super::ast::{Expr, Kind, Loop, Macro, Mode};
use super::check::{Checked, Reference};
use super::functions::regex::Use;
use super::functions::{Call, Cost, Overload, regex};
use super::issue::Issue;
use super::types::{ObjectType, Type};
use super::value::Constant;

/// One step of the plan.
#[derive(Debug)]
pub(super) enum Node {
    Constant(Constant),
    Type(Arc<str>),
    /// A variable of the environment.
    Variable(usize),
    /// A variable of a loop.
    Local(usize),
    Select(Box<Select>),
    /// `container[key]` and `container[?key]`
    Index {
        parts: Box<[Node; 2]>,
        optional: bool,
    },
    And(Vec<Node>),
    Or(Vec<Node>),
    Conditional(Box<[Node; 3]>),
    Call(Box<Function>),
    Regex(Box<Pattern>),
    List(Vec<(Node, bool)>),
    Map(Vec<Entry>),
    /// A message, which is a map of its fields.
    Message(Vec<(Box<str>, Node, bool)>),
    Loop(Box<Fold>),
}

#[derive(Debug)]
pub(super) struct Select {
    pub operand: Node,
    pub field: Box<str>,
    pub mode: Mode,
    /// Where the field is, if the operand is of the type that the checker expects.
    pub hint: Option<(Arc<ObjectType>, usize)>,
    /// The operand is no variable: cel-go counts one more for what it makes of it.
    pub computed: bool,
}

#[derive(Debug)]
pub(super) struct Function {
    pub call: Call,
    pub cost: Cost,
    pub arguments: Vec<Node>,
}

#[derive(Debug)]
pub(super) struct Pattern {
    pub what: Use,
    pub arguments: Vec<Node>,
    /// If it is written in the expression.
    pub compiled: Option<Regex>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub key: Node,
    pub value: Node,
    pub optional: bool,
}

#[derive(Debug)]
pub(super) struct Fold {
    pub kind: Loop,
    pub range: Node,
    /// The slot of the first variable; the second's is the next.
    pub slot: usize,
    pub two: bool,
    pub filter: Option<Node>,
    pub body: Node,
}

/// Makes the plan.
///
/// # Errors
/// A pattern that is no regular expression.
pub(super) fn plan(root: &Expr, checked: &Checked) -> Result<Node, Vec<Issue>> {
    let mut planner = Planner { checked, scope: Vec::new(), issues: Vec::new() };
    let node = planner.node(root);
    if planner.issues.is_empty() { Ok(node) } else { Err(planner.issues) }
}

struct Planner<'e> {
    checked: &'e Checked,
    scope: Vec<String>,
    issues: Vec<Issue>,
}

impl Planner<'_> {
    fn node(&mut self, e: &Expr) -> Node {
        match &*e.kind {
            Kind::Literal(constant) => Node::Constant(constant.clone()),
            Kind::Ident(name) => self.name(e, name),
            Kind::Select { operand, field, mode } => self.select(e, operand, field, *mode),
            Kind::Call { target, arguments, .. } => self.call(e, target.as_deref(), arguments),
            Kind::Logical { or, terms, .. } => {
                let terms = terms.iter().map(|term| self.node(term)).collect();
                if *or { Node::Or(terms) } else { Node::And(terms) }
            }
            Kind::List(elements) => {
                let items: Vec<(Node, bool)> =
                    elements.iter().map(|element| (self.node(&element.value), element.optional)).collect();
                let constants: Option<Vec<Constant>> = items
                    .iter()
                    .map(|item| match item {
                        (Node::Constant(constant), false) => Some(constant.clone()),
                        _ => None,
                    })
                    .collect();
                constants.map_or(Node::List(items), |items| Node::Constant(Constant::List(items)))
            }
            Kind::Map(entries) => {
                let mut planned = Vec::with_capacity(entries.len());
                for entry in entries {
                    let (key, value) = (self.node(&entry.key), self.node(&entry.value));
                    planned.push(Entry { key, value, optional: entry.optional });
                }
                Node::Map(planned)
            }
            Kind::Struct { fields, .. } => Node::Message(
                fields
                    .iter()
                    .map(|field| (field.name.as_str().into(), self.node(&field.value), field.optional))
                    .collect(),
            ),
            Kind::Macro(m) => self.fold(m),
        }
    }

    fn name(&self, e: &Expr, name: &str) -> Node {
        if let Some(slot) = self.scope.iter().rposition(|other| other == name) {
            return Node::Local(slot);
        }
        match self.checked.reference(e) {
            Reference::Variable(slot) => Node::Variable(*slot),
            _ => Node::Type(name.trim_start_matches('.').into()),
        }
    }

    fn select(&mut self, e: &Expr, operand: &Expr, field: &str, mode: Mode) -> Node {
        if let Reference::Type(name) = self.checked.reference(e) {
            return Node::Type(name.as_str().into());
        }
        let hint = match self.checked.ty(operand) {
            Type::Object(object) => object.position(field).map(|index| (Arc::clone(object), index)),
            _ => None,
        };
        let operand = self.node(operand);
        let computed = !matches!(operand, Node::Variable(_) | Node::Local(_) | Node::Select(_) | Node::Index { .. });
        Node::Select(Box::new(Select { operand, field: field.into(), mode, hint, computed }))
    }

    fn call(&mut self, e: &Expr, target: Option<&Expr>, arguments: &[Expr]) -> Node {
        let Reference::Function { overloads, qualified } = self.checked.reference(e) else {
            unreachable!("the checker lets no call pass that it has not resolved")
        };
        let target = target.filter(|_| !qualified);
        let mut nodes: Vec<Node> = target.into_iter().chain(arguments).map(|part| self.node(part)).collect();
        let name = overloads.first().map_or("", |overload| overload.name);
        match name {
            "_?_:_" | "_[_]" | "_[?_]" => match (nodes.pop(), nodes.pop(), nodes.pop()) {
                (Some(no), Some(yes), Some(condition)) => Node::Conditional(Box::new([condition, yes, no])),
                (Some(key), Some(container), None) => {
                    Node::Index { parts: Box::new([container, key]), optional: name == "_[?_]" }
                }
                _ => unreachable!("operators have as many operands as their overloads"),
            },
            _ => match Use::of(name) {
                Some(what) => self.pattern(e, what, nodes),
                None => Node::Call(Box::new(function(overloads, nodes))),
            },
        }
    }

    fn pattern(&mut self, e: &Expr, what: Use, arguments: Vec<Node>) -> Node {
        let compiled = match arguments.get(1) {
            Some(Node::Constant(Constant::String(pattern))) => match regex::compile(pattern) {
                Ok(regex) => Some(regex),
                Err(error) => {
                    self.issues.push(Issue::new(e.at, format!("error parsing regexp: {error}")));
                    None
                }
            },
            _ => None,
        };
        Node::Regex(Box::new(Pattern { what, arguments, compiled }))
    }

    fn fold(&mut self, m: &Macro) -> Node {
        let range = self.node(&m.range);
        let slot = self.scope.len();
        self.scope.extend(m.variables.iter().cloned());
        let filter = m.filter.as_ref().map(|filter| self.node(filter));
        let body = self.node(&m.body);
        self.scope.truncate(slot);
        Node::Loop(Box::new(Fold { kind: m.kind, range, slot, two: m.variables.len() == 2, filter, body }))
    }
}

/// The cost is that of the overload that was found; of several, each of which may be meant, it is 1 if they differ.
fn function(overloads: &[&'static Overload], arguments: Vec<Node>) -> Function {
    let first = overloads.first().expect("the checker resolves a call to at least one overload");
    let same = overloads.iter().all(|overload| overload.cost == first.cost);
    Function { call: first.call, cost: if same { first.cost } else { Cost::One }, arguments }
}
