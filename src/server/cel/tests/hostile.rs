//! Expressions and values that are meant to hurt.

use proptest::prelude::*;

use super::*;

#[test]
fn nesting_and_length_are_bounded() {
    let deep = "expression recursion limit exceeded: 250";
    for (open, close) in [
        ("(((", ")))"),
        ("(", ")"),
        ("[", "]"),
        ("!(", ")"),
        ("{1:", "}"),
        ("size(", ")"),
        ("true ? true : (", ")"),
        ("a.b(", ")"),
    ] {
        let source = format!("{}1{}", open.repeat(6_000), close.repeat(6_000));
        assert_eq!(result(&source, &json!({})), Err(deep.into()), "{open}");
    }
    for chain in [".a", "[0]", " + 1", ".map(x, x)"] {
        let source = format!("[1]{}", chain.repeat(5_000));
        assert_eq!(result(&source, &json!({})), Err(deep.into()), "{chain}");
    }
    let source = "- ".repeat(20_000) + "1";
    assert_eq!(result(&source, &json!({})), Ok(json!(1)));
    let source = vec!["true"; 10_000].join(" && ");
    assert_eq!(result(&source, &json!({})), Ok(json!(true)));
    let source = format!("'{}'", "a".repeat(100_000));
    refuse(&source, "expression code point size exceeds limit: size: 100002, limit 100000");
    // What is allowed at the deepest runs on half the stack that a task has.
    let deepest = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        let parentheses = format!("{}1{}", "(".repeat(249), ")".repeat(249));
        assert_eq!(result(&parentheses, &json!({})), Ok(json!(1)));
        let calls = format!("{}1{}", "size([".repeat(120), "])".repeat(120));
        assert_eq!(result(&calls, &json!({})), Ok(json!(1)));
        let loops = format!("{}true{}", "[1].all(x, ".repeat(240), ")".repeat(240));
        assert_eq!(result(&loops, &json!({})), Ok(json!(true)));
        let choices = format!("{}1{}", "true ? 0 + (".repeat(120), ") : 2".repeat(120));
        assert_eq!(result(&choices, &json!({})), Ok(json!(1)));
    });
    deepest.unwrap().join().unwrap();
}

#[test]
fn loops_end_at_the_limit() {
    let list: Vec<i64> = (0..200).collect();
    let variables = json!({"l": list});
    let limit = Err("! operation cancelled: actual cost limit exceeded".to_owned());
    for source in [
        "l.all(a, l.all(b, l.all(c, l.all(d, true))))",
        "l.map(a, l.map(b, l.map(c, c)))",
        "l.exists(a, l.exists(b, l.exists(c, c > 1000)))",
        "lists.range(2000000)",
        "lists.range(1000).map(x, lists.range(1000))",
        "lists.range(5000).all(x, string(x).matches('a{' + string(x % 900) + '}') || true)",
    ] {
        assert_eq!(result(source, &variables), limit, "{source}");
    }
    // Neither operator hides that the limit was reached.
    assert_eq!(result("l.all(a, l.all(b, l.all(c, l.all(d, true)))) || true", &variables), limit);
    let doubling = format!("l{}", ".map(x, l + l)".repeat(3));
    assert!(result(&doubling, &variables).is_ok());
    let bomb = format!("optional.of(l){}.value().size()", ".optMap(x, x + x)".repeat(60));
    assert_eq!(result(&bomb, &variables), limit);
    let bomb = format!("optional.of('aaaaaaaaaa'){}.value().size()", ".optMap(x, x + x)".repeat(60));
    assert_eq!(result(&bomb, &variables), limit);
    let text = json!({"s": "a".repeat(100_000)});
    let large = json!({"s": "é".repeat(1_000_000)});
    assert_eq!(result("lists.range(100000).all(x, size(s) > 0 && s.contains('') && s != 'x')", &large), limit);
    assert_eq!(result("s.replace('a', s)", &text), limit);
    assert_eq!(result("lists.range(10000).map(x, s).join(s)", &text), limit);
}

#[test]
fn what_holds_itself_twice_is_bounded() {
    let limit = Err("! operation cancelled: actual cost limit exceeded".to_owned());
    let twice = format!("optional.of(l){}", ".optMap(x, [x, x])".repeat(40));
    let nothing = json!({"l": [1]});
    assert_eq!(result(&format!("{twice}.optMap(x, x == [x[0], x[1]])"), &nothing), limit);
    let budget = "! validation failed due to running out of cost budget, no further validation rules will be run";
    assert_eq!(result(&format!("{twice}.optMap(x, dyn(x).sum())"), &nothing), Err(budget.to_owned()));
    let text = "! error during formatting: operation cancelled: actual cost limit exceeded".to_owned();
    assert_eq!(result(&format!("{twice}.optMap(x, '%s'.format([x]))"), &nothing), Err(text));
    // It is a value, but no JSON.
    assert_eq!(result(&twice, &nothing), Ok(json!("optional_type")));
    // So is a large part of an object that is there many times.
    for large in [json!("a".repeat(100_000)), json!(["a".repeat(100_000)]), json!({"a": {"a": "a".repeat(100_000)}})] {
        assert_eq!(result("[1, 2].map(i, o)", &json!({"o": large})), Ok(json!([large, large])));
        assert_eq!(result("lists.range(100).map(i, o)", &json!({"o": large})), Ok(json!("list")));
    }
}

#[test]
fn patterns_are_linear_and_bounded() {
    let text = json!({"s": "a".repeat(3_000) + "!"});
    assert_eq!(result("s.matches('^(a+)+$')", &text), Ok(json!(false)));
    assert_eq!(result("s.matches('(((a{1000}){1000}){1000})')", &text), Err("invalid matches argument".into()));
    assert_eq!(
        result("s.matches('((a{1000}){1000}' + '){1000}')", &text),
        Err("! error parsing regexp: expression too large".into())
    );
}

#[test]
fn the_budget_of_a_request_is_shared() {
    let environment = Environment::new();
    let program = Program::compile("lists.range(1000).all(x, x >= 0)", &environment).map_err(|_| ()).unwrap();
    let mut budget = Budget::new(10_000);
    assert!(program.evaluate(&Bindings::new(), &mut budget).is_ok());
    assert_eq!(budget.left(), 10_000 - 1_001 - 5_000 - 1);
    let error = program.evaluate(&Bindings::new(), &mut budget).map(|_| ()).unwrap_err();
    assert_eq!(error, super::super::Error::Budget);
    assert_eq!(budget.left(), 0);
}

/// Pieces of expressions, of which some put together are expressions.
fn pieces() -> impl Strategy<Value = Vec<&'static str>> {
    const PIECES: [&str; 60] = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        "?",
        ":",
        "+",
        "-",
        "*",
        "/",
        "%",
        "!",
        "&&",
        "||",
        "==",
        "<",
        "in",
        "x",
        "l",
        "m",
        "s",
        "1",
        "0",
        "2u",
        "1.5",
        "'a'",
        "b'a'",
        "r'\\'",
        "true",
        "null",
        "size",
        "map",
        "all",
        "filter",
        "has",
        "value",
        ".a",
        ".?b",
        "[?0]",
        ".map(x, x + 1)",
        ".all(i, v, i == v)",
        ".substring(1)",
        ".indexOf('é')",
        ".split('')",
        "'é😀'",
        ".replace('', 'x')",
        "duration('1h')",
        "timestamp(0)",
        "optional.of(1)",
        ".format([x])",
        "'%s %d'",
        ".matches(s)",
        "=",
        "'",
        "9223372036854775807",
        ".slice(0, 1)",
    ];
    prop::collection::vec(prop::sample::select(PIECES.to_vec()), 1..14)
}

proptest! {
    #[test]
    fn anything_is_compiled_and_evaluated_or_refused(pieces in pieces(), space in any::<bool>()) {
        let source = pieces.join(if space { " " } else { "" });
        let variables = json!({"x": 1, "m": {"a": 1, "b": null}, "l": [1, 2], "s": "te😀xt"});
        // Whatever it is, it does not panic.
        let _ = result(&source, &variables);
    }

    #[test]
    fn any_text_is_compiled_or_refused(source in "\\PC{0,40}") {
        let _ = result(&source, &json!({"x": 1}));
    }
}
