//! Decides: the type of every expression and the overloads of every call (`checker/checker.go` of cel-go), with its
//! messages.

use super::ast::{Expr, Kind, Mode};
use super::environment::Environment;
use super::functions::opaque::NAMES;
use super::functions::{Overload, overloads, regex};
use super::issue::Issue;
use super::time;
use super::types::Type;
use super::unify::{Variables, has_variable, less_specific};
use super::value::Constant;
use crate::api::duration;

mod macros;

/// What a name or a call refers to.
#[derive(Clone, Debug, Default)]
pub enum Reference {
    #[default]
    None,
    /// A variable of the environment, by its slot.
    Variable(usize),
    /// A type, by its name.
    Type(String),
    Function {
        overloads: Vec<&'static Overload>,
        /// `optional.of(x)`: what looks like the target is part of the name.
        qualified: bool,
    },
}

/// Types and references of the expressions, by their ids.
#[derive(Debug)]
pub struct Checked {
    pub types: Vec<Type>,
    pub references: Vec<Reference>,
}

impl Checked {
    #[must_use]
    pub fn ty(&self, expression: &Expr) -> &Type {
        &self.types[expression.id]
    }

    #[must_use]
    pub fn reference(&self, expression: &Expr) -> &Reference {
        &self.references[expression.id]
    }
}

/// Checks an expression that has so many parts.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(root: &Expr, count: usize, environment: &Environment) -> Result<Checked, Vec<Issue>> {
    let mut checker = Checker {
        environment,
        types: vec![Type::Error; count],
        references: vec![Reference::None; count],
        variables: Variables::default(),
        scope: Vec::new(),
        literals: Vec::new(),
        formats: 0,
        issues: Vec::new(),
    };
    checker.check(root);
    if checker.issues.is_empty() {
        checker.check_literals();
    }
    if !checker.issues.is_empty() {
        return Err(checker.issues);
    }
    let types = checker.types.iter().map(|ty| checker.variables.substitute(ty, true)).collect();
    Ok(Checked { types, references: checker.references })
}

struct Checker<'e> {
    environment: &'e Environment,
    types: Vec<Type>,
    references: Vec<Reference>,
    variables: Variables,
    /// The variables of loops, innermost last.
    scope: Vec<(String, Type)>,
    /// Ids and places of the parts of every literal, and whether they are optional.
    literals: Vec<Vec<(usize, usize, bool)>>,
    /// How many calls of `format` the expression that is checked stands in.
    formats: usize,
    issues: Vec<Issue>,
}

impl Checker<'_> {
    fn report(&mut self, at: usize, message: String) {
        self.issues.push(Issue::new(at, message));
    }

    fn shown(&self, ty: &Type) -> Type {
        self.variables.substitute(ty, true)
    }

    fn mismatch(&mut self, at: usize, expected: &Type, found: &Type) {
        let message = format!("expected type '{}' but found '{}'", self.shown(expected), self.shown(found));
        self.report(at, message);
    }

    fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.report(at, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn check(&mut self, e: &Expr) -> Type {
        let ty = match &*e.kind {
            Kind::Literal(constant) => literal(constant),
            Kind::Ident(name) => self.ident(e, name),
            Kind::Select { operand, field, mode } => self.select(e, operand, field, *mode),
            Kind::Call { function, target, arguments } => self.call(e, function, target.as_deref(), arguments),
            Kind::Logical { or, terms, operators } => {
                let types: Vec<(Type, usize)> = terms.iter().map(|term| (self.check(term), term.at)).collect();
                self.logical(*or, &types, operators)
            }
            Kind::List(elements) => {
                let mut element = None;
                self.alike(elements.iter().map(|item| (&item.value, item.optional)));
                for item in elements {
                    let ty = self.check(&item.value);
                    let ty = if item.optional { self.unwrapped(&ty, item.value.at) } else { ty };
                    element = Some(self.join(element, ty));
                }
                Type::list(element.unwrap_or_else(|| self.variables.fresh()))
            }
            Kind::Map(entries) => {
                let (mut key, mut value) = (None, None);
                self.alike(entries.iter().map(|entry| (&entry.key, false)));
                self.alike(entries.iter().map(|entry| (&entry.value, entry.optional)));
                for entry in entries {
                    let ty = self.check(&entry.key);
                    key = Some(self.join(key, ty));
                    let ty = self.check(&entry.value);
                    let ty = if entry.optional { self.unwrapped(&ty, entry.value.at) } else { ty };
                    value = Some(self.join(value, ty));
                }
                let key = key.unwrap_or_else(|| self.variables.fresh());
                Type::map(key, value.unwrap_or_else(|| self.variables.fresh()))
            }
            Kind::Struct { name, fields } => {
                let message = self.environment.message(name);
                for field in fields {
                    let ty = self.check(&field.value);
                    let ty = if field.optional { self.unwrapped(&ty, field.value.at) } else { ty };
                    let Some(Type::Object(object)) = &message else { continue };
                    match object.field(&field.name).map(|field| field.decl.ty.clone()) {
                        Some(wanted) if !self.variables.assignable(&ty, &wanted) => {
                            let shown = (self.shown(&wanted), self.shown(&ty));
                            let what = format!("expected type of field '{}' is '{}'", field.name, shown.0);
                            self.report(field.at, format!("{what} but provided type is '{}'", shown.1));
                        }
                        None if !object.open => self.report(field.at, format!("undefined field '{}'", field.name)),
                        _ => {}
                    }
                }
                message.unwrap_or_else(|| self.undeclared(e.at, name))
            }
            Kind::Macro(m) => self.macro_(e, m),
        };
        self.types[e.id] = ty.clone();
        ty
    }

    fn ident(&mut self, e: &Expr, name: &str) -> Type {
        let plain = name.trim_start_matches('.');
        if plain == name
            && let Some((_, ty)) = self.scope.iter().rev().find(|(other, _)| other == name)
        {
            return ty.clone();
        }
        if let Some(slot) = self.environment.slot(plain)
            && let Some(decl) = self.environment.decl(slot)
        {
            self.references[e.id] = Reference::Variable(slot);
            return decl.ty.clone();
        }
        if NAMES.contains(&plain) {
            self.references[e.id] = Reference::Type(plain.to_owned());
            return Type::Type;
        }
        self.undeclared(e.at, name)
    }

    fn select(&mut self, e: &Expr, operand: &Expr, field: &str, mode: Mode) -> Type {
        if mode == Mode::Plain
            && let Some(name) = e.qualified_name()
            && NAMES.contains(&name.as_str())
        {
            self.references[e.id] = Reference::Type(name);
            return Type::Type;
        }
        let target = self.check(operand);
        let target = self.variables.substitute(&target, false);
        let (target, optional) = match target {
            Type::Optional(of) => ((*of).clone(), true),
            other => (other, false),
        };
        let found = match &target {
            Type::Map(map) => map.value.ty.clone(),
            Type::Object(object) => match object.field(field) {
                Some(field) => field.decl.ty.clone(),
                None if object.open => Type::Dyn,
                None => {
                    self.report(e.at, format!("undefined field '{field}'"));
                    Type::Error
                }
            },
            Type::Dyn | Type::Error => Type::Dyn,
            Type::Param(_) => {
                self.variables.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                let shown = self.shown(other);
                self.report(e.at, format!("type '{shown}' does not support field selection"));
                Type::Error
            }
        };
        match mode {
            Mode::Test => Type::Bool,
            Mode::Optional => Type::optional(found),
            Mode::Plain if optional => Type::optional(found),
            Mode::Plain => found,
        }
    }

    fn call(&mut self, e: &Expr, function: &str, target: Option<&Expr>, arguments: &[Expr]) -> Type {
        let mut types: Vec<Type> = Vec::with_capacity(arguments.len() + 1);
        let Some(target) = target else {
            types.extend(arguments.iter().map(|argument| self.check(argument)));
            let candidates = overloads(function.trim_start_matches('.'));
            if candidates.is_empty() {
                return self.undeclared(e.at, function);
            }
            self.constants(function, arguments);
            return self.resolve(e, function, candidates, false, types, false);
        };
        // What is before the dot may be part of the function's name.
        if let Some(name) = target.qualified_name() {
            let shadowed = self.scope.iter().any(|(other, _)| name.split('.').next() == Some(other));
            let full = format!("{name}.{function}");
            let candidates = overloads(&full);
            if !candidates.is_empty() && !shadowed {
                types.extend(arguments.iter().map(|argument| self.check(argument)));
                return self.resolve(e, &full, candidates, false, types, true);
            }
        }
        let formats = usize::from(function == "format");
        self.formats += formats;
        types.push(self.check(target));
        types.extend(arguments.iter().map(|argument| self.check(argument)));
        self.formats -= formats;
        let candidates = overloads(function);
        if candidates.is_empty() {
            return self.undeclared(e.at, function);
        }
        self.constants(function, arguments);
        self.resolve(e, function, candidates, true, types, false)
    }

    fn resolve(
        &mut self,
        e: &Expr,
        name: &str,
        candidates: &'static [Overload],
        member: bool,
        types: Vec<Type>,
        qualified: bool,
    ) -> Type {
        let mut found: Vec<&'static Overload> = Vec::new();
        let mut result: Option<Type> = None;
        for candidate in candidates.iter().filter(|c| c.member == member && c.parameters.len() == types.len()) {
            let fresh = match candidate.parameters.iter().chain([&candidate.result]).any(has_variable) {
                true => [self.variables.fresh(), self.variables.fresh()],
                false => [Type::Dyn, Type::Dyn],
            };
            let parameters: Vec<Type> = candidate.parameters.iter().map(|p| instantiated(p, &fresh)).collect();
            if !self.variables.assignable_all(&types, &parameters) {
                continue;
            }
            found.push(candidate);
            let ty = self.variables.substitute(&instantiated(&candidate.result, &fresh), false);
            result = Some(match result {
                None => ty,
                Some(before) if before.same(&ty) => before,
                Some(_) => Type::Dyn,
            });
        }
        match result {
            Some(result) => {
                self.references[e.id] = Reference::Function { overloads: found, qualified };
                result
            }
            None => {
                self.no_overload(e.at, name, &types, member);
                Type::Error
            }
        }
    }

    fn no_overload(&mut self, at: usize, name: &str, types: &[Type], member: bool) {
        let shown: Vec<String> = types.iter().map(|ty| self.shown(ty).to_string()).collect();
        let signature = match shown.split_first() {
            Some((target, arguments)) if member => format!("{target}.({})", arguments.join(", ")),
            _ => format!("({})", shown.join(", ")),
        };
        self.report(at, format!("found no matching overload for '{name}' applied to '{signature}'"));
    }

    /// Terms are of type bool; a wrong one is told with the one that cel-go's balanced tree puts beside it.
    fn logical(&mut self, or: bool, terms: &[(Type, usize)], operators: &[usize]) -> Type {
        if let [(ty, _)] = terms {
            return ty.clone();
        }
        let mid = operators.len() / 2;
        let left = self.logical(or, &terms[..=mid], &operators[..mid]);
        let right = self.logical(or, &terms[mid + 1..], &operators[mid + 1..]);
        let bools = [Type::Bool, Type::Bool];
        if self.variables.assignable_all(&[left.clone(), right.clone()], &bools) {
            return Type::Bool;
        }
        self.no_overload(operators[mid], if or { "_||_" } else { "_&&_" }, &[left, right], false);
        Type::Error
    }

    /// The type of elements that are of these types. That literals are of one type is asked in the end.
    fn join(&mut self, before: Option<Type>, next: Type) -> Type {
        let Some(before) = before else { return next };
        if !self.variables.assignable(&before, &next) {
            return Type::Dyn;
        }
        if less_specific(&before, &next) { before } else { next }
    }

    /// Notes parts of a literal whose types must be the same. Those that `format` gets may be of any
    /// (`HomogeneousAggregateLiteralExemptFunctions` of cel-go).
    fn alike<'x>(&mut self, parts: impl Iterator<Item = (&'x Expr, bool)>) {
        if self.formats == 0 {
            self.literals.push(parts.map(|(part, optional)| (part.id, part.at, optional)).collect());
        }
    }

    fn check_literals(&mut self) {
        for parts in std::mem::take(&mut self.literals) {
            let mut first: Option<Type> = None;
            for (id, at, optional) in parts {
                let ty = match (self.shown(&self.types[id]), optional) {
                    (Type::Optional(of), true) => (*of).clone(),
                    (ty, _) => ty,
                };
                match &first {
                    None => first = Some(ty),
                    Some(first) if first.same(&ty) => {}
                    Some(first) => {
                        let first = first.clone();
                        self.mismatch(at, &first, &ty);
                        break;
                    }
                }
            }
        }
    }

    /// What an optional element holds.
    fn unwrapped(&mut self, ty: &Type, at: usize) -> Type {
        match self.variables.substitute(ty, false) {
            Type::Optional(of) => (*of).clone(),
            ty if ty.is_dyn() => Type::Dyn,
            ty => {
                self.mismatch(at, &Type::optional(ty.clone()), &ty);
                Type::Error
            }
        }
    }

    /// Literals that cannot be what the function takes them for (`cel.ASTValidators` of the Kubernetes environment).
    fn constants(&mut self, function: &str, arguments: &[Expr]) {
        let Some(last) = arguments.last() else { return };
        let Kind::Literal(Constant::String(text)) = &*last.kind else { return };
        let fine = match function {
            "duration" => duration::parse(text).is_ok(),
            "timestamp" => time::parse(text).is_some(),
            "matches" => regex::compile(text).is_ok(),
            _ => true,
        };
        if !fine {
            self.report(last.at, format!("invalid {function} argument"));
        }
    }
}

fn literal(constant: &Constant) -> Type {
    match constant {
        Constant::Null => Type::Null,
        Constant::Bool(_) => Type::Bool,
        Constant::Int(_) => Type::Int,
        Constant::Uint(_) => Type::Uint,
        Constant::Double(_) => Type::Double,
        Constant::String(_) => Type::String,
        Constant::Bytes(_) => Type::Bytes,
        Constant::List(_) => Type::list(Type::Dyn),
    }
}

/// A type of the table with its variables replaced by those of one call.
fn instantiated(ty: &Type, fresh: &[Type; 2]) -> Type {
    match ty {
        Type::Param(index) => fresh[*index as usize].clone(),
        Type::List(list) => Type::list(instantiated(&list.element.ty, fresh)),
        Type::Map(map) => Type::map(instantiated(&map.key, fresh), instantiated(&map.value.ty, fresh)),
        Type::Optional(of) => Type::optional(instantiated(of, fresh)),
        other => other.clone(),
    }
}
