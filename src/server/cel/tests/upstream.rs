//! Estimates against the numbers of upstream's own `TestCostEstimation` (`compilation_test.go` of apiextensions-apiserver): each
//! rule over a schema without limits, and over the same with one. Any difference would refuse or accept a definition that
//! upstream does not.

use super::*;
use crate::server::cel::schema::declare;
use crate::server::crd::structural::{Kind, Limits, ListType, Structural};

type Max = Option<u64>;

fn of(kind: Kind, limits: Limits) -> Structural {
    Structural { kind, limits: Some(Box::new(limits)), ..Structural::default() }
}

fn plain(name: &str) -> Structural {
    let kind = match name {
        "number" => Kind::Number,
        "integer" => Kind::Integer,
        "boolean" => Kind::Boolean,
        "int-or-string" => Kind::IntOrString,
        _ => Kind::String,
    };
    let format =
        if matches!(name, "date" | "date-time" | "duration" | "byte") { name.to_owned() } else { String::new() };
    of(kind, Limits { format, ..Limits::default() })
}

fn text(max_length: Max) -> Structural {
    of(Kind::String, Limits { max_length, ..Limits::default() })
}

fn list(items: Structural, max_items: Max) -> Structural {
    let limits = Limits { max_items, ..Limits::default() };
    Structural { items: Some(Box::new(items)), list: ListType::Atomic, ..of(Kind::Array, limits) }
}

fn map(values: Structural, max_properties: Max) -> Structural {
    let limits = Limits { max_properties, ..Limits::default() };
    Structural { additional: Some(Box::new(values)), ..of(Kind::Object, limits) }
}

fn object(properties: Vec<(&str, Structural)>, required: &[&str]) -> Structural {
    let required = required.iter().map(|name| (*name).to_owned()).collect();
    let properties = properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    Structural { properties, ..of(Kind::Object, Limits { required, ..Limits::default() }) }
}

/// With one field that must be there and one that need not.
fn two_fields() -> Structural {
    object(vec![("required", plain("string")), ("optional", plain("string"))], &["required"])
}

#[track_caller]
fn estimated(schema: &Structural, source: &str) -> u64 {
    let decl = declare(schema, false, "selfType").unwrap();
    let environment = Environment::new().with("self", decl.clone()).with("oldSelf", decl);
    let program = Program::compile(source, &environment).unwrap_or_else(|e| panic!("{}", render(source, &e)));
    program.estimated_cost()
}

/// The estimate without a limit (`None` for what is beyond any) and with one.
#[track_caller]
fn agree(schema: impl Fn(Max) -> Structural, source: &str, free: Option<u64>, limit: u64, limited: u64) {
    let found = estimated(&schema(None), source);
    match free {
        Some(free) => assert_eq!(found, free, "{source} without a limit"),
        None => assert!(found > 10_000_000, "{source} without a limit: {found}"),
    }
    assert_eq!(estimated(&schema(Some(limit)), source), limited, "{source} with the limit {limit}");
}

#[test]
fn loops() {
    let all = "self.all(x, true)";
    for (items, free, limit, limited) in [
        (plain("number"), 4_718_591, 10, 32),
        (plain("string"), 3_145_727, 20, 62),
        (plain("boolean"), 1_887_437, 5, 17),
        (list(plain("number"), None), 3_145_727, 100, 302),
        (two_fields(), 555_128, 50, 152),
        (plain("int-or-string"), 4_718_591, 10, 32),
        (plain("duration"), 2_359_295, 5, 17),
        (plain("date"), 725_936, 15, 47),
        (plain("date-time"), 428_963, 25, 77),
    ] {
        agree(|max| list(items.clone(), max), all, Some(free), limit, limited);
    }
    for (values, free, limit, limited) in [
        (plain("number"), 1_348_169, 10, 32),
        (plain("string"), 1_179_647, 3, 11),
        (plain("boolean"), 943_718, 100, 302),
        (plain("int-or-string"), 1_348_169, 15, 47),
        (two_fields(), 428_963, 20, 62),
        (map(plain("number"), None), 1_179_647, 10, 32),
        (list(plain("number"), None), 1_179_647, 25, 77),
        (plain("duration"), 1_048_577, 5, 17),
        (plain("date"), 524_288, 10, 32),
        (plain("date-time"), 349_526, 25, 77),
    ] {
        agree(|max| map(values.clone(), max), all, Some(free), limit, limited);
    }
    let numbers = |max| list(plain("number"), max);
    agree(numbers, "self.all(x, self.all(y, true))", None, 10, 352);
    agree(numbers, "self.all(x, self.all(y, self.all(z, true)))", None, 10, 3_552);
    agree(numbers, "self.all(x, x == 0.0)", Some(6_291_454), 3 * 1024 * 2048, 25_165_826);
    agree(|max| list(map(plain("number"), None), max), "self.all(x, x.y == 25.2)", Some(6_291_452), 12, 74);
    agree(|max| map(text(max), max), "self.all(x, x.contains(self[x]))", Some(2_752_507), 10, 72);
    let nested = "self.all(x, x[\"y\"].required == \"z\")";
    agree(|max| list(map(two_fields(), max), max), nested, Some(7_340_027), 10, 72);
}

#[test]
fn indexes() {
    for (items, source, cost, limit) in [
        (plain("number"), "self[1] == 0.0", 2, 5_000),
        (plain("number"), "self[3] == 0.0", 2, 0),
        (plain("string"), "self[1] == self[1]", 314_577, 8),
        (plain("int-or-string"), "self[0] == 5", 3, 10),
        (plain("boolean"), "self[0] == false", 2, 25),
        (two_fields(), "self[0] == null", 2, 422),
        (list(plain("number"), None), "self[0][0] == -1.0", 3, 51),
        (map(plain("number"), None), "self[0].x > 2.0", 4, 3_000),
        (plain("duration"), "self[0].getHours() == 2", 4, 525),
        (plain("date"), "self[2].getDayOfMonth() == 13", 4, 42),
        (plain("date-time"), "self[2].getMinutes() == 45", 4, 99),
    ] {
        agree(|max| list(items.clone(), max), source, Some(cost), limit, cost);
    }
    for (values, source, cost, limit) in [
        (plain("number"), "self[\"x\"] == 0.0", 2, 0),
        (plain("integer"), "oldSelf.size() == self.size()", 5, 10),
        (plain("date-time"), "self[\"a\"] == self[\"b\"]", 8, 7),
        (plain("duration"), "self[\"c\"] == self[\"d\"]", 8, 42),
    ] {
        agree(|max| map(values.clone(), max), source, Some(cost), limit, cost);
    }
}

#[test]
fn strings() {
    for (source, free, limit, limited) in [
        ("self.contains('test')", 314_574, 10, 5),
        ("self.startsWith('test')", 2, 15, 2),
        ("self.endsWith('test')", 2, 30, 2),
        ("size(self + \"hello\") > size(\"hello\")", 314_578, 4, 7),
        ("self.matches(\"x\")", 314_574, 50, 22),
        ("\"\".matches(\"(((((((((())))))))))[0-9]\")", 7, 10, 7),
        ("self.matches(\"\")", 1, 100, 1),
        ("self == \"x\"", 2, 0, 1),
        ("self.find('[0-9]+') == ''", 629_147, 10, 11),
        ("self.lowerAscii() == 'lower!'", 314_575, 10, 6),
    ] {
        agree(text, source, Some(free), limit, limited);
    }
    let bytes = |max_length| of(Kind::String, Limits { max_length, format: "byte".into(), ..Limits::default() });
    agree(bytes, "self == b\"x\"", Some(2), 0, 1);
    let enumeration = |max_length| {
        let enumeration = ["A", "B", "C", "LongValue"].map(Json::from).to_vec();
        of(Kind::String, Limits { max_length, enumeration, ..Limits::default() })
    };
    agree(enumeration, "self.contains('A')", Some(2), 1_000, 401);
    let texts = |max| list(text(max), max);
    agree(texts, "self.join(' ') == 'aa bb'", Some(329_853_068_905), 10, 43);
    agree(texts, "self.isSorted() == true", Some(329_854_432_052), 10, 52);
    let replaced = |max| object(vec![("str", text(max)), ("before", text(Some(2))), ("after", text(Some(4)))], &[]);
    agree(replaced, "self.str.replace(self.before, self.after) == 'does not matter'", Some(629_154), 4, 12);
    let separated = |max| object(vec![("str", text(max)), ("separator", text(max))], &[]);
    agree(separated, "self.str.split(self.separator) == []", Some(629_160), 10, 22);
}
