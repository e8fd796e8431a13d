//! Decides: `variables` of a policy: each is an expression, computed when it is first read and never again for the same
//! write.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::{Expression, VARIABLES};
use crate::server::cel::types::{Field, ObjectType};
use crate::server::cel::value::{Key, Lazy, List, Map, Text};
use crate::server::cel::{Bindings, Budget, Error, REQUEST_BUDGET, Type, Value};

/// One variable of a policy.
#[derive(Debug)]
pub struct Variable {
    pub name: String,
    pub expression: Expression,
}

/// The type of `variables` for the expressions after these: a variable sees only those before it.
#[must_use]
pub fn declared(variables: &[Variable]) -> Type {
    let fields = variables.iter().map(|v| Field::new(&v.name, v.expression.result())).collect();
    Type::Object(Arc::new(ObjectType::new("kubernetes.variables", fields)))
}

/// `variables` in one evaluation.
pub struct Computed<'a> {
    variables: &'a [Variable],
    /// All but `variables` itself.
    bindings: Bindings<'a>,
    known: RefCell<BTreeMap<&'a str, Result<Value<'static>, Error>>>,
    /// What all variables together may still cost.
    left: Cell<u64>,
}

impl<'a> Computed<'a> {
    #[must_use]
    pub fn new(variables: &'a [Variable], bindings: Bindings<'a>) -> Self {
        Self { variables, bindings, known: RefCell::default(), left: Cell::new(REQUEST_BUDGET) }
    }
}

impl Lazy for Computed<'_> {
    fn field(&self, name: &str) -> Option<Result<Value<'_>, Error>> {
        let variable = self.variables.iter().find(|v| v.name == name)?;
        if let Some(known) = self.known.borrow().get(name) {
            return Some(known.clone());
        }
        // A variable may read others, which pay for themselves.
        let mut budget = Budget::new(self.left.get());
        let bindings = self.bindings.clone().with(VARIABLES, Value::Lazy(self));
        let before = budget.left();
        let value = variable.expression.evaluate(&bindings, &mut budget).map(|v| owned(&v));
        self.left.set(self.left.get().saturating_sub(before - budget.left()));
        let value = value.and_then(|v| v.map_err(|e| e.to_string()));
        let value = value.map_err(|why| Error::new(&format!("composited variable {name:?} fails to evaluate: {why}")));
        self.known.borrow_mut().insert(&variable.name, value.clone());
        Some(value)
    }
}

/// The same value, on its own feet: what was computed is kept longer than what it was computed with.
#[allow(clippy::arc_with_non_send_sync, reason = "values have one shape, whoever holds them")]
fn owned(value: &Value<'_>) -> Result<Value<'static>, Error> {
    let text = |t: &Text<'_>| Text::Owned((**t).into());
    Ok(match value {
        Value::Null => Value::Null,
        Value::Bool(v) => Value::Bool(*v),
        Value::Int(v) => Value::Int(*v),
        Value::Uint(v) => Value::Uint(*v),
        Value::Double(v) => Value::Double(*v),
        Value::String(v) => Value::String(text(v)),
        Value::Bytes(v) => Value::Bytes(v.clone()),
        Value::Timestamp(v) => Value::Timestamp(*v),
        Value::Duration(v) => Value::Duration(*v),
        Value::List(List::Built(items)) => Value::list(items.iter().map(owned).collect::<Result<_, _>>()?),
        Value::List(list) => {
            let items = list.items().map(|item| owned(&item?)).collect::<Result<_, _>>()?;
            Value::list(items)
        }
        Value::Map(map) => {
            let mut entries = BTreeMap::new();
            for key in map.keys() {
                if let (Some(value), Some(key)) = (map.lookup(&key)?, Key::of(owned(&key)?)) {
                    entries.insert(key, owned(&value)?);
                }
            }
            Value::Map(Map::Built(Rc::new(entries)))
        }
        Value::Optional(None) => Value::Optional(None),
        Value::Optional(Some(v)) => Value::some(owned(v)?),
        Value::Type(v) => Value::Type(v.clone()),
        Value::Opaque(v) => Value::Opaque(v.clone()),
        Value::Host(v) => Value::Host(v.clone()),
        Value::Lazy(_) => return Err(Error::new("variables cannot be the value of a variable")),
    })
}
