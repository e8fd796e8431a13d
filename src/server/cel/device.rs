//! Decides: what selectors of devices say (`k8s.io/dynamic-resource-allocation/cel`): one environment for who checks
//! them when they are written, and for who evaluates them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};

use super::functions::opaque::{Opaque, QUANTITY};
use super::functions::semver::Version;
use super::types::{Decl, Field, MapType, ObjectType, Type};
use super::value::{Key, Map, Text, Value};
use super::{Bindings, Budget, CALL_LIMIT, Environment, Program, render};
use crate::api::quantity::Quantity;

/// What one evaluation may cost (`CELSelectorExpressionMaxCost`).
pub const MAX_COST: u64 = CALL_LIMIT;

/// Sizes of `k8s.io/api/resource/v1`.
const MAX_DRIVER: u64 = 63;
const MAX_DOMAIN: u64 = 63;
const MAX_VALUE: u64 = 64;
/// Attributes and capacities of a device together.
const MAX_PROPERTIES: u64 = 32;

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let text = |max| Decl { max, ..Decl::of(Type::String) };
    let map =
        |value| Decl { max: MAX_PROPERTIES, ..Decl::of(Type::Map(Arc::new(MapType { key: Type::String, value }))) };
    // Named as it is, a driver is not longer than a domain.
    let driver = text(MAX_DRIVER.min(MAX_DOMAIN));
    let fields = [
        ("driver", driver),
        ("attributes", map(map(Decl { max: MAX_VALUE, ..Decl::of(Type::Dyn) }))),
        ("capacity", map(map(Decl::of(Type::Opaque(QUANTITY))))),
        ("allowMultipleAllocations", Decl::of(Type::Bool)),
    ];
    let fields = fields.into_iter().map(|(name, decl)| Field { name: name.into(), json: name.into(), decl });
    let device = ObjectType::new("kubernetes.DRADevice", fields.collect());
    Environment::new().with("device", Decl::of(Type::Object(Arc::new(device)))).for_devices()
});

/// Compiles a selector.
///
/// # Errors
/// What upstream says of one that does not compile, or is of another type than bool.
pub fn compile(expression: &str) -> Result<Program, String> {
    let program = Program::compile(expression, &ENVIRONMENT)
        .map_err(|issues| format!("compilation failed: {}", render(expression, &issues)))?;
    match program.result() {
        Type::Bool => Ok(program),
        ty if ty.is_dyn() => Ok(program),
        ty => Err(format!("must evaluate to bool or the unknown type, not {ty}")),
    }
}

/// Whether a device of a driver is selected.
///
/// # Errors
/// Why it cannot be said, in upstream's words.
pub fn matches(program: &Program, driver: &str, device: &Device, budget: &mut Budget) -> Result<bool, String> {
    let bindings = Bindings::new().with(0, value(driver, device)?);
    match program.evaluate(&bindings, budget) {
        Ok(Value::Bool(selected)) => Ok(selected),
        Ok(other) => {
            let name = other.type_name();
            Err(format!(
                "CEL result of type {name} could not be converted to bool: type conversion error from '{name}' to 'bool'"
            ))
        }
        Err(error) => {
            let mut text = error.to_string();
            if text.starts_with("no such key:") {
                text.push_str(
                    ". Consider using CEL optional chaining (?), has() macro, or orValue() for optional fields",
                );
            }
            Err(text)
        }
    }
}

/// Attributes and capacities by domain and name. Those without a domain are of the driver's.
fn value<'a>(driver: &'a str, device: &'a Device) -> Result<Value<'a>, String> {
    let mut attributes = Domains::default();
    for (name, given) in device.attributes.iter().flatten() {
        let value = attribute(given).map_err(|why| format!("attribute {name}: {why}"))?;
        attributes.insert(driver, name, value);
    }
    let mut capacity = Domains::default();
    for (name, given) in device.capacity.iter().flatten() {
        let quantity = Quantity::parse(&given.value.0).map_err(|why| format!("capacity {name}: {why}"))?;
        capacity.insert(driver, name, Value::Opaque(Arc::new(Opaque::Quantity(quantity))));
    }
    let shared = device.allow_multiple_allocations == Some(true);
    let fields = [
        ("driver", Value::String(Text::Borrowed(driver))),
        ("attributes", attributes.into_value()),
        ("capacity", capacity.into_value()),
        ("allowMultipleAllocations", Value::Bool(shared)),
    ];
    let fields = fields.into_iter().map(|(name, value)| (Key::String(Text::Borrowed(name)), value));
    Ok(Value::Map(Map::Built(Rc::new(fields.collect()))))
}

#[derive(Default)]
struct Domains<'a>(BTreeMap<&'a str, BTreeMap<Key<'a>, Value<'a>>>);

impl<'a> Domains<'a> {
    fn insert(&mut self, driver: &'a str, name: &'a str, value: Value<'a>) {
        let (domain, name) = name.split_once('/').unwrap_or((driver, name));
        self.0.entry(domain).or_default().insert(Key::String(Text::Borrowed(name)), value);
    }

    fn into_value(self) -> Value<'a> {
        let domain = |(domain, values): (&'a str, BTreeMap<_, _>)| {
            (Key::String(Text::Borrowed(domain)), Value::Map(Map::Built(Rc::new(values))))
        };
        Value::Map(Map::Total(Rc::new(self.0.into_iter().map(domain).collect())))
    }
}

/// Lists are of a gate that is off.
fn attribute(given: &DeviceAttribute) -> Result<Value<'_>, String> {
    if let Some(value) = given.int {
        Ok(Value::Int(value))
    } else if let Some(value) = given.bool {
        Ok(Value::Bool(value))
    } else if let Some(text) = &given.string {
        Ok(Value::String(Text::Borrowed(text)))
    } else if let Some(text) = &given.version {
        let version = Version::parse(text).map_err(|why| format!("parse semantic version: {why}"))?;
        Ok(Value::Opaque(Arc::new(Opaque::Semver(version))))
    } else {
        Err("unsupported attribute value".to_owned())
    }
}
