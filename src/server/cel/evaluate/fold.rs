//! Decides: the loops over lists and maps, and what each round costs.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::functions::lists::sorted;
use super::*;
use crate::server::cel::value::List;

/// What a loop goes through.
enum Range<'a> {
    List(List<'a>),
    Keys { map: Map<'a>, keys: Vec<Value<'a>> },
}

impl<'a> Range<'a> {
    fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Keys { keys, .. } => keys.len(),
        }
    }

    /// The variable of a round, or both if there are two.
    fn variables(&self, round: usize, two: bool) -> Result<(Value<'a>, Option<Value<'a>>), Error> {
        match self {
            Self::List(list) if two => {
                Ok((Value::Int(i64::try_from(round).unwrap_or(i64::MAX)), Some(list.get(round)?)))
            }
            Self::List(list) => Ok((list.get(round)?, None)),
            Self::Keys { map, keys } if two => {
                let key = keys[round].clone();
                let value = map.lookup(&key)?.unwrap_or(Value::Null);
                Ok((key, Some(value)))
            }
            Self::Keys { keys, .. } => Ok((keys[round].clone(), None)),
        }
    }
}

impl<'a> Run<'a, '_> {
    pub(super) fn fold(&mut self, fold: &'a Fold) -> Result<Value<'a>, Error> {
        let cost = Round::of(fold.kind);
        let range = self.eval(&fold.range)?;
        self.charge(cost.first)?;
        if let Loop::OptMap | Loop::OptFlatMap = fold.kind {
            return self.optional(fold, range);
        }
        if fold.kind == Loop::Bind {
            return self.bound(fold, range);
        }
        let range = match range {
            Value::List(list) => Range::List(list),
            Value::Map(map) => Range::Keys { keys: map.keys(), map },
            _ => return Err(Error::no_overload()),
        };
        let outer = self.locals.len();
        let result = match fold.kind {
            Loop::All => self.quantified(fold, &range, &cost, false),
            Loop::Exists => self.quantified(fold, &range, &cost, true),
            Loop::ExistsOne => self.exists_one(fold, &range, &cost),
            Loop::TransformMap | Loop::TransformMapEntry => self.transformed_map(fold, &range, &cost),
            _ => self.mapped(fold, &range, &cost),
        };
        self.locals.truncate(outer);
        let result = result?;
        self.charge(cost.last)?;
        if fold.kind == Loop::SortBy {
            self.charge(actual(Cost::Product, std::slice::from_ref(&result)))?;
            return match (range, result) {
                (Range::List(items), Value::List(keys)) => sorted(&items, &keys),
                _ => Err(Error::no_overload()),
            };
        }
        Ok(result)
    }

    /// Sets the variables for a round.
    fn enter(&mut self, fold: &Fold, range: &Range<'a>, round: usize) -> Result<(), Error> {
        let (first, second) = range.variables(round, fold.two)?;
        self.locals.truncate(fold.slot);
        self.locals.push(first);
        self.locals.extend(second);
        Ok(())
    }

    /// `all` and `exists`: ends with what decides; an error counts only if nothing does.
    fn quantified(
        &mut self,
        fold: &'a Fold,
        range: &Range<'a>,
        cost: &Round,
        decisive: bool,
    ) -> Result<Value<'a>, Error> {
        let mut failed = None;
        for round in 0..range.len() {
            self.charge(cost.each)?;
            let result = self.enter(fold, range, round).and_then(|()| self.eval(&fold.body));
            match result {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => failed = failed.or_else(|| Some(Error::no_overload())),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    fn exists_one(&mut self, fold: &'a Fold, range: &Range<'a>, cost: &Round) -> Result<Value<'a>, Error> {
        let mut found = 0;
        for round in 0..range.len() {
            self.enter(fold, range, round)?;
            let holds = self.predicate(&fold.body)?;
            self.charge(if holds { cost.each } else { cost.skipped })?;
            found += usize::from(holds);
        }
        Ok(Value::Bool(found == 1))
    }

    fn predicate(&mut self, node: &'a Node) -> Result<bool, Error> {
        self.eval(node)?.as_bool().ok_or_else(Error::no_overload)
    }

    /// Whether the filter lets a round through.
    fn wanted(&mut self, fold: &'a Fold, cost: &Round) -> Result<bool, Error> {
        let wanted = match &fold.filter {
            Some(filter) => self.predicate(filter)?,
            None => true,
        };
        self.charge(if wanted { cost.each } else { cost.skipped })?;
        Ok(wanted)
    }

    fn mapped(&mut self, fold: &'a Fold, range: &Range<'a>, cost: &Round) -> Result<Value<'a>, Error> {
        let mut items = Vec::new();
        for round in 0..range.len() {
            self.enter(fold, range, round)?;
            if self.wanted(fold, cost)? {
                items.push(self.eval(&fold.body)?);
            }
        }
        Ok(Value::list(items))
    }

    fn transformed_map(&mut self, fold: &'a Fold, range: &Range<'a>, cost: &Round) -> Result<Value<'a>, Error> {
        let mut entries = BTreeMap::new();
        for round in 0..range.len() {
            self.enter(fold, range, round)?;
            if !self.wanted(fold, cost)? {
                continue;
            }
            let made = self.eval(&fold.body)?;
            if fold.kind == Loop::TransformMap {
                if let Some(key) = Key::of(self.locals[fold.slot].clone()) {
                    entries.insert(key, made);
                }
                continue;
            }
            let Value::Map(map) = made else { return Err(Error::no_overload()) };
            for key in map.keys() {
                let value = map.lookup(&key)?.unwrap_or(Value::Null);
                let Some(key) = Key::of(key) else { return Err(Error::no_overload()) };
                if entries.contains_key(&key) {
                    return Err(Error::Failed(format!("insert failed: key {key} already exists").into()));
                }
                entries.insert(key, value);
            }
        }
        Ok(Value::Map(Map::Built(Rc::new(entries))))
    }

    /// What an expression is worth with one more variable.
    fn bound(&mut self, fold: &'a Fold, value: Value<'a>) -> Result<Value<'a>, Error> {
        let outer = self.locals.len();
        self.locals.push(value);
        let result = self.eval(&fold.body);
        self.locals.truncate(outer);
        result
    }

    /// `optMap` and `optFlatMap`: one round, if there is a value.
    fn optional(&mut self, fold: &'a Fold, value: Value<'a>) -> Result<Value<'a>, Error> {
        let Value::Optional(held) = value else { return Err(Error::no_overload()) };
        let Some(held) = held else { return Ok(Value::Optional(None)) };
        let result = self.bound(fold, (*held).clone());
        if fold.kind == Loop::OptMap { result.map(Value::some) } else { result }
    }
}
