//! Decides: the types of macros: loops over lists and maps, and what is done with an optional value.

use super::Checker;
use crate::server::cel::ast::{Expr, Loop, Macro};
use crate::server::cel::types::Type;

impl Checker<'_> {
    pub(super) fn macro_(&mut self, e: &Expr, m: &Macro) -> Type {
        let range = self.check(&m.range);
        let range = self.variables.substitute(&range, false);
        if m.kind == Loop::Bind {
            return self.bind(m, range);
        }
        if matches!(m.kind, Loop::OptMap | Loop::OptFlatMap) {
            return self.optional_map(e, m, &range);
        }
        let (first, second) = match &range {
            Type::List(list) if m.variables.len() == 2 => (Type::Int, list.element.ty.clone()),
            Type::List(list) => (list.element.ty.clone(), Type::Dyn),
            Type::Map(map) if m.kind != Loop::SortBy => (map.key.clone(), map.value.ty.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => (Type::Dyn, Type::Dyn),
            other => {
                let shown = self.shown(other);
                let what = "cannot be range of a comprehension (must be list, map, or dynamic)";
                self.report(m.range.at, format!("expression of type '{shown}' {what}"));
                (Type::Error, Type::Error)
            }
        };
        let outer = self.scope.len();
        let types = [first, second];
        self.scope.extend(m.variables.iter().cloned().zip(types));
        let filter = m.filter.as_ref().map(|filter| self.check(filter));
        let body = self.check(&m.body);
        self.scope.truncate(outer);
        if let Some(filter) = filter {
            let result = Type::list(body.clone());
            self.condition(e.at, "_?_:_", &filter, &[result.clone(), result]);
        }
        match m.kind {
            Loop::All => self.condition(e.at, "_&&_", &Type::Bool, std::slice::from_ref(&body)),
            Loop::Exists => self.condition(e.at, "_||_", &Type::Bool, std::slice::from_ref(&body)),
            Loop::ExistsOne => self.condition(e.at, "_?_:_", &body, &[Type::Int, Type::Int]),
            _ => {}
        }
        match m.kind {
            Loop::All | Loop::Exists | Loop::ExistsOne => Type::Bool,
            Loop::TransformMap => Type::map(self.scope_key(&range), body),
            Loop::TransformMapEntry => match self.variables.substitute(&body, false) {
                map @ Type::Map(_) => map,
                ty if ty.is_dyn() => Type::Dyn,
                other => {
                    let map = Type::map(Type::Dyn, Type::Dyn);
                    self.no_overload(e.at, "cel.@mapInsert", &[map, other], false);
                    Type::Error
                }
            },
            Loop::SortBy => range,
            Loop::Map | Loop::OptMap | Loop::OptFlatMap | Loop::Bind => Type::list(body),
        }
    }

    fn bind(&mut self, m: &Macro, value: Type) -> Type {
        self.scope.push((m.variables[0].clone(), value));
        let body = self.check(&m.body);
        self.scope.pop();
        body
    }

    fn scope_key(&self, range: &Type) -> Type {
        match range {
            Type::List(_) => Type::Int,
            Type::Map(map) => map.key.clone(),
            _ => Type::Dyn,
        }
    }

    /// The predicate of a loop is of type bool, or it is told as cel-go's expansion of the macro would tell it.
    fn condition(&mut self, at: usize, function: &str, condition: &Type, others: &[Type]) {
        let predicate = if function == "_?_:_" { condition } else { &others[0] };
        if !self.variables.assignable(predicate, &Type::Bool) {
            let mut types = vec![condition.clone()];
            types.extend_from_slice(others);
            self.no_overload(at, function, &types, false);
        }
    }

    fn optional_map(&mut self, e: &Expr, m: &Macro, range: &Type) -> Type {
        let held = match range {
            Type::Optional(of) => (**of).clone(),
            ty if ty.is_dyn() => Type::Dyn,
            other => {
                self.no_overload(e.at, "hasValue", std::slice::from_ref(other), true);
                Type::Error
            }
        };
        self.scope.push((m.variables[0].clone(), held));
        let body = self.check(&m.body);
        self.scope.pop();
        if m.kind == Loop::OptMap {
            return Type::optional(body);
        }
        match self.variables.substitute(&body, false) {
            optional @ Type::Optional(_) => optional,
            ty if ty.is_dyn() => Type::Dyn,
            other => {
                let none = Type::optional(Type::Dyn);
                self.no_overload(e.at, "_?_:_", &[Type::Bool, other, none], false);
                Type::Error
            }
        }
    }
}
