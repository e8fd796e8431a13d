//! Decides: whether the rules of a schema can be compiled and afforded (`ValidateCustomResourceDefinitionOpenAPISchema` of
//! apiextensions-apiserver), with upstream's paths and words.

use serde_json::{Value as Json, json};

use super::super::structural::{Kind, ListType, Rule, Structural};
use super::{Compiled, Known, Node, OLD_SELF, Rules, field_path};
use crate::api::field::{FieldError, Path, Reason};
use crate::server::cel::schema::{cardinality, declare, escape};
use crate::server::cel::{Decl, Environment, Program, Type, render};

/// What one expression and all of a definition may be estimated to cost (`StaticEstimatedCostLimit`,
/// `StaticEstimatedCRDCostLimit`).
const RULE_LIMIT: u64 = 10_000_000;
const TOTAL_LIMIT: u64 = 100_000_000;
/// How many of the dearest rules are named when the total is too much.
const NAMED: usize = 4;

const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Compiles all rules of a schema. `path` is where the schema stands in its definition:
/// `spec.versions[0].schema.openAPIV3Schema`. The rules may be used also when there are errors: those of a definition that is
/// stored are reported with every object that they are for.
#[must_use]
pub fn compile(schema: &Structural, path: &Path) -> (Rules, Vec<FieldError>) {
    let mut compiler = Compiler { total: 0, dearest: Vec::new(), malformed: 0, errors: Vec::new(), quiet: false };
    let decl = declare(schema, true, "selfType");
    let place = Place { root: true, cardinality: Some(1), uncorrelated: None };
    let root = compiler.node(schema, schema, decl.as_ref(), path, &place);
    if compiler.total > TOTAL_LIMIT {
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        compiler.dearest.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
        for (path, _) in compiler.dearest.iter().take(NAMED) {
            compiler.errors.push(FieldError::forbidden(path, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        compiler.errors.push(FieldError::forbidden(path, &too_dear(what, compiler.total, TOTAL_LIMIT)));
    }
    (Rules { root }, compiler.errors)
}

struct Compiler {
    total: u64,
    /// What costs at least a hundredth of what all may.
    dearest: Vec<(Path, u64)>,
    /// Rules that are not well formed, whatever they say.
    malformed: usize,
    errors: Vec<FieldError>,
    /// In `allOf`, whose rules upstream compiles with every object only.
    quiet: bool,
}

/// Where in the tree a schema is.
struct Place {
    /// The root of a resource, also of one that is embedded.
    root: bool,
    /// How often its values can be in one object; `None` if nothing limits that.
    cardinality: Option<u64>,
    /// The nearest list above whose items cannot be told apart.
    uncorrelated: Option<Path>,
}

impl Compiler {
    /// The node of a schema; `spine` is the same except in `allOf`, where it is the schema that gives the types.
    fn node(
        &mut self,
        schema: &Structural,
        spine: &Structural,
        decl: Option<&Decl>,
        path: &Path,
        place: &Place,
    ) -> Option<Node> {
        let malformed = self.malformed;
        let ty = decl.map(|decl| &decl.ty);
        let cardinality = place.cardinality.and_then(|above| Some(above.saturating_mul(most(spine)?)));
        let below = |spine: &Structural, uncorrelated: Option<Path>| Place {
            root: spine.embedded,
            cardinality,
            uncorrelated: place.uncorrelated.clone().or(uncorrelated),
        };
        let additional = schema.additional.as_deref().zip(spine.additional.as_deref()).and_then(|(values, spine)| {
            let decl = if let Some(Type::Map(map)) = ty { Some(&map.value) } else { None };
            self.node(values, spine, decl, &path.child("additionalProperties"), &below(spine, None))
        });
        let mut properties = std::collections::BTreeMap::new();
        for (name, property) in &schema.properties {
            let Some(spine) = spine.properties.get(name) else { continue };
            // A name that expressions cannot say has a declaration of its own.
            let declared = match (escape(name), ty) {
                (Some(escaped), Some(Type::Object(object))) => object.field(&escaped).map(|field| field.decl.clone()),
                (Some(_), _) => None,
                (None, _) => declare(spine, spine.embedded, "selfType"),
            };
            let path = path.child("properties").key(name);
            if let Some(node) = self.node(property, spine, declared.as_ref(), &path, &below(spine, None)) {
                properties.insert(name.clone(), node);
            }
        }
        let quiet = std::mem::replace(&mut self.quiet, true);
        let all_of =
            schema.limits.iter().flat_map(|limits| &limits.all_of).enumerate().filter_map(|(index, nested)| {
                let place = Place { root: place.root, cardinality: None, uncorrelated: None };
                self.node(nested, spine, decl, &path.child("allOf").index(index), &place)
            });
        let all_of: Vec<Node> = all_of.collect();
        self.quiet = quiet;
        let items = schema.items.as_deref().zip(spine.items.as_deref()).and_then(|(items, spine_items)| {
            let decl = if let Some(Type::List(list)) = ty { Some(&list.element) } else { None };
            let map = matches!(spine.list, ListType::Map(_));
            let place = below(spine_items, (!map).then(|| path.clone()));
            self.node(items, spine_items, decl, &path.child("items"), &place)
        });
        let own = path.child("x-kubernetes-validations");
        for (index, rule) in schema.rules.iter().enumerate().filter(|_| !self.quiet) {
            self.malformed += well_formed(rule, spine, &own.index(index), &mut self.errors);
        }
        let mut rules = Vec::new();
        if !schema.rules.is_empty() && self.malformed == malformed {
            match decl {
                Some(decl) => rules = self.rules(schema, spine, decl, &own, place),
                None if !self.quiet => {
                    let detail = "internal error: failed to construct type information for x-kubernetes-validations \
                                  rules: unable to convert structural schema to CEL declarations";
                    let message = format!("Internal error: {detail}");
                    self.errors.push(FieldError { reason: Reason::Internal, path: own, message });
                }
                None => {}
            }
        }
        let decl = decl?.clone();
        let nothing = rules.is_empty() && all_of.is_empty() && properties.is_empty();
        if nothing && additional.is_none() && items.is_none() {
            return None;
        }
        Some(Node {
            decl,
            kind: kind(spine.kind),
            rules,
            all_of,
            properties,
            additional: additional.map(Box::new),
            items: items.map(Box::new),
            list: spine.list.clone(),
            known: match &spine.additional {
                Some(_) => Known::Everything,
                None if spine.properties.is_empty() => Known::Nothing,
                None => Known::Fields(spine.properties.keys().cloned().collect()),
            },
        })
    }

    fn rules(
        &mut self,
        schema: &Structural,
        spine: &Structural,
        decl: &Decl,
        own: &Path,
        place: &Place,
    ) -> Vec<Compiled> {
        let often = place.cardinality.unwrap_or_else(|| cardinality(spine, place.root));
        let rules = schema.rules.iter().enumerate();
        rules.map(|(index, rule)| self.rule(rule, spine, decl, &own.index(index), often, place)).collect()
    }

    fn rule(
        &mut self,
        rule: &Rule,
        spine: &Structural,
        decl: &Decl,
        path: &Path,
        often: u64,
        place: &Place,
    ) -> Compiled {
        let old = match rule.optional_old_self {
            true => Decl::of(Type::optional(decl.ty.clone())),
            false => decl.clone(),
        };
        let environment = Environment::new().with("self", decl.clone()).with("oldSelf", old);
        let program = program(&rule.rule, &environment);
        let cost = program.as_ref().map_or(0, Program::estimated_cost).saturating_mul(often);
        self.observe(&path.child("rule"), "estimated rule cost", cost);
        if let Err(error) = &program {
            self.report(FieldError::invalid(&path.child("rule"), &shown(rule), error));
        }
        let mut message = None;
        if program.is_ok() && !rule.message_expression.is_empty() {
            let path = path.child("messageExpression");
            match message_program(&rule.message_expression, &environment) {
                Ok(program) => {
                    self.observe(&path, "estimated messageExpression cost", program.estimated_cost());
                    message = Some(program);
                }
                Err(error) => self.report(FieldError::invalid(&path, &shown(rule), &error)),
            }
        }
        let uses_old = program.as_ref().is_ok_and(|program| program.uses(OLD_SELF));
        match &place.uncorrelated {
            Some(within) if uses_old => {
                let detail =
                    format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {within}");
                self.report(FieldError::invalid(&path.child("rule"), &rule.rule, &detail));
            }
            _ if !uses_old && rule.optional_old_self => {
                let detail = "may not be set if oldSelf is not used in rule";
                self.report(FieldError::invalid(&path.child("optionalOldSelf"), &true, detail));
            }
            _ => {}
        }
        let at = field_path::resolve(&rule.field_path, spine).unwrap_or_default();
        Compiled { rule: rule.clone(), program, uses_old, message, path: at }
    }

    fn report(&mut self, error: FieldError) {
        if !self.quiet {
            self.errors.push(error);
        }
    }

    fn observe(&mut self, path: &Path, what: &str, cost: u64) {
        if self.quiet {
            return;
        }
        if cost > RULE_LIMIT {
            self.errors.push(FieldError::forbidden(path, &too_dear(what, cost, RULE_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= TOTAL_LIMIT / 100 {
            self.dearest.push((path.clone(), cost));
        }
    }
}

fn program(source: &str, environment: &Environment) -> Result<Program, String> {
    let program = Program::compile(source, environment)
        .map_err(|issues| format!("compilation failed: {}", render(source, &issues)))?;
    match program.result() {
        Type::Bool => Ok(program),
        _ => Err("cel expression must evaluate to a bool".into()),
    }
}

fn message_program(source: &str, environment: &Environment) -> Result<Program, String> {
    let program = Program::compile(source, environment)
        .map_err(|issues| format!("messageExpression compilation failed: {}", render(source, &issues)))?;
    match program.result() {
        Type::String => Ok(program),
        _ => Err("messageExpression must evaluate to a string".into()),
    }
}

/// What is wrong with a rule before anything is compiled; how much that is.
fn well_formed(rule: &Rule, spine: &Structural, path: &Path, errors: &mut Vec<FieldError>) -> usize {
    let before = errors.len();
    let broken = |text: &str| text.contains(['\n', '\r']);
    let message = path.child("message");
    if rule.rule.trim().is_empty() {
        errors.push(FieldError::required(&path.child("rule"), "rule is not specified"));
    } else if !rule.message.is_empty() && rule.message.trim().is_empty() {
        errors.push(FieldError::invalid(&message, &rule.message, "message must be non-empty if specified"));
    } else if broken(rule.message.trim()) {
        errors.push(FieldError::invalid(&message, &rule.message, "message must not contain line breaks"));
    } else if broken(rule.rule.trim()) && rule.message.trim().is_empty() {
        errors.push(FieldError::required(&message, "message must be specified if rule contains line breaks"));
    }
    if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
        let path = path.child("messageExpression");
        errors.push(FieldError::required(&path, "messageExpression must be non-empty if specified"));
    }
    if !rule.reason.is_empty() && !REASONS.contains(&rule.reason.as_str()) {
        errors.push(FieldError::not_supported(&path.child("reason"), &rule.reason, &REASONS));
    }
    if !rule.field_path.is_empty() {
        let (path, value) = (path.child("fieldPath"), &rule.field_path);
        if value.trim().is_empty() {
            errors.push(FieldError::invalid(&path, value, "fieldPath must be non-empty if specified"));
        }
        if broken(value) {
            errors.push(FieldError::invalid(&path, value, "fieldPath must not contain line breaks"));
        }
        if field_path::resolve(value, spine).is_none() {
            errors.push(FieldError::invalid(&path, value, "fieldPath must be a valid path"));
        }
    }
    errors.len() - before
}

/// A rule as errors show it: the JSON of upstream's internal type, which has no names for JSON.
fn shown(rule: &Rule) -> Json {
    let reason = if rule.reason.is_empty() { Json::Null } else { json!(rule.reason) };
    let fields = [
        ("Rule", json!(rule.rule)),
        ("Message", json!(rule.message)),
        ("MessageExpression", json!(rule.message_expression)),
        ("Reason", reason),
        ("FieldPath", json!(rule.field_path)),
        ("OptionalOldSelf", if rule.optional_old_self { json!(true) } else { Json::Null }),
    ];
    Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// How many values of a schema's parts one value of it can have; `None` if nothing limits that.
fn most(schema: &Structural) -> Option<u64> {
    let limits = schema.limits.as_deref();
    match schema.kind {
        Kind::Object if schema.additional.is_some() => limits.and_then(|l| l.max_properties),
        Kind::Array => limits.and_then(|l| l.max_items),
        _ => Some(1),
    }
}

fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Any | Kind::IntOrString => "",
        Kind::Object => "object",
        Kind::Array => "array",
        Kind::String => "string",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
    }
}
