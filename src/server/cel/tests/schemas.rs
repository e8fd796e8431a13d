//! Structural schemas as declarations, and objects seen through them.

use super::*;
use crate::server::cel::schema::{cardinality, declare, escape};
use crate::server::crd::structural::{Kind, Limits, ListType, Structural};

fn of(kind: Kind) -> Structural {
    Structural { kind, ..Structural::default() }
}

fn formatted(format: &str) -> Structural {
    Structural { limits: Some(Box::new(Limits { format: format.into(), ..Limits::default() })), ..of(Kind::String) }
}

fn object(properties: Vec<(&str, Structural)>) -> Structural {
    let properties = properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    Structural { properties, ..of(Kind::Object) }
}

fn list(items: Structural, list: ListType) -> Structural {
    Structural { items: Some(Box::new(items)), list, ..of(Kind::Array) }
}

#[track_caller]
fn see(schema: &Structural, root: bool, value: Json, source: &str) -> Result<Json, String> {
    let decl = declare(schema, root, "selfType").unwrap();
    let environment = Environment::new().with("self", decl.clone());
    let program = Program::compile(source, &environment).map_err(|issues| issues[0].message.clone())?;
    let bindings = Bindings::new().with(0, Value::of(&value, &decl).map_err(|e| e.to_string())?);
    let result = program.evaluate(&bindings, &mut Budget::default()).map_err(|e| e.to_string())?;
    Ok(result.to_json().unwrap())
}

#[test]
fn names_are_escaped() {
    for (name, escaped) in [
        ("a", Some("a")),
        ("a-b", Some("a__dash__b")),
        ("a.b", Some("a__dot__b")),
        ("a/b", Some("a__slash__b")),
        ("__a", Some("__underscores__a")),
        ("namespace", Some("__namespace__")),
        ("in", Some("__in__")),
        ("1a", None),
        ("a b", None),
        ("", None),
        ("é", None),
    ] {
        assert_eq!(escape(name).as_deref(), escaped, "{name}");
    }
    let schema = object(vec![("k-8.s", of(Kind::Integer)), ("namespace", of(Kind::String)), ("a b", of(Kind::String))]);
    let value = json!({"k-8.s": 1, "namespace": "x", "a b": "y"});
    assert_eq!(
        see(&schema, false, value.clone(), "self.k__dash__8__dot__s == 1 && self.__namespace__ == 'x'"),
        Ok(json!(true))
    );
    assert_eq!(see(&schema, false, value, "self == self"), Ok(json!(true)));
}

#[test]
fn roots_have_their_metadata() {
    let schema = object(vec![("spec", object(vec![("n", of(Kind::Integer))]))]);
    let value = json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "labels": {}}, "spec": {"n": 1}});
    let fine = "self.metadata.name == 'a' && self.kind == 'K' && self.apiVersion == 'v1' && self.spec.n == 1";
    assert_eq!(see(&schema, true, value.clone(), fine), Ok(json!(true)));
    assert_eq!(see(&schema, true, value.clone(), "has(self.metadata.generateName)"), Ok(json!(false)));
    assert_eq!(see(&schema, true, value.clone(), "self.metadata.labels"), Err("undefined field 'labels'".into()));
    assert_eq!(see(&schema, false, value, "self.metadata"), Err("undefined field 'metadata'".into()));
    let embedded = object(vec![("t", Structural { embedded: true, ..object(vec![]) })]);
    assert_eq!(see(&embedded, false, json!({"t": {"kind": "Pod"}}), "self.t.kind"), Ok(json!("Pod")));
}

#[test]
fn values_are_of_the_declared_types() {
    let schema = object(vec![
        ("time", formatted("date-time")),
        ("day", formatted("date")),
        ("wait", formatted("duration")),
        ("data", formatted("byte")),
        ("port", of(Kind::IntOrString)),
        ("share", of(Kind::Number)),
        ("none", Structural { nullable: true, ..of(Kind::String) }),
        ("any", Structural { preserves_unknown: true, ..of(Kind::Any) }),
        ("free", Structural { preserves_unknown: true, ..object(vec![]) }),
    ]);
    let value = json!({
        "time": "2024-01-02T03:04:05Z", "day": "2024-01-02", "wait": "1h30m", "data": "YWJj", "port": "http", "share": 1,
        "none": null, "any": {"x": 1}, "free": {"x": 1}
    });
    for source in [
        "self.time.getFullYear() == 2024",
        "self.day == timestamp('2024-01-02T00:00:00Z')",
        "self.wait == duration('90m')",
        "self.data == b'abc'",
        "type(self.port) == string && self.port == 'http'",
        "type(self.port) == int ? self.port > 0 : self.port.size() > 0",
        "self.share == 1.0",
        "!has(self.none)",
        "has(self.free)",
    ] {
        assert_eq!(see(&schema, false, value.clone(), source), Ok(json!(true)), "{source}");
    }
    assert_eq!(see(&schema, false, value.clone(), "self.any"), Err("undefined field 'any'".into()));
    assert_eq!(see(&schema, false, value, "self.free.x"), Err("undefined field 'x'".into()));
    let wrong = see(&schema, false, json!({"time": "noon"}), "self.time.getFullYear() == 1");
    assert_eq!(wrong, Err("Invalid date-time formatted string noon: unable to parse".into()));
}

#[test]
fn lists_are_sets_and_maps() {
    let item = || object(vec![("k", of(Kind::String)), ("v", of(Kind::Integer))]);
    let schema = object(vec![
        ("set", list(of(Kind::Integer), ListType::Set)),
        ("set2", list(of(Kind::Integer), ListType::Set)),
        ("map", list(item(), ListType::Map(vec!["k".into()]))),
        ("map2", list(item(), ListType::Map(vec!["k".into()]))),
        ("shares", list(of(Kind::Number), ListType::Atomic)),
        ("list", list(of(Kind::Integer), ListType::Atomic)),
        ("list2", list(of(Kind::Integer), ListType::Atomic)),
    ]);
    let value = json!({
        "set": [1, 2], "set2": [2, 1],
        "map": [{"k": "a", "v": 1}, {"k": "b", "v": 2}], "map2": [{"k": "b", "v": 2}, {"k": "a", "v": 1}],
        "list": [1, 2], "list2": [2, 1], "shares": [],
    });
    for source in [
        "self.set == self.set2",
        "dyn(self.map) == dyn(self.map2)",
        "self.list != self.list2",
        "self.set == [2, 1] && self.set != [2, 3] && [2, 1] != self.set",
        "self.shares.sum() + 1.5 == 1.5",
        "self.set + [3, 1] == [1, 2, 3]",
        "(self.set + self.set2).size() == 2",
        "(dyn(self.map) + dyn(self.map2)).size() == 2",
        "(dyn(self.map) + dyn(self.map2)).all(x, x.v > 0)",
        "(self.list + self.list2).size() == 4",
    ] {
        assert_eq!(see(&schema, false, value.clone(), source), Ok(json!(true)), "{source}");
    }
}

#[test]
fn sizes_come_from_limits_or_from_the_largest_request() {
    let long = |max| Structural {
        limits: Some(Box::new(Limits { max_length: Some(max), ..Limits::default() })),
        ..of(Kind::String)
    };
    assert_eq!(declare(&long(10), false, "").unwrap().max, 40);
    assert_eq!(declare(&of(Kind::String), false, "").unwrap().max, 3 * 1024 * 1024 - 2);
    assert_eq!(declare(&list(of(Kind::Integer), ListType::Atomic), false, "").unwrap().max, (3 * 1024 * 1024 - 2) / 2);
    let map = Structural { additional: Some(Box::new(of(Kind::Boolean))), ..of(Kind::Object) };
    assert_eq!(declare(&map, false, "").unwrap().max, (3 * 1024 * 1024 - 2) / 10);
    assert_eq!(cardinality(&of(Kind::String), false), 3 * 1024 * 1024 / 3);
    assert!(declare(&of(Kind::Any), false, "").is_none());
    assert!(declare(&list(of(Kind::Any), ListType::Atomic), false, "").is_none());
}
