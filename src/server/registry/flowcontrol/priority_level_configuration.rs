//! Decides: PriorityLevelConfiguration: how many requests of a level run at once, and what becomes of the others.

use k8s_openapi::api::flowcontrol::v1::{
    LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
    PriorityLevelConfigurationStatus, QueuingConfiguration,
};

use super::{conditions, keep_metadata};
use crate::api::field::{FieldError, Path};
use crate::api::flowcontrol;
use crate::api::resource::Resource;
use crate::server::registry::kinds::row;
use crate::server::registry::metadata::{Errors, shown};
use crate::server::registry::request::Context;
use crate::server::registry::strategy::{Kind, Part};

const TYPES: &[&str] = &["Exempt", "Limited"];
const RESPONSES: &[&str] = &["Queue", "Reject"];
const MAX_QUEUES: i32 = 10_000_000;
/// What a hash has to deal a hand of queues with (`shufflesharding.MaxHashBits`).
const MAX_HASH_BITS: i32 = 60;

pub struct PriorityLevelConfigurationKind;

impl Kind for PriorityLevelConfigurationKind {
    type Object = PriorityLevelConfiguration;

    fn resource(&self) -> &'static Resource {
        row("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration")
    }

    fn defaults(&self, level: &mut PriorityLevelConfiguration) {
        let spec = level.spec.get_or_insert_default();
        if let Some(exempt) = &mut spec.exempt {
            exempt.nominal_concurrency_shares.get_or_insert(0);
            exempt.lendable_percent.get_or_insert(0);
        }
        if let Some(limited) = &mut spec.limited {
            limited.nominal_concurrency_shares.get_or_insert(30);
            limited.lendable_percent.get_or_insert(0);
            if let Some(queuing) = &mut limited.limit_response.get_or_insert_default().queuing {
                let or = |field: &mut Option<i32>, default| *field = field.filter(|n| *n != 0).or(Some(default));
                or(&mut queuing.hand_size, 8);
                or(&mut queuing.queues, 64);
                or(&mut queuing.queue_length_limit, 50);
            }
        }
        level.status.get_or_insert_default();
    }

    fn generation_of(&self) -> &'static [&'static str] {
        &["/spec"]
    }

    fn prepare_create(&self, _: &Context, level: &mut PriorityLevelConfiguration) {
        level.status = Some(PriorityLevelConfigurationStatus::default());
    }

    fn prepare_update(
        &self,
        _: &Context,
        part: Part,
        new: &mut PriorityLevelConfiguration,
        old: &PriorityLevelConfiguration,
    ) {
        if part == Part::Status {
            keep_metadata(&mut new.metadata, &old.metadata);
        }
    }

    fn status_resets(&self) -> &'static [&'static [&'static str]] {
        &[&["metadata"]]
    }

    fn validate(&self, level: &PriorityLevelConfiguration) -> Vec<FieldError> {
        let (mut errors, path) = (Vec::new(), Path::new("spec"));
        let name = level.metadata.name.as_deref().unwrap_or_default();
        let spec = level.spec.clone().unwrap_or_default();
        check(&mut errors, &path, name, &spec);
        if let Some(fixed) = mandatory(name) {
            let (which, given) = if name == "exempt" {
                // What the exempt lend to others is up to whoever runs the cluster.
                let given = PriorityLevelConfigurationSpec { exempt: fixed.exempt.clone(), ..spec.clone() };
                (" except the 'spec.exempt' field", given)
            } else {
                ("", spec.clone())
            };
            if given != fixed {
                let message = format!("spec of '{name}'{which} must equal the fixed value");
                errors.push(FieldError::invalid(&path, &shown(&spec), &message));
            }
        }
        errors.extend(status(level));
        errors
    }

    fn validate_update(
        &self,
        part: Part,
        new: &PriorityLevelConfiguration,
        _: &PriorityLevelConfiguration,
    ) -> Vec<FieldError> {
        if part == Part::Status { status(new) } else { self.validate(new) }
    }

    fn unconditional_update(&self) -> bool {
        false
    }
}

fn mandatory(name: &str) -> Option<PriorityLevelConfigurationSpec> {
    let all = flowcontrol::mandatory_priority_levels();
    all.into_iter().find(|m| m.metadata.name.as_deref() == Some(name)).and_then(|m| m.spec)
}

fn status(level: &PriorityLevelConfiguration) -> Errors {
    let mut errors = Vec::new();
    let found = level.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
    conditions(&mut errors, found.map(|c| c.type_.as_ref()));
    errors
}

fn check(errors: &mut Errors, path: &Path, name: &str, spec: &PriorityLevelConfigurationSpec) {
    let at = path.child("type");
    if (name == "exempt") != (spec.type_ == "Exempt") {
        let message = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.push(FieldError::invalid(&at, &spec.type_, message));
    }
    match (spec.type_.as_str(), &spec.limited, &spec.exempt) {
        ("Exempt", limited, exempt) => {
            if limited.is_some() {
                let message = "must be nil if the type is not Limited";
                errors.push(FieldError::forbidden(&path.child("limited"), message));
            }
            if let Some(exempt) = exempt {
                let at = path.child("exempt");
                not_negative(errors, &at.child("nominalConcurrencyShares"), exempt.nominal_concurrency_shares);
                percent(errors, &at.child("lendablePercent"), exempt.lendable_percent);
            }
        }
        ("Limited", limited, exempt) => {
            if exempt.is_some() {
                errors.push(FieldError::forbidden(&path.child("exempt"), "must be nil if the type is Limited"));
            }
            match limited {
                Some(limited) => check_limited(errors, &path.child("limited"), limited),
                None => {
                    let message = "must not be empty when type is Limited";
                    errors.push(FieldError::required(&path.child("limited"), message));
                }
            }
        }
        (other, ..) => errors.push(FieldError::not_supported(&at, &other, TYPES)),
    }
}

fn not_negative(errors: &mut Errors, path: &Path, value: Option<i32>) {
    if let Some(value) = value.filter(|n| *n < 0) {
        errors.push(FieldError::invalid(path, &value, "must be a non-negative integer"));
    }
}

fn percent(errors: &mut Errors, path: &Path, value: Option<i32>) {
    if let Some(value) = value.filter(|n| !(0..=100).contains(n)) {
        errors.push(FieldError::invalid(path, &value, "must be between 0 and 100, inclusive"));
    }
}

fn check_limited(errors: &mut Errors, path: &Path, limited: &LimitedPriorityLevelConfiguration) {
    not_negative(errors, &path.child("nominalConcurrencyShares"), limited.nominal_concurrency_shares);
    response(errors, &path.child("limitResponse"), &limited.limit_response.clone().unwrap_or_default());
    percent(errors, &path.child("lendablePercent"), limited.lendable_percent);
    if let Some(borrowed) = limited.borrowing_limit_percent.filter(|n| *n < 0) {
        let message = "if specified, must be a non-negative integer";
        errors.push(FieldError::invalid(&path.child("borrowingLimitPercent"), &borrowed, message));
    }
}

fn response(errors: &mut Errors, path: &Path, response: &LimitResponse) {
    let at = path.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", None) => {}
        ("Reject", Some(_)) => {
            let message = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(&at, message));
        }
        ("Queue", None) => {
            let message = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(&at, message));
        }
        ("Queue", Some(queuing)) => queues(errors, &at, queuing),
        (other, _) => errors.push(FieldError::not_supported(&path.child("type"), &other, RESPONSES)),
    }
}

fn queues(errors: &mut Errors, path: &Path, queuing: &QueuingConfiguration) {
    let mut refuse = |field: &str, value: i32, message: &str| {
        errors.push(FieldError::invalid(&path.child(field), &value, message));
    };
    let (queues, hand) = (queuing.queues.unwrap_or_default(), queuing.hand_size.unwrap_or_default());
    let length = queuing.queue_length_limit.unwrap_or_default();
    if length <= 0 {
        refuse("queueLengthLimit", length, "must be positive");
    }
    if queues <= 0 {
        refuse("queues", queues, "must be positive");
    } else if queues > MAX_QUEUES {
        refuse("queues", queues, &format!("must not be greater than {MAX_QUEUES}"));
    }
    if hand <= 0 {
        refuse("handSize", hand, "must be positive");
    } else if hand > queues {
        refuse("handSize", hand, &format!("should not be greater than queues ({queues})"));
    } else if (f64::from(queues).log2() * f64::from(hand)).ceil() > f64::from(MAX_HASH_BITS) {
        let message = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        refuse("handSize", hand, &message);
    }
}
