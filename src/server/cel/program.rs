//! Decides: source in, program out: parsed, checked, estimated and planned.

use super::ast::Expr;
use super::check::{Reference, check};
use super::environment::Environment;
use super::evaluate::{Bindings, Budget, run};
use super::issue::Issue;
use super::plan::{Node, plan};
use super::types::Type;
use super::value::{Error, Value};
use super::{estimate, parse};

/// A compiled expression. It is immutable and may be shared.
#[derive(Debug)]
pub struct Program {
    node: Node,
    result: Type,
    cost: u64,
    /// Which variables of the environment the expression names.
    used: Vec<bool>,
    names: Vec<String>,
}

impl Program {
    /// Compiles an expression over the variables of an environment.
    ///
    /// # Errors
    /// What is wrong with it; [`render`](super::render) shows it as cel-go does.
    pub fn compile(source: &str, environment: &Environment) -> Result<Self, Vec<Issue>> {
        let (root, count): (Expr, usize) = parse::parse(source, environment.is_for_devices())?;
        let checked = check(&root, count, environment)?;
        let cost = estimate::cost(&root, &checked, environment);
        let node = plan(&root, &checked)?;
        let mut used = vec![false; environment.len()];
        for reference in &checked.references {
            if let Reference::Variable(slot) = reference {
                used[*slot] = true;
            }
        }
        let names = (0..environment.len()).map(|slot| environment.name(slot).to_owned()).collect();
        Ok(Self { node, result: checked.ty(&root).clone(), cost, used, names })
    }

    /// The type of the result.
    #[must_use]
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// The most that an evaluation may cost, for values of the declared sizes.
    #[must_use]
    pub fn estimated_cost(&self) -> u64 {
        self.cost
    }

    /// Whether the expression names the variable of a slot.
    #[must_use]
    pub fn uses(&self, slot: usize) -> bool {
        self.used.get(slot).copied().unwrap_or(false)
    }

    /// Evaluates the expression; what that cost is taken from the budget, also when it fails.
    ///
    /// # Errors
    /// In cel-go's words; when the cost of this call or the budget of the request is used up.
    pub fn evaluate<'a>(&'a self, bindings: &Bindings<'a>, budget: &mut Budget) -> Result<Value<'a>, Error> {
        run(&self.node, &self.names, bindings, budget)
    }
}
