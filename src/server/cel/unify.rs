//! Decides: whether a type may stand where another is wanted, and what the checker's type variables are
//! (`isAssignable` of cel-go's checker).

use std::sync::Arc;

use super::types::{Decl, ListType, MapType, Type};

/// What the variables of one expression are known to be.
#[derive(Debug, Default)]
pub(super) struct Variables {
    known: Vec<Option<Type>>,
    /// What was known before, of all that changed since the last question.
    trail: Vec<(u32, Option<Type>)>,
}

impl Variables {
    pub(super) fn fresh(&mut self) -> Type {
        self.known.push(None);
        Type::Param(u32::try_from(self.known.len() - 1).unwrap_or(u32::MAX))
    }

    fn get(&self, variable: u32) -> Option<&Type> {
        self.known[variable as usize].as_ref()
    }

    fn learn(&mut self, variable: u32, ty: Type) {
        let before = self.known[variable as usize].replace(ty);
        self.trail.push((variable, before));
    }

    /// Whether each of `from` may stand for the one of `to`. What was learned on the way is kept only if all may.
    pub(super) fn assignable_all(&mut self, from: &[Type], to: &[Type]) -> bool {
        if from.len() != to.len() {
            return false;
        }
        self.trail.clear();
        let fine = from.iter().zip(to).all(|(from, to)| self.fits(from, to));
        if !fine {
            while let Some((variable, before)) = self.trail.pop() {
                self.known[variable as usize] = before;
            }
        }
        fine
    }

    pub(super) fn assignable(&mut self, from: &Type, to: &Type) -> bool {
        self.assignable_all(std::slice::from_ref(from), std::slice::from_ref(to))
    }

    fn fits(&mut self, from: &Type, to: &Type) -> bool {
        if let Type::Param(variable) = to {
            match self.stands_for(from, *variable) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Param(variable) = from {
            return self.stands_for(to, *variable).0;
        }
        match (from, to) {
            (Type::Dyn | Type::Error, _) | (_, Type::Dyn | Type::Error) => true,
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null | Type::Object(_) | Type::Timestamp | Type::Duration | Type::Opaque(_) | Type::Optional(_)
            ),
            (Type::List(a), Type::List(b)) => self.fits(&a.element.ty, &b.element.ty),
            (Type::Map(a), Type::Map(b)) => self.fits(&a.key, &b.key) && self.fits(&a.value.ty, &b.value.ty),
            (Type::Optional(a), Type::Optional(b)) => self.fits(a, b),
            (a, b) => a.same(b),
        }
    }

    /// Whether a type may stand for a variable, and whether the variable was known already.
    fn stands_for(&mut self, ty: &Type, variable: u32) -> (bool, bool) {
        if matches!(ty, Type::Param(other) if *other == variable) {
            return (true, true);
        }
        if let Some(known) = self.get(variable).cloned() {
            if !self.fits(ty, &known) {
                return (false, true);
            }
            let general = if less_specific(ty, &known) { ty.clone() } else { known };
            if !self.occurs(variable, &general) {
                self.learn(variable, general);
            }
            return (true, true);
        }
        if self.occurs(variable, ty) {
            return (false, false);
        }
        self.learn(variable, ty.clone());
        (true, false)
    }

    fn occurs(&self, variable: u32, ty: &Type) -> bool {
        match ty {
            Type::Param(other) => {
                *other == variable || self.get(*other).is_some_and(|known| self.occurs(variable, known))
            }
            Type::List(list) => self.occurs(variable, &list.element.ty),
            Type::Map(map) => self.occurs(variable, &map.key) || self.occurs(variable, &map.value.ty),
            Type::Optional(of) => self.occurs(variable, of),
            _ => false,
        }
    }

    /// The type with every known variable replaced, and the others by `dyn` if wanted.
    pub(super) fn substitute(&self, ty: &Type, free_is_dyn: bool) -> Type {
        let again = |ty: &Type| self.substitute(ty, free_is_dyn);
        match ty {
            Type::Param(variable) => match self.get(*variable) {
                Some(known) => again(known),
                None if free_is_dyn => Type::Dyn,
                None => ty.clone(),
            },
            Type::List(list) if has_variable(&list.element.ty) => Type::List(Arc::new(ListType {
                element: Decl { ty: again(&list.element.ty), ..list.element.clone() },
                kind: list.kind.clone(),
            })),
            Type::Map(map) if has_variable(&map.key) || has_variable(&map.value.ty) => Type::Map(Arc::new(MapType {
                key: again(&map.key),
                value: Decl { ty: again(&map.value.ty), ..map.value.clone() },
            })),
            Type::Optional(of) if has_variable(of) => Type::optional(again(of)),
            _ => ty.clone(),
        }
    }
}

pub(super) fn has_variable(ty: &Type) -> bool {
    match ty {
        Type::Param(_) => true,
        Type::List(list) => has_variable(&list.element.ty),
        Type::Map(map) => has_variable(&map.key) || has_variable(&map.value.ty),
        Type::Optional(of) => has_variable(of),
        _ => false,
    }
}

/// Whether the first type says no more than the second.
pub(super) fn less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Error | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Error | Type::Param(_)) => false,
        (Type::Null, b) => matches!(b, Type::Null),
        // What null may stand for is the more general of the two.
        (_, Type::Null) => true,
        (Type::List(a), Type::List(b)) => less_specific(&a.element.ty, &b.element.ty),
        (Type::Map(a), Type::Map(b)) => less_specific(&a.key, &b.key) && less_specific(&a.value.ty, &b.value.ty),
        (Type::Optional(a), Type::Optional(b)) => less_specific(a, b),
        (a, b) => a.same(b),
    }
}
