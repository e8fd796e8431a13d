//! Decides: whether the selectors of a class and of a request take a device. What was compiled and what was found is
//! kept.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::resource::v1::DeviceSelector;

use super::Id;
use super::allocator::Fail;
use super::pools::Offered;
use super::request::Ask;
use crate::server::cel::{Budget, Program, device};

/// Programs that are kept.
const PROGRAMS: usize = 64;

/// What all evaluations for one attempt may cost: ten of the dearest, which take about a second together.
const ATTEMPT_BUDGET: u64 = 10 * device::MAX_COST;

type Compiled = Result<Arc<Program>, Arc<str>>;

/// Compiled selectors, by their source.
#[derive(Default)]
pub struct Programs(RefCell<HashMap<String, Compiled>>);

impl Programs {
    fn get(&self, source: &str) -> Compiled {
        let mut known = self.0.borrow_mut();
        if let Some(found) = known.get(source) {
            return found.clone();
        }
        if known.len() >= PROGRAMS {
            known.clear();
        }
        let compiled = device::compile(source).map(Arc::new).map_err(Arc::from);
        known.insert(source.to_owned(), compiled.clone());
        compiled
    }
}

/// What was found in one attempt: it is the same on every node.
pub struct Matches<'a> {
    /// By the number of the request.
    found: HashMap<(usize, Id<'a>), bool>,
    budget: Budget,
}

impl Default for Matches<'_> {
    fn default() -> Self {
        Self { found: HashMap::new(), budget: Budget::new(ATTEMPT_BUDGET) }
    }
}

impl<'a> Matches<'a> {
    /// # Errors
    /// When a selector cannot be evaluated.
    pub fn ask(&mut self, ask: &Ask, offered: &Offered<'a>, programs: &Programs) -> Result<bool, Fail> {
        let key = (ask.number, offered.id);
        if let Some(found) = self.found.get(&key) {
            return Ok(*found);
        }
        let class = ask.class.spec.selectors.as_deref().unwrap_or_default();
        let of_class = || format!("class {}", ask.class_name);
        let of_claim = || format!("claim {}", ask.claim);
        let matches =
            self.all(class, &of_class, offered, programs)? && self.all(ask.selectors, &of_claim, offered, programs)?;
        self.found.insert(key, matches);
        Ok(matches)
    }

    fn all(
        &mut self,
        selectors: &[DeviceSelector],
        of: &dyn Fn() -> String,
        offered: &Offered<'a>,
        programs: &Programs,
    ) -> Result<bool, Fail> {
        for (i, selector) in selectors.iter().enumerate() {
            let Some(cel) = &selector.cel else {
                let why = format!("{}: selector #{i}: CEL expression empty (unsupported selector type?)", of());
                return Err(Fail::Pod(why));
            };
            let program = programs
                .get(&cel.expression)
                .map_err(|why| Fail::Pod(format!("{}: selector #{i}: CEL compile error: {why}", of())))?;
            let (driver, pool, name) = offered.id;
            match device::matches(&program, driver, offered.device, &mut self.budget) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(_) if self.budget.left() == 0 => return Err(Fail::timed_out()),
                Err(why) => {
                    let at = format!("selector #{i} on device {driver}/{pool}/{name}");
                    return Err(Fail::Pod(format!("{}: {at}: CEL runtime error: {why}", of())));
                }
            }
        }
        Ok(true)
    }
}
