//! Decides: draws expressions of CEL.

use crate::Draw;

/// A CEL expression, well formed more often than not.
pub fn expression(draw: &mut Draw) -> String {
    let mut out = String::new();
    term(draw, 0, &mut out);
    out
}

fn term(draw: &mut Draw, depth: usize, out: &mut String) {
    const LEAVES: &[&str] = &[
        "self",
        "1",
        "'a'",
        "true",
        "x",
        "l",
        "m",
        "s",
        "null",
        "2u",
        "1.5",
        "b'a'",
        "[]",
        "{}",
        "-9223372036854775808",
        "duration('1h')",
        "timestamp('2026-01-02T03:04:05Z')",
        "quantity('1Gi')",
        "oldSelf",
        "''",
        "'é'",
        "r'\\d'",
        "optional.none()",
        "ip('10.0.0.1')",
        "cidr('10.0.0.0/8')",
        "url('http://a/b')",
        "semver('1.2.3')",
    ];
    const OPERATORS: &[&str] = &["==", "+", "&&", "||", "<", "in", "-", "*", "/", "%", "!=", ">="];
    const METHODS: &[&str] = &[
        "size()",
        "a",
        "?a",
        "contains('a')",
        "matches('a+')",
        "split(',')",
        "join()",
        "lowerAscii()",
        "indexOf('a')",
        "substring(1)",
        "replace('a', 'bb')",
        "sum()",
        "isSorted()",
        "min()",
        "startsWith('a')",
        "orValue(1)",
        "value()",
        "hasValue()",
        "format([1])",
        "getHours()",
        "trim()",
        "find('a')",
        "findAll('a')",
        "flatten()",
        "sort()",
        "reverse()",
        "distinct()",
        "slice(0, 1)",
        "charAt(0)",
        "lastIndexOf('a')",
    ];
    const MACROS: &[&str] = &["all", "exists", "map", "filter", "exists_one"];
    const FUNCTIONS: &[&str] =
        &["size", "int", "string", "double", "type", "dyn", "bytes", "uint", "quantity", "has", "!", "-"];
    let choice = if depth > 6 { 0 } else { draw.below(9) };
    let inside = |draw: &mut Draw, out: &mut String| term(draw, depth + 1, out);
    match choice {
        0 | 1 => out.push_str(draw.pick(LEAVES)),
        2 => {
            out.push('(');
            inside(draw, out);
            out.push_str(&format!(" {} ", draw.pick(OPERATORS)));
            inside(draw, out);
            out.push(')');
        }
        3 => {
            inside(draw, out);
            out.push_str(&format!(".{}", draw.pick(METHODS)));
        }
        4 => {
            out.push_str(&format!("{}(", draw.pick(FUNCTIONS)));
            inside(draw, out);
            out.push(')');
        }
        5 => {
            inside(draw, out);
            out.push_str(&format!(".{}(v, ", draw.pick(MACROS)));
            inside(draw, out);
            out.push_str(draw.pick(&[")", " == v)", " > v)", " + v)"]));
        }
        6 => {
            out.push('[');
            for i in 0..draw.below(4) {
                out.push_str(if i == 0 { "" } else { ", " });
                inside(draw, out);
            }
            out.push(']');
        }
        7 => {
            out.push_str("{'a': ");
            inside(draw, out);
            out.push('}');
        }
        _ => {
            inside(draw, out);
            out.push_str(" ? ");
            inside(draw, out);
            out.push_str(" : ");
            inside(draw, out);
        }
    }
}
