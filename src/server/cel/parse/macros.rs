//! Decides: which calls are macros, and what they say: `has`, the loops of one and of two variables
//! (`ext.TwoVarComprehensions`), those of optionals and `sortBy`.

use super::super::ast::{Expr, Kind, Loop, Macro, Mode};
use super::super::issue::Issue;
use super::{Parsed, Parser};

/// The accumulator of cel-go's expansions, which no variable may shadow.
const ACCUMULATOR: &str = "__result__";

impl Parser {
    pub(super) fn global_call(&mut self, at: usize, function: String, mut arguments: Vec<Expr>) -> Parsed<Expr> {
        if function != "has" || arguments.len() != 1 {
            return self.node(at, Kind::Call { function, target: None, arguments });
        }
        let Some(argument) = arguments.pop() else {
            return Err(Issue::new(at, "invalid argument to has() macro").into());
        };
        match *argument.kind {
            Kind::Select { operand, field, mode: Mode::Plain } => {
                self.node(at, Kind::Select { operand, field, mode: Mode::Test })
            }
            _ => Err(Issue::new(argument.at, "invalid argument to has() macro").into()),
        }
    }

    pub(super) fn member_call(
        &mut self,
        at: usize,
        target: Expr,
        function: String,
        arguments: Vec<Expr>,
    ) -> Parsed<Expr> {
        if self.with_bind
            && let Kind::Ident(name) = &*target.kind
            && (name.as_str(), function.as_str(), arguments.len()) == ("cel", "bind", 3)
        {
            let mut arguments = arguments.into_iter();
            if let (Some(variable), Some(value)) = (arguments.next(), arguments.next()) {
                let rest = std::iter::once(variable).chain(arguments).collect();
                return self.expand(at, value, &function, Loop::Bind, 1, rest);
            }
            return Err(Issue::new(at, "invalid arguments of cel.bind()").into());
        }
        match recognise(&function, arguments.len()) {
            Some((kind, names)) => self.expand(at, target, &function, kind, names, arguments),
            None => self.node(at, Kind::Call { function, target: Some(Box::new(target)), arguments }),
        }
    }

    fn expand(
        &mut self,
        at: usize,
        range: Expr,
        function: &str,
        kind: Loop,
        names: usize,
        arguments: Vec<Expr>,
    ) -> Parsed<Expr> {
        let mut arguments = arguments.into_iter();
        let mut variables: Vec<String> = Vec::new();
        for argument in arguments.by_ref().take(names) {
            match *argument.kind {
                Kind::Ident(name) if !name.starts_with('.') => {
                    if name == ACCUMULATOR {
                        return Err(
                            Issue::new(argument.at, "iteration variable overwrites accumulator variable").into()
                        );
                    }
                    if variables.contains(&name) {
                        return Err(Issue::new(argument.at, "duplicate iteration variable name").into());
                    }
                    variables.push(name);
                }
                _ if kind == Loop::Bind => {
                    let message = "cel.bind() variable names must be simple identifiers";
                    return Err(Issue::new(argument.at, message).into());
                }
                _ if matches!(kind, Loop::OptMap | Loop::OptFlatMap) => {
                    let message = format!("{function}() variable name must be a simple identifier");
                    return Err(Issue::new(argument.at, message).into());
                }
                _ => return Err(Issue::new(argument.at, "argument must be a simple name").into()),
            }
        }
        let (first, second) = (arguments.next(), arguments.next());
        let (filter, body) = match (function, first, second) {
            ("filter", Some(predicate), _) => {
                let item = self.node(at, Kind::Ident(variables[0].clone()))?;
                (Some(predicate), item)
            }
            (_, Some(filter), Some(body)) => (Some(filter), body),
            (_, Some(body), None) => (None, body),
            (_, None, _) => return Err(Issue::new(at, "argument must be a simple name").into()),
        };
        self.node(at, Kind::Macro(Box::new(Macro { kind, range, variables, filter, body })))
    }
}

/// The loop that a member call of so many arguments is, and how many of them are names.
fn recognise(function: &str, arguments: usize) -> Option<(Loop, usize)> {
    Some(match (function, arguments) {
        ("all", 2) => (Loop::All, 1),
        ("all", 3) => (Loop::All, 2),
        ("exists", 2) => (Loop::Exists, 1),
        ("exists", 3) => (Loop::Exists, 2),
        ("exists_one" | "existsOne", 2) => (Loop::ExistsOne, 1),
        ("exists_one" | "existsOne", 3) => (Loop::ExistsOne, 2),
        ("map", 2 | 3) | ("filter", 2) => (Loop::Map, 1),
        ("transformList", 3 | 4) => (Loop::Map, 2),
        ("transformMap", 3 | 4) => (Loop::TransformMap, 2),
        ("transformMapEntry", 3 | 4) => (Loop::TransformMapEntry, 2),
        ("optMap", 2) => (Loop::OptMap, 1),
        ("optFlatMap", 2) => (Loop::OptFlatMap, 1),
        ("sortBy", 2) => (Loop::SortBy, 1),
        _ => return None,
    })
}
