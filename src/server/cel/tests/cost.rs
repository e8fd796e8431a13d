//! Estimates and counts, against those of cel-go's own tests where they have the same expression.

use super::*;
use crate::server::cel::types::{Field, ListType, MapType, ObjectType};

fn sized(ty: Type, max: u64) -> Decl {
    Decl { ty, max, nullable: false }
}

/// `self` with a string of 100, a list of 10 such strings, a map of 5 and an integer.
fn environment() -> Environment {
    let list = Type::List(ListType { element: sized(Type::String, 100), kind: Default::default() }.into());
    let map = Type::Map(MapType { key: Type::String, value: sized(Type::String, 50) }.into());
    let mut fields = vec![Field::new("n", Type::Int)];
    for (name, decl) in [("s", sized(Type::String, 100)), ("l", sized(list, 10)), ("m", sized(map, 5))] {
        fields.push(Field { decl, ..Field::new(name, Type::Dyn) });
    }
    let object = Type::Object(ObjectType::new("selfType", fields).into());
    Environment::new()
        .with("self", Decl::of(object))
        .with("any", Decl::of(Type::Dyn))
        .with("list", Decl::of(Type::list(Type::Int)))
}

#[test]
fn estimates() {
    for (source, most) in [
        ("true", 0),
        ("self", 1),
        ("self.n", 2),
        ("self.n == 1", 2),
        ("self.n > 1", 3),
        ("has(self.s)", 1),
        ("self.s == 'abc'", 3),
        ("self.s == self.s", 14),
        ("self.s.startsWith('abcdefghijkl')", 4),
        ("self.s.contains('abcdefghijkl')", 22),
        ("self.s.matches('[a-z]')", 24),
        ("self.s + self.s == self.s", 36),
        ("self.s in self.l", 14),
        ("self.n > 1 && self.n < 5", 6),
        ("true || self.n > 1", 3),
        ("self.n > 1 ? self.s : 'a'", 5),
        ("[1, 2, 3]", 10),
        ("{'a': self.n}", 32),
        ("self.l.all(x, x == 'a')", 3 + 10 * (3 + 2)),
        ("self.l.exists(x, x == 'a')", 3 + 10 * (4 + 2)),
        ("self.m.all(k, self.m[k] == 'aaaaaaaaaaaaaaaaaaaa')", 3 + 5 * (3 + 6)),
        ("self.l.all(x, self.l.all(y, x == y))", 3 + 10 * (3 + 3 + 10 * (3 + 12))),
        ("self.l.map(x, x + 'a')", 13 + 10 * (12 + 12)),
        ("self.l.filter(x, x == 'a').size() > 1", 13 + 10 * (13 + 2) + 2),
        ("[1, 2].all(x, x > 0)", 10 + 1 + 2 * (3 + 2)),
        ("size(self.l)", 3),
        ("self.s.lowerAscii() == 'a'", 13),
        ("self.l.join(',')", 2 + 101),
        ("quantity(self.s).isLessThan(quantity('1'))", 5),
    ] {
        let program = Program::compile(source, &environment()).unwrap_or_else(|e| panic!("{}", render(source, &e)));
        assert_eq!(program.estimated_cost(), most, "{source}");
    }
    for source in ["list.all(x, x > 0)", "any == any", "any.all(x, x)"] {
        let program = Program::compile(source, &environment()).unwrap_or_else(|e| panic!("{}", render(source, &e)));
        assert!(program.estimated_cost() > 1_u64 << 60, "{source}");
    }
}

#[test]
fn counts() {
    let value = json!({"s": "abc", "n": 3, "l": ["a", "b"], "m": {"k": "v"}});
    for (source, units) in [
        ("true", 0),
        ("self.n == 3", 3),
        ("self.n > 1", 3),
        ("has(self.s)", 1),
        ("self.s == 'abc'", 3),
        ("self.s.startsWith('a')", 3),
        ("self.s.matches('[a-z]')", 4),
        ("self.s in ['a', 'b', 'abc']", 5),
        ("self.n > 5 && self.n < 5", 3),
        ("self.n > 1 || self.n < 5", 3),
        ("self.n > 1 ? self.n : 1", 5),
        ("self.l.all(x, x != '')", 2 + 2 * (3 + 1) + 1),
        ("self.l.exists(x, x == 'a')", 2 + 4 + 2 + 1),
        ("self.l.map(x, x)", 2 + 10 + 2 * (12 + 1) + 1),
        ("self.l.filter(x, x == 'a')", 2 + 10 + (2 + 13) + (2 + 1) + 1),
        ("[self.n]", 12),
        ("size(self.l) < 5", 4),
        ("self.m['k'] == 'v'", 4),
    ] {
        let program = Program::compile(source, &environment()).unwrap_or_else(|e| panic!("{}", render(source, &e)));
        let mut budget = Budget::default();
        let environment = environment();
        let bindings = Bindings::new().with(0, Value::of(&value, environment.decl(0).unwrap()).unwrap());
        let result = program.evaluate(&bindings, &mut budget);
        assert!(result.is_ok(), "{source}: {result:?}");
        assert_eq!(super::super::REQUEST_BUDGET - budget.left(), units, "{source}");
    }
}
