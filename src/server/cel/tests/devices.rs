//! What selectors of devices see and say.

use k8s_openapi::api::resource::v1::Device;

use super::*;
use crate::server::cel::device;

fn the_device() -> Device {
    let device = json!({
        "name": "d", "allowMultipleAllocations": true,
        "attributes": {
            "model": { "string": "a100" }, "cores": { "int": 8 }, "gpu.x.io/healthy": { "bool": true },
            "other.io/version": { "version": "1.10.2" },
        },
        "capacity": { "memory": { "value": "40Gi" } },
    });
    serde_json::from_value(device).unwrap()
}

#[track_caller]
fn check(source: &str, want: Result<bool, &str>) {
    let program = device::compile(source).unwrap_or_else(|why| panic!("{source}: {why}"));
    assert!(program.estimated_cost() <= device::MAX_COST, "{source}: {}", program.estimated_cost());
    let found = device::matches(&program, "gpu.x.io", &the_device(), &mut Budget::default());
    assert_eq!(found, want.map_err(str::to_owned), "{source}");
}

#[test]
fn what_a_device_has_is_seen() {
    for source in [
        "device.driver == 'gpu.x.io'",
        "device.attributes['gpu.x.io'].model == 'a100'",
        "device.attributes['gpu.x.io']['cores'] >= 8",
        "device.attributes['gpu.x.io'].healthy",
        "device.attributes['other.io'].version.compareTo(semver('1.9.0')) > 0",
        "device.attributes['other.io'].version.isGreaterThan(semver('1.9.0'))",
        "device.capacity['gpu.x.io'].memory.compareTo(quantity('30Gi')) >= 0",
        "device.allowMultipleAllocations",
        "cel.bind(gpu, device.attributes['gpu.x.io'], gpu.healthy && gpu.model.startsWith('a'))",
        "device.attributes['gpu.x.io'].exists(name, name == 'model')",
        // A domain that is not there has nothing, and asking is no error.
        "!has(device.attributes['nobody.io'].model)",
        "device.attributes['nobody.io'].?model.orValue('none') == 'none'",
        "!('nobody.io' in device.attributes) && 'gpu.x.io' in device.attributes",
        "size(device.attributes) == 2",
    ] {
        check(source, Ok(true));
    }
    check("device.driver == 'other.io'", Ok(false));
    check("device.attributes['gpu.x.io'].model.lowerAscii().contains('b')", Ok(false));
}

#[test]
fn what_fails_is_told() {
    let hint = ". Consider using CEL optional chaining (?), has() macro, or orValue() for optional fields";
    check("device.attributes['gpu.x.io'].speed > 1", Err(&format!("no such key: speed{hint}")));
    check("device.attributes['nobody.io'].speed > 1", Err(&format!("no such key: speed{hint}")));
    check(
        "device.attributes['gpu.x.io'].model",
        Err("CEL result of type string could not be converted to bool: type conversion error from 'string' to 'bool'"),
    );
    let wrong = |source: &str| device::compile(source).map(drop).unwrap_err();
    assert_eq!(wrong("device.driver"), "must evaluate to bool or the unknown type, not string");
    assert!(
        wrong("device.drivers == 'x'").starts_with("compilation failed: ERROR: <input>:1:7: undefined field 'drivers'")
    );
    assert!(wrong("cel.bind(a.b, 1, true)").contains("cel.bind() variable names must be simple identifiers"));
    assert!(wrong("dev.driver == 'x'").contains("undeclared reference to 'dev' (in container '')"));
    // It is a macro for devices only.
    assert!(result("cel.bind(a, 1, a == 1)", &json!({})).unwrap_err().contains("undeclared reference to 'cel'"));
}

#[test]
fn what_costs_too_much_is_known_before() {
    let all = "device.attributes.all(d, device.attributes[d].all(n, device.attributes.all(e, device.attributes[e].all(m, \
               device.attributes[e][m].matches('.*' + n)))))";
    assert!(device::compile(all).unwrap().estimated_cost() > device::MAX_COST);
}
