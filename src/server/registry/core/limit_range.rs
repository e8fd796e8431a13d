//! Decides: LimitRange: what containers, pods and claims of a namespace may ask for, and get by default.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};

use crate::api::field::{FieldError, Path};
use crate::api::quantity::Quantity;
use crate::api::resource::Resource;
use crate::server::registry::format;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, invalid};
use crate::server::registry::quantity::{self, List};
use crate::server::registry::resource_name;
use crate::server::registry::strategy::Kind;

const TYPES: &[&str] = &["Pod", "Container", "PersistentVolumeClaim"];
/// Amounts below it are compared in thousandths, so that the fractions of CPUs count.
const MAX_MILLI: i64 = i64::MAX / 1000;

pub struct LimitRangeKind;

impl Kind for LimitRangeKind {
    type Object = LimitRange;

    fn resource(&self) -> &'static Resource {
        row("v1", "LimitRange")
    }

    fn defaults(&self, range: &mut LimitRange) {
        for item in &mut range.spec.get_or_insert_default().limits {
            for list in [
                &mut item.default,
                &mut item.default_request,
                &mut item.max,
                &mut item.max_limit_request_ratio,
                &mut item.min,
            ] {
                quantity::canonical_list(list);
            }
            if item.type_ == "Container" {
                fill(&mut item.default, item.max.as_ref());
                fill(&mut item.default_request, item.default.as_ref());
                fill(&mut item.default_request, item.min.as_ref());
            }
        }
    }

    fn validate(&self, range: &LimitRange) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let path = Path::new("spec").child("limits");
        let limits = range.spec.clone().unwrap_or_default().limits;
        for (i, item) in limits.iter().enumerate() {
            let at = path.index(i);
            type_name(&mut errors, &at.child("type"), &item.type_);
            if limits[..i].iter().any(|other| other.type_ == item.type_) {
                errors.push(FieldError::duplicate(&at.child("type"), &item.type_));
            }
            check(&mut errors, &at, item);
        }
        errors
    }

    fn create_on_update(&self) -> bool {
        true
    }
}

/// Adds what only `from` has.
fn fill(list: &mut Option<List>, from: Option<&List>) {
    for (name, value) in from.into_iter().flatten() {
        list.get_or_insert_default().entry(name.clone()).or_insert_with(|| value.clone());
    }
}

fn type_name(errors: &mut Errors, path: &Path, name: &str) {
    let problems = format::qualified_name(name);
    if !problems.is_empty() {
        invalid(errors, path, &name, problems);
    } else if !name.contains('/') && !TYPES.contains(&name) {
        errors.push(FieldError::invalid(path, &name, "must be a standard limit type or fully qualified"));
    }
}

/// The amounts of one field by resource. What cannot be read is reported and left out.
type Amounts = BTreeMap<String, Quantity>;

fn amounts(errors: &mut Errors, path: &Path, kind: &str, list: Option<&List>) -> Amounts {
    let mut out = Amounts::new();
    for (name, text) in list.into_iter().flatten() {
        let at = path.key(name);
        if matches!(kind, "Pod" | "Container") {
            resource_name::of_container(errors, &at, name);
        } else {
            resource_name::any(errors, &at, name);
        }
        match quantity::parse(text) {
            Ok(value) => drop(out.insert(name.clone(), value)),
            Err(error) => errors.push(FieldError::invalid(&at, &text.0, &error.to_string())),
        }
    }
    out
}

fn check(errors: &mut Errors, path: &Path, item: &LimitRangeItem) {
    let kind = item.type_.as_str();
    let read = |errors: &mut Errors, field: &str, list: Option<&List>| amounts(errors, &path.child(field), kind, list);
    let max = read(errors, "max", item.max.as_ref());
    let min = read(errors, "min", item.min.as_ref());
    let (mut default, mut request) = (Amounts::new(), Amounts::new());
    if kind == "Pod" {
        for (field, list) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if list.as_ref().is_some_and(|l| !l.is_empty()) {
                let message = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(&path.child(field), message));
            }
        }
    } else {
        default = read(errors, "default", item.default.as_ref());
        request = read(errors, "defaultRequest", item.default_request.as_ref());
    }
    if kind == "PersistentVolumeClaim" && !min.contains_key("storage") && !max.contains_key("storage") {
        let message = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(&path.child("limits"), message));
    }
    let ratio = read(errors, "maxLimitRequestRatio", item.max_limit_request_ratio.as_ref());
    let names: BTreeSet<&String> =
        [&max, &min, &default, &request, &ratio].into_iter().flat_map(Amounts::keys).collect();
    for name in names {
        let of = |list: &Amounts| list.get(name).copied();
        let one = One { min: of(&min), max: of(&max), default: of(&default), request: of(&request), ratio: of(&ratio) };
        one.check(errors, path, name);
    }
}

/// Everything that is said of one resource.
struct One {
    min: Option<Quantity>,
    max: Option<Quantity>,
    default: Option<Quantity>,
    request: Option<Quantity>,
    ratio: Option<Quantity>,
}

impl One {
    fn check(&self, errors: &mut Errors, path: &Path, name: &str) {
        let mut ordered = |field: &str, shown: Option<Quantity>, low: Bound, high: Bound| {
            if let ((low_is, Some(low)), (high_is, Some(high))) = (low, high)
                && low > high
            {
                let message = format!("{low_is} value {low} is greater than {high_is} value {high}");
                let shown = shown.unwrap_or_default().to_string();
                errors.push(FieldError::invalid(&path.child(field).key(name), &shown, &message));
            }
        };
        let (min, max) = (("min", self.min), ("max", self.max));
        let (default, request) = (("default", self.default), ("default request", self.request));
        ordered("min", self.min, min, max);
        ordered("defaultRequest", self.request, min, request);
        ordered("defaultRequest", self.request, request, max);
        ordered("defaultRequest", self.request, request, ("default limit", self.default));
        // Upstream shows the bound of these two, not the default.
        ordered("default", self.min, min, default);
        ordered("default", self.max, default, max);
        self.check_ratio(errors, &path.child("maxLimitRequestRatio").key(name));
        if let (Some(default), Some(request)) = (self.default, self.request)
            && !resource_name::overcommits(name)
            && default != request
        {
            let message = format!("default value {default} must equal to defaultRequest value {request} in {name}");
            let at = path.child("defaultRequest").key(name);
            errors.push(FieldError::invalid(&at, &request.to_string(), &message));
        }
    }

    fn check_ratio(&self, errors: &mut Errors, path: &Path) {
        let Some(ratio) = self.ratio else { return };
        if ratio < Quantity::from_milli(1000) {
            let message = format!("ratio {ratio} is less than 1");
            errors.push(FieldError::invalid(path, &ratio.to_string(), &message));
        }
        let (Some(min), Some(max)) = (self.min, self.max) else { return };
        let fine = [ratio, min, max].iter().all(|q| q.value() < MAX_MILLI);
        let read = |q: Quantity| if fine { number(q.milli()) } else { number(q.value()) };
        let bound = read(max) / read(min);
        let given = if fine { number(ratio.milli()) / 1000.0 } else { number(ratio.value()) };
        if given > bound {
            let message = format!("ratio {ratio} is greater than max/min = {bound:.6}");
            errors.push(FieldError::invalid(path, &ratio.to_string(), &message));
        }
    }
}

/// What a bound is called, and what it is.
type Bound = (&'static str, Option<Quantity>);

#[allow(clippy::cast_precision_loss, reason = "upstream compares ratios as floats too")]
fn number(value: i64) -> f64 {
    value as f64
}
