//! What the parser and the checker say, with the lines that clients see.

use super::*;

/// Over `self`, an object with a string, an integer and a list.
#[track_caller]
fn shown(source: &str, expected: &str) {
    use crate::server::cel::types::{Field, ObjectType};
    let fields = vec![
        Field::new("name", Type::String),
        Field::new("replicas", Type::Int),
        Field::new("ports", Type::list(Type::Int)),
        Field::new("labels", Type::map(Type::String, Type::String)),
    ];
    let object = Type::Object(ObjectType::new("selfType", fields).into());
    let environment = Environment::new().with("self", Decl::of(object));
    let issues = Program::compile(source, &environment).map(|_| ()).unwrap_err();
    assert_eq!(render(source, &issues), expected, "{source}");
}

#[test]
fn names_and_fields() {
    shown("foo", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo\n | ^");
    shown("self.xx == 1", "ERROR: <input>:1:5: undefined field 'xx'\n | self.xx == 1\n | ....^");
    shown("has(self.xx)", "ERROR: <input>:1:4: undefined field 'xx'\n | has(self.xx)\n | ...^");
    shown(
        "self.nope()",
        "ERROR: <input>:1:10: undeclared reference to 'nope' (in container '')\n | self.nope()\n | .........^",
    );
    shown(
        "self.name.x",
        "ERROR: <input>:1:10: type 'string' does not support field selection\n | self.name.x\n | .........^",
    );
    shown(
        "Object{}",
        "ERROR: <input>:1:7: undeclared reference to 'Object' (in container '')\n | Object{}\n | ......^",
    );
}

#[test]
fn overloads() {
    for (source, at, message) in [
        ("self.name + 1", 11, "'_+_' applied to '(string, int)'"),
        ("1 + 'a'", 3, "'_+_' applied to '(int, string)'"),
        ("self.replicas == 'a'", 15, "'_==_' applied to '(int, string)'"),
        ("self.name == null", 11, "'_==_' applied to '(string, null)'"),
        ("self.ports + ['a']", 12, "'_+_' applied to '(list(int), list(string))'"),
        ("self.name.startsWith(1)", 21, "'startsWith' applied to 'string.(int)'"),
        ("size(1)", 5, "'size' applied to '(int)'"),
        ("self['name']", 5, "'_[_]' applied to '(selfType, string)'"),
        ("1 && true", 3, "'_&&_' applied to '(int, bool)'"),
        ("true || true && 'a' || 1", 14, "'_&&_' applied to '(bool, string)'"),
        ("self.replicas ? 1 : 2", 15, "'_?_:_' applied to '(int, int, int)'"),
        ("true ? 1 : 'a'", 6, "'_?_:_' applied to '(bool, int, string)'"),
        ("!1", 1, "'!_' applied to '(int)'"),
        ("-'a'", 1, "'-_' applied to '(string)'"),
        ("'a' in self.ports", 5, "'@in' applied to '(string, list(int))'"),
        ("self.labels.all(k, v, k + 1 == v)", 25, "'_+_' applied to '(string, int)'"),
        ("optional.of(1) + 1", 16, "'_+_' applied to '(optional_type(int), int)'"),
        ("quantity('1') + 1", 15, "'_+_' applied to '(kubernetes.Quantity, int)'"),
        ("timestamp('2020-01-01T00:00:00Z') + 1", 35, "'_+_' applied to '(timestamp, int)'"),
    ] {
        let mut expected = format!("ERROR: <input>:1:{at}: found no matching overload for {message}\n | {source}\n | ");
        expected.push_str(&".".repeat(at - 1));
        expected.push('^');
        if source.starts_with("true || true") {
            let more = "ERROR: <input>:1:21: found no matching overload for '_||_' applied to '(bool, int)'";
            expected = format!("{expected}\n{more}\n | {source}\n | ....................^");
        }
        shown(source, &expected);
    }
}

#[test]
fn literals_that_do_not_go_together() {
    shown("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^");
    shown(
        "{'a': 1, 'b': 'c'}",
        "ERROR: <input>:1:15: expected type 'int' but found 'string'\n | {'a': 1, 'b': 'c'}\n | ..............^",
    );
    shown("'a'.matches('(')", "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^");
}

#[test]
fn syntax() {
    const OPERAND: &str = "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
    shown(
        "this does not compile",
        "ERROR: <input>:1:6: Syntax error: mismatched input 'does' expecting <EOF>\n | this does not compile\n | .....^",
    );
    shown("a b", "ERROR: <input>:1:3: Syntax error: extraneous input 'b' expecting <EOF>\n | a b\n | ..^");
    shown(
        "1 +",
        &format!("ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | 1 +\n | ...^"),
    );
    shown("", &format!("ERROR: <input>:1:1: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | \n | ^"));
    shown("(1", "ERROR: <input>:1:3: Syntax error: missing ')' at '<EOF>'\n | (1\n | ..^");
    shown(
        "1 + $",
        &format!(
            "ERROR: <input>:1:5: Syntax error: token recognition error at: '$'\n | 1 + $\n | ....^\nERROR: <input>:1:6: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n | 1 + $\n | .....^"
        ),
    );
    shown(
        "1 +\n\t$",
        &format!(
            "ERROR: <input>:2:2: Syntax error: token recognition error at: '$'\n |  $\n | .^\nERROR: <input>:2:3: Syntax error: mismatched input '<EOF>' expecting {OPERAND}\n |  $\n | ..^"
        ),
    );
    shown("'é' + x", "ERROR: <input>:1:7: undeclared reference to 'x' (in container '')\n | 'é' + x\n | .．....^");
    shown("for", "ERROR: <input>:1:1: reserved identifier: for\n | for\n | ^");
    shown("99999999999999999999", "ERROR: <input>:1:1: invalid int literal\n | 99999999999999999999\n | ^");
}
