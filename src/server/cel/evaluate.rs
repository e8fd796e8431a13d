//! Decides: what an expression is worth: runs a plan over the values of its variables and counts what that costs.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use ::regex::Regex;
use serde_json::Value as Json;

use super::CALL_LIMIT;
use super::ast::{Loop, Mode};
use super::compare::{restart, resume};
use super::estimate::{LIST, MAP, MESSAGE, NAME, Round};
use super::functions::cost::{actual, actual_of_result};
use super::functions::operators::{index, optional_index};
use super::functions::{Cost, regex};
use super::plan::{Fold, Function, Node, Pattern, Select};
use super::value::{Error, Key, Map, Value};

mod fold;

/// What is taken for a pattern that is compiled while the expression runs, so that nobody makes many of them.
const COMPILATION: u64 = 500;

/// The values of the variables, by their slots.
#[derive(Clone, Debug, Default)]
pub struct Bindings<'a> {
    values: Vec<Option<Value<'a>>>,
}

impl<'a> Bindings<'a> {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the variable of a slot its value. One without a value is an error when it is read.
    pub fn set(&mut self, slot: usize, value: Value<'a>) {
        if self.values.len() <= slot {
            self.values.resize(slot + 1, None);
        }
        self.values[slot] = Some(value);
    }

    /// With the variable of a slot.
    #[must_use]
    pub fn with(mut self, slot: usize, value: Value<'a>) -> Self {
        self.set(slot, value);
        self
    }
}

/// What evaluations may still cost, all together.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    #[must_use]
    pub fn new(units: u64) -> Self {
        Self { left: units }
    }

    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Default for Budget {
    /// That of one request.
    fn default() -> Self {
        Self::new(super::REQUEST_BUDGET)
    }
}

pub(super) fn run<'a>(
    node: &'a Node,
    names: &'a [String],
    bindings: &Bindings<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, Error> {
    let mut run = Run { names, values: &bindings.values, locals: Vec::new(), cost: 0, compiled: None };
    let outer = restart();
    let result = run.eval(node);
    resume(outer);
    if run.cost > budget.left {
        budget.left = 0;
        return Err(Error::Budget);
    }
    budget.left -= run.cost;
    result
}

struct Run<'a, 'b> {
    names: &'a [String],
    values: &'b [Option<Value<'a>>],
    locals: Vec<Value<'a>>,
    cost: u64,
    /// The pattern that was compiled last.
    compiled: Option<(Box<str>, Regex)>,
}

impl<'a> Run<'a, '_> {
    fn charge(&mut self, units: u64) -> Result<(), Error> {
        self.cost = self.cost.saturating_add(units);
        if self.cost > CALL_LIMIT { Err(Error::CallLimit) } else { Ok(()) }
    }

    fn eval(&mut self, node: &'a Node) -> Result<Value<'a>, Error> {
        match node {
            Node::Constant(constant) => Ok(constant.value()),
            Node::Type(name) => {
                self.charge(NAME)?;
                Ok(Value::Type(Arc::clone(name)))
            }
            Node::Variable(slot) => {
                self.charge(NAME)?;
                match self.values.get(*slot) {
                    Some(Some(value)) => Ok(value.clone()),
                    _ => Err(Error::Failed(format!("no such attribute(s): {}", self.names[*slot]).into())),
                }
            }
            Node::Local(slot) => {
                self.charge(NAME)?;
                Ok(self.locals[*slot].clone())
            }
            Node::Select(select) => self.select(select),
            Node::Index { parts, optional } => {
                let container = self.eval(&parts[0])?;
                let key = self.eval(&parts[1])?;
                self.charge(1)?;
                if *optional { optional_index(&container, &key) } else { index(&container, &key) }
            }
            Node::And(terms) => self.logical(terms, false),
            Node::Or(terms) => self.logical(terms, true),
            Node::Conditional(parts) => match self.eval(&parts[0])? {
                Value::Bool(true) => self.eval(&parts[1]),
                Value::Bool(false) => self.eval(&parts[2]),
                _ => Err(Error::no_overload()),
            },
            Node::Call(function) => self.call(function),
            Node::Regex(pattern) => self.pattern(pattern),
            Node::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    let value = self.eval(item)?;
                    if *optional { list.extend(held(value)?) } else { list.push(value) }
                }
                self.charge(LIST)?;
                Ok(Value::list(list))
            }
            Node::Map(entries) => {
                let mut map = BTreeMap::new();
                for entry in entries {
                    let key = self.eval(&entry.key)?;
                    let value = self.eval(&entry.value)?;
                    let Some(key) = Key::of(key) else { return Err(Error::new("unsupported key type")) };
                    let value = if entry.optional { held(value)? } else { Some(value) };
                    if let Some(value) = value {
                        map.insert(key, value);
                    }
                }
                self.charge(MAP)?;
                Ok(Value::Map(Map::Built(Rc::new(map))))
            }
            Node::Message(fields) => {
                let mut map = BTreeMap::new();
                for (name, node, optional) in fields {
                    let value = self.eval(node)?;
                    let value = if *optional { held(value)? } else { Some(value) };
                    if let Some(value) = value {
                        map.insert(Key::String(super::value::Text::Borrowed(name)), value);
                    }
                }
                self.charge(MESSAGE)?;
                Ok(Value::Map(Map::Built(Rc::new(map))))
            }
            Node::Loop(fold) => self.fold(fold),
        }
    }

    /// `&&` and `||`: what decides wins over an error, on whichever side it is.
    fn logical(&mut self, terms: &'a [Node], decisive: bool) -> Result<Value<'a>, Error> {
        let mut failed = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or_else(|| Some(Error::no_overload())),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn select(&mut self, select: &'a Select) -> Result<Value<'a>, Error> {
        let operand = self.eval(&select.operand)?;
        if select.mode != Mode::Test {
            self.charge(1 + u64::from(select.computed))?;
        }
        let (operand, optional) = match operand {
            Value::Optional(None) if select.mode == Mode::Test => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(held)) => ((*held).clone(), true),
            other => (other, false),
        };
        let found = match &operand {
            Value::Map(map) => match (map, &select.hint) {
                (Map::Object(object, ty), Some((expected, index))) if Arc::ptr_eq(ty, expected) => {
                    let field = &ty.fields[*index];
                    match object.get(&*field.json) {
                        None | Some(Json::Null) => None,
                        Some(json) => Some(Value::of(json, &field.decl)?),
                    }
                }
                (map, _) => map.find(&select.field)?,
            },
            Value::Lazy(lazy) => lazy.field(&select.field).transpose()?,
            _ => return Err(Error::no_overload()),
        };
        match select.mode {
            Mode::Test => Ok(Value::Bool(found.is_some())),
            Mode::Plain if !optional => found.ok_or_else(|| Error::no_key(&select.field)),
            _ => Ok(Value::Optional(found.map(Rc::new))),
        }
    }

    fn call(&mut self, function: &'a Function) -> Result<Value<'a>, Error> {
        match function.arguments.as_slice() {
            [] => self.apply(function, &mut []),
            [a] => {
                let mut values = [self.eval(a)?];
                self.apply(function, &mut values)
            }
            [a, b] => {
                let mut values = [self.eval(a)?, self.eval(b)?];
                self.apply(function, &mut values)
            }
            arguments => {
                let mut values = arguments.iter().map(|argument| self.eval(argument)).collect::<Result<Vec<_>, _>>()?;
                self.apply(function, &mut values)
            }
        }
    }

    fn apply(&mut self, function: &'a Function, values: &mut [Value<'a>]) -> Result<Value<'a>, Error> {
        self.charge(actual(function.cost, values))?;
        let result = (function.call)(values)?;
        if function.cost == Cost::Join {
            self.charge(actual_of_result(function.cost, &result))?;
        }
        Ok(result)
    }

    fn pattern(&mut self, pattern: &'a Pattern) -> Result<Value<'a>, Error> {
        let values = pattern.arguments.iter().map(|argument| self.eval(argument)).collect::<Result<Vec<_>, _>>()?;
        self.charge(actual(Cost::Regex, &values))?;
        if let Some(regex) = &pattern.compiled {
            return regex::apply(pattern.what, regex, &values);
        }
        let Some(Value::String(text)) = values.get(1) else { return Err(Error::no_overload()) };
        match &self.compiled {
            Some((last, regex)) if **last == **text => regex::apply(pattern.what, regex, &values),
            _ => {
                self.charge(COMPILATION)?;
                let regex = regex::compile(text)
                    .map_err(|error| Error::Failed(format!("error parsing regexp: {error}").into()))?;
                let result = regex::apply(pattern.what, &regex, &values);
                self.compiled = Some(((**text).into(), regex));
                result
            }
        }
    }
}

/// What an optional element holds, if anything.
fn held(value: Value<'_>) -> Result<Option<Value<'_>>, Error> {
    match value {
        Value::Optional(held) => Ok(held.map(|held| (*held).clone())),
        other => Err(Error::Failed(format!("value {} is not optional", other.type_name()).into())),
    }
}
