//! The language itself: literals, operators, macros, conversions (after the conformance tests of cel-spec).

use super::*;

#[test]
fn literals() {
    check("1", json!(1));
    check("-1", json!(-1));
    check("-9223372036854775808", json!(i64::MIN));
    check("0x1F", json!(31));
    check("-0x1F", json!(-31));
    check("42u", json!(42));
    check("0xFFu", json!(255));
    check("1.5", json!(1.5));
    check(".5e1", json!(5.0));
    check("1e3", json!(1000.0));
    check("-1.5e-1", json!(-0.15));
    check("true", json!(true));
    check("null", Json::Null);
    check("'a'", json!("a"));
    check("\"a'b\"", json!("a'b"));
    check(r"'\n\t\\\'\x41\u00e9\U0001F600\101'", json!("\n\t\\'A\u{e9}\u{1F600}A"));
    check(r"r'\n'", json!("\\n"));
    check("'''a\n'b'''", json!("a\n'b"));
    check("b'abc'", json!("YWJj"));
    check(r"b'\xff' == b'\377'", json!(true));
    check("[1, 2, 3,]", json!([1, 2, 3]));
    check("{'a': [true], 'b': [],}", json!({"a": [true], "b": []}));
    check("[]", json!([]));
    check("{}", json!({}));
    check("1 // a comment\n + 2", json!(3));
}

#[test]
fn arithmetic() {
    check("1 + 2 * 3 - 4 / 2 % 3", json!(5));
    check("(1 + 2) * 3", json!(9));
    check("7 / 2", json!(3));
    check("-7 / 2", json!(-3));
    check("-7 % 3", json!(-1));
    check("7.0 / 2.0", json!(3.5));
    check("7u % 4u", json!(3));
    check("'a' + 'b'", json!("ab"));
    check("[1] + [2, 3]", json!([1, 2, 3]));
    check("b'a' + b'b' == b'ab'", json!(true));
    check("- - 1", json!(1));
    check("!!true", json!(true));
    check("-(1 + 2)", json!(-3));
    refuse("9223372036854775807 + 1", "! integer overflow");
    refuse("-9223372036854775808 - 1", "! integer overflow");
    refuse("9223372036854775807 * 2", "! integer overflow");
    refuse("-9223372036854775808 / -1", "! integer overflow");
    refuse("0u - 1u", "! unsigned integer overflow");
    refuse("1 / 0", "! division by zero");
    refuse("1 % 0", "! modulus by zero");
    refuse("1u / 0u", "! division by zero");
    check("1.0 / 0.0 > 1e300", json!(true));
}

#[test]
fn comparisons() {
    hold(&[
        "1 < 2",
        "2 <= 2",
        "3 > 2",
        "3 >= 3",
        "1 == 1",
        "1 != 2",
        "1 < 2.5",
        "2u > 1",
        "1.0 < 2u",
        "'a' < 'b'",
        "b'a' < b'b'",
        "false < true",
        "[1, 2] == [1, 2]",
        "[1, 2] != [2, 1]",
        "{'a': 1} == {'a': 1}",
        "{'a': 1} != {'a': 2}",
        "{'a': 1, 'b': 2} == {'b': 2, 'a': 1}",
        "null == null",
        "dyn(1) == dyn(1.0)",
        "dyn(1u) == dyn(1)",
        "dyn(1) != dyn('1')",
        "dyn([1]) == dyn([1.0])",
        "dyn(9007199254740993) != dyn(9007199254740992.0)",
        "9223372036854775807 < 9223372036854775808.0",
        "-1 < 0u",
        "type(1) == int",
        "type(type(1)) == type",
        "type('a') != type(1)",
        "type(null) == null_type",
        "type([]) == list",
        "type({}) == map",
        "type(timestamp(0)) == google.protobuf.Timestamp",
        "double('NaN') != double('NaN')",
        "!(double('NaN') < 1.0)",
        "timestamp('2020-01-01T00:00:00Z') < timestamp('2020-01-01T00:00:00.5Z')",
        "duration('1h') > duration('59m')",
    ]);
}

#[test]
fn logic() {
    hold(&[
        "true || false",
        "true && true",
        "false || true",
        "!(false && true)",
        "true ? true : false",
        "false ? false : true",
        "1 / 0 > 0 || true",
        "true || 1 / 0 > 0",
        "!(1 / 0 > 0 && false)",
        "!(false && 1 / 0 > 0)",
        "false ? 1 / 0 > 1 : true",
        "true && true && true && (false || true)",
        "1 in [1, 2]",
        "!(3 in [1, 2])",
        "'a' in {'a': 1}",
        "!('b' in {'a': 1})",
        "dyn(1) in [1.0]",
    ]);
    refuse("1 / 0 > 0 && true", "! division by zero");
    refuse("1 / 0 > 0 || false", "! division by zero");
    refuse("dyn(1) && true", "! no such overload");
    check("dyn(1) && false", json!(false));
    check("dyn('x') || true", json!(true));
    refuse("dyn('x') ? 1 : 2", "! no such overload");
}

#[test]
fn fields_and_indexes() {
    let object = json!({"self": {"a": {"b": [1, {"c": "x"}]}, "null": null, "k-1": 2}});
    check_with(object.clone(), "self.a.b[1].c", json!("x"));
    check_with(object.clone(), "self['k-1']", json!(2));
    check_with(object.clone(), "has(self.a) && !has(self.b) && has(self.a.b)", json!(true));
    check_with(object.clone(), "self.a.b.size()", json!(2));
    check_with(object.clone(), "size(self)", json!(3));
    check_with(object.clone(), "self.a.?b[?0].orValue(0)", json!(1));
    check_with(object.clone(), "self.a.?x.?y.hasValue()", json!(false));
    check_with(object.clone(), "self.?a.b[1].c.value()", json!("x"));
    check_with(object.clone(), "[1, 2][dyn(1.0)]", json!(2));
    check_with(object, "{dyn(1): 'a', dyn(2u): 'b'}[2]", json!("b"));
    refuse("m.b", "! no such key: b");
    refuse("m['b']", "! no such key: b");
    refuse("l[2]", "! index out of bounds: 2");
    refuse("l[-1]", "! index out of bounds: -1");
    refuse("s.b", "! no such overload");
    refuse("x[0]", "! no such overload");
}

#[test]
fn loops() {
    hold(&[
        "[1, 2, 3].all(x, x > 0)",
        "![1, 2, 3].all(x, x > 1)",
        "[].all(x, x > 0)",
        "[1, 2].exists(x, x == 2)",
        "![].exists(x, true)",
        "[1, 2, 2].exists_one(x, x == 1)",
        "![1, 2, 2].exists_one(x, x == 2)",
        "{'a': 1, 'b': 2}.all(k, k in ['a', 'b'])",
        "[1, 0].exists(x, 1 / x == 1)",
        "![1, 0].all(x, 1 / x > 1)",
        "[1, 2].all(i, v, i + 1 == v)",
        "{'a': 1}.all(k, v, k == 'a' && v == 1)",
        "[3, 4].exists(i, v, i == 1 && v == 4)",
        "[3, 4].existsOne(i, v, v > 3)",
        "[[1, 2], [3]].all(l, l.all(x, x > 0 && size(l) > 0))",
        "[1].all(x, [2].all(x, x == 2) && x == 1)",
    ]);
    check("[1, 2, 3].map(x, x * 2)", json!([2, 4, 6]));
    check("[1, 2, 3].map(x, x > 1, x * 2)", json!([4, 6]));
    check("[1, 2, 3].filter(x, x % 2 == 1)", json!([1, 3]));
    check("{'a': 1, 'b': 2}.map(k, k + '!')", json!(["a!", "b!"]));
    check("[1, 2].transformList(i, v, i * 10 + v)", json!([1, 12]));
    check("[1, 2].transformList(i, v, i > 0, v)", json!([2]));
    check("{'a': 1}.transformMap(k, v, v + 1)", json!({"a": 2}));
    check("{'a': 1, 'b': 5}.transformMap(k, v, v > 1, v + 1)", json!({"b": 6}));
    check("{'a': 'x'}.transformMapEntry(k, v, {v: k})", json!({"x": "a"}));
    refuse("['a', 'a'].transformMapEntry(i, v, {v: i})", "! insert failed: key a already exists");
    refuse("[1, 0].all(x, 1 / x > 0)", "! division by zero");
    refuse("[1, 0].exists_one(x, 1 / x > 0)", "! division by zero");
    refuse("[1, 2].map(1, x)", "argument must be a simple name");
    refuse("[1, 2].all(i, i, true)", "duplicate iteration variable name");
    refuse(
        "1.all(x, true)",
        "expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
    );
    refuse("[1].all(x, x)", "found no matching overload for '_&&_' applied to '(bool, int)'");
    refuse("[1].exists(x, x)", "found no matching overload for '_||_' applied to '(bool, int)'");
    refuse("[1].filter(x, x)", "found no matching overload for '_?_:_' applied to '(int, list(int), list(int))'");
    refuse("has(x)", "invalid argument to has() macro");
}

#[test]
fn optionals() {
    hold(&[
        "optional.of(1).hasValue()",
        "!optional.none().hasValue()",
        "optional.of(1).value() == 1",
        "optional.none().orValue(2) == 2",
        "optional.none().or(optional.of(3)).value() == 3",
        "!optional.ofNonZeroValue('').hasValue()",
        "optional.ofNonZeroValue('a').hasValue()",
        "{'a': 1}[?'b'].orValue(5) == 5",
        "[1][?3].orValue(5) == 5",
        "{'a': {'b': 1}}.?a.?b.value() == 1",
        "optional.of(2).optMap(x, x * 2).value() == 4",
        "!optional.none().optMap(x, x).hasValue()",
        "optional.of(2).optFlatMap(x, optional.of(x + 1)).value() == 3",
        "optional.of(1) == optional.of(1)",
        "optional.none() == optional.none()",
        "optional.of(1) != optional.none()",
        "optional.unwrap([optional.of(1), optional.none()]) == [1]",
        "[optional.of(1)].unwrapOpt() == [1]",
        "[1, 2].first().value() == 1",
        "[1, 2].last().value() == 2",
        "type(optional.none()) == optional_type",
    ]);
    check("[?optional.of(1), ?optional.none(), 3]", json!([1, 3]));
    check("{?'a': optional.of(1), ?'b': optional.none()}", json!({"a": 1}));
    refuse("optional.none().value()", "! optional.none() dereference");
    refuse("[?1]", "expected type 'optional_type(int)' but found 'int'");
}

#[test]
fn conversions() {
    hold(&[
        "int('12') == 12",
        "int(1.9) == 1",
        "int(-1.9) == -1",
        "int(3u) == 3",
        "uint(3) == 3u",
        "uint('7') == 7u",
        "double(1) == 1.0",
        "double('1.5') == 1.5",
        "string(1) == '1'",
        "string(1.0) == '1'",
        "string(1.5) == '1.5'",
        "string(1e30) == '1e+30'",
        "string(1e-7) == '1e-07'",
        "string(true) == 'true'",
        "string(b'abc') == 'abc'",
        "string(2u) == '2'",
        "bytes('a') == b'a'",
        "bool('true')",
        "!bool('F')",
        "string(timestamp('2020-01-02T03:04:05.25Z')) == '2020-01-02T03:04:05.25Z'",
        "string(duration('90m')) == '5400s'",
        "string(duration('-1500ms')) == '-1.5s'",
        "int(timestamp('1970-01-01T00:01:00Z')) == 60",
        "timestamp(60) == timestamp('1970-01-01T00:01:00Z')",
        "dyn('a') == 'a'",
        "type(dyn(1)) == int",
        "timestamp('2020-01-01T01:00:00+01:00') == timestamp('2020-01-01T00:00:00Z')",
    ]);
    refuse("int('a')", "! type conversion error from 'string' to 'int'");
    refuse("int(1e30)", "! integer overflow");
    refuse("uint(-1)", "! unsigned integer overflow");
    refuse("bool('maybe')", "! type conversion error from 'string' to 'bool'");
    refuse("duration(s)", "! type conversion error from 'string' to 'google.protobuf.Duration'");
    refuse("duration('1 day')", "invalid duration argument");
    refuse("timestamp('yesterday')", "invalid timestamp argument");
}

#[test]
fn times() {
    hold(&[
        "timestamp('2024-02-29T13:14:15.016Z').getFullYear() == 2024",
        "timestamp('2024-02-29T00:00:00Z').getMonth() == 1",
        "timestamp('2024-02-29T00:00:00Z').getDayOfMonth() == 28",
        "timestamp('2024-02-29T00:00:00Z').getDate() == 29",
        "timestamp('2024-02-29T00:00:00Z').getDayOfYear() == 59",
        "timestamp('2024-02-29T00:00:00Z').getDayOfWeek() == 4",
        "timestamp('2024-02-29T13:14:15.016Z').getHours() == 13",
        "timestamp('2024-02-29T13:14:15.016Z').getMinutes() == 14",
        "timestamp('2024-02-29T13:14:15.016Z').getSeconds() == 15",
        "timestamp('2024-02-29T13:14:15.016Z').getMilliseconds() == 16",
        "timestamp('2024-02-29T23:30:00Z').getHours('+01:00') == 0",
        "timestamp('2024-02-29T23:30:00Z').getDate('-08:00') == 29",
        "duration('90m').getHours() == 1",
        "duration('90m').getMinutes() == 90",
        "duration('1.5s').getMilliseconds() == 1500",
        "timestamp('2024-01-01T00:00:00Z') + duration('1h') == timestamp('2024-01-01T01:00:00Z')",
        "duration('1h') + timestamp('2024-01-01T00:00:00Z') == timestamp('2024-01-01T01:00:00Z')",
        "timestamp('2024-01-01T01:00:00Z') - timestamp('2024-01-01T00:00:00Z') == duration('1h')",
        "timestamp('2024-01-01T01:00:00Z') - duration('1h') == timestamp('2024-01-01T00:00:00Z')",
        "duration('1h30m') == duration('90m')",
        "duration('1h') - duration('30m') == duration('1800s')",
        "duration('0') == duration('0s')",
    ]);
    refuse("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "! timestamp overflow");
    refuse("timestamp('0001-01-01T00:00:00Z') - duration('1s')", "! timestamp overflow");
    refuse("timestamp(0).getHours('Nowhere/Land')", "! unknown time zone Nowhere/Land");
}
