//! Decides: the grammar of label selectors, as `k8s.io/apimachinery/pkg/labels` reads it, with its messages.

use super::{LabelSelector, ParseError, Requirement};
use crate::api::field::{FieldError, Path};
use crate::api::label;

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";
/// Longest selector in bytes; URLs are bounded anyway.
const MAX_BYTES: usize = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'static str),
    Bad(String),
    End,
}

impl Token<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Word(w) => w,
            Self::Symbol(s) => s,
            Self::Bad(s) => s,
            Self::End => "",
        }
    }
}

pub(super) fn selector(text: &str) -> Result<LabelSelector, ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError(format!("label selector is longer than {MAX_BYTES} bytes")));
    }
    let mut parser = Parser { tokens: tokens(text), at: 0 };
    let mut all = parser.selector().map_err(ParseError)?;
    all.sort_by(|a, b| a.key().cmp(b.key()));
    Ok(LabelSelector(all))
}

/// Checks and builds one requirement. `operator` is one of the selector's own words, or `exists` and `!`.
pub(super) fn requirement(key: &str, operator: &str, mut values: Vec<String>) -> Result<Requirement, ParseError> {
    let fail = |e: FieldError| Err(ParseError(e.to_string()));
    let errors = label::qualified_name(key);
    if !errors.is_empty() {
        return fail(FieldError::invalid(&Path::new("key"), &key, &errors.join("; ")));
    }
    let path = Path::new("values");
    let shown = serde_json::Value::from(values.clone());
    let wrong = |detail: &str| fail(FieldError::invalid(&path, &shown, detail));
    match operator {
        "in" | "notin" if values.is_empty() => return wrong("for 'in', 'notin' operators, values set can't be empty"),
        "=" | "==" | "!=" if values.len() != 1 => return wrong("exact-match compatibility requires one single value"),
        "exists" | "!" if !values.is_empty() => return wrong("values set must be empty for exists and does not exist"),
        ">" | "<" if values.len() != 1 => return wrong("for 'Gt', 'Lt' operators, exactly one value is required"),
        _ => {}
    }
    values.sort();
    values.dedup();
    for (i, value) in values.iter().enumerate() {
        let errors = label::value(value);
        if !errors.is_empty() {
            return fail(FieldError::invalid(&path.index(i).key(key), value, &errors.join("; ")));
        }
    }
    let key = key.to_owned();
    let integer = |values: &[String]| match values[0].parse::<i64>() {
        Ok(n) => Ok(n),
        Err(_) => {
            let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
            Err(ParseError(FieldError::invalid(&path.index(0), &values[0], detail).to_string()))
        }
    };
    Ok(match operator {
        "=" | "==" | "in" => Requirement::In(key, values),
        "!=" | "notin" => Requirement::NotIn(key, values),
        "exists" => Requirement::Exists(key),
        "!" => Requirement::DoesNotExist(key),
        ">" => Requirement::GreaterThan(key, integer(&values)?),
        "<" => Requirement::LessThan(key, integer(&values)?),
        other => return Err(ParseError(format!("operator {other:?} is not supported"))),
    })
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    const SYMBOLS: [&str; 9] = [")", ",", "!", "==", "=", ">", "<", "!=", "("];
    let special = |c: char| "=!(),><".contains(c);
    let mut out = Vec::new();
    let mut rest = text.trim_start_matches([' ', '\t', '\r', '\n']);
    while let Some(first) = rest.chars().next() {
        let length;
        if special(first) {
            let symbol = SYMBOLS.iter().filter(|s| rest.starts_with(**s)).max_by_key(|s| s.len());
            length = symbol.map_or(first.len_utf8(), |s| s.len());
            out.push(
                symbol.map_or_else(
                    || Token::Bad(format!("error expected: keyword found '{first}'")),
                    |s| Token::Symbol(s),
                ),
            );
        } else {
            length = rest.find(|c: char| special(c) || " \t\r\n".contains(c)).unwrap_or(rest.len());
            out.push(Token::Word(&rest[..length]));
        }
        rest = rest[length..].trim_start_matches([' ', '\t', '\r', '\n']);
    }
    out.push(Token::End);
    out
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &Token<'a> {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek(), Token::Symbol(s) if *s == symbol)
    }

    fn selector(&mut self) -> Result<Vec<Requirement>, String> {
        let mut all = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(all),
                Token::Word(_) | Token::Symbol("!") => {}
                other => return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text())),
            }
            all.push(self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?);
            match self.take() {
                Token::End => return Ok(all),
                Token::Symbol(",") => {
                    if !matches!(self.peek(), Token::Word(_)) && !self.is("!") {
                        return Err(format!("found '{}', expected: identifier after ','", self.peek().text()));
                    }
                }
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.is("!");
        if absent {
            self.at += 1;
        }
        let key = match self.take() {
            Token::Word(word) => word,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        let build = |operator: &str, values| requirement(key, operator, values).map_err(|e| e.0);
        // The key is looked at before what follows it.
        if !label::qualified_name(key).is_empty() {
            return build("exists", Vec::new());
        }
        if matches!(self.peek(), Token::End) || self.is(",") {
            return build(if absent { "!" } else { "exists" }, Vec::new());
        }
        if absent {
            return build("!", Vec::new());
        }
        match self.take() {
            Token::Word(operator @ ("in" | "notin")) => {
                let values = self.values()?;
                build(operator, values)
            }
            Token::Symbol(operator @ ("=" | "==" | "!=" | ">" | "<")) => {
                let value = self.exact_value()?;
                build(operator, vec![value])
            }
            other => Err(format!("found '{}', expected: {OPERATORS}", other.text())),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            Token::Symbol("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        if self.is(")") {
            self.at += 1;
            return Ok(Vec::new());
        }
        // An empty place between commas is the empty value.
        let mut values = Vec::new();
        loop {
            match self.peek() {
                Token::Word(word) => {
                    values.push((*word).to_owned());
                    self.at += 1;
                }
                Token::Symbol("," | ")") => values.push(String::new()),
                other => return Err(format!("found '{}', expected: ',', ')' or identifier", other.text())),
            }
            match self.take() {
                Token::Symbol(",") => {}
                Token::Symbol(")") => return Ok(values),
                other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), Token::End) || self.is(",") {
            return Ok(String::new());
        }
        match self.take() {
            Token::Word(word) => Ok(word.to_owned()),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn selectors_print_as_they_are_understood() {
        for (text, expect) in [
            ("", ""),
            ("a=b", "a=b"),
            (" a == b , c != d ", "a=b,c!=d"),
            ("x in (b, a,a),y notin (c)", "x in (a,b),y!=c"),
            ("a,!b", "a,!b"),
            ("! b", "!b"),
            ("a=", "a="),
            ("a in (,b)", "a in (,b)"),
            ("in in (in)", "in=in"),
            ("n>1,m<2", "m<2,n>1"),
            ("app.kubernetes.io/name=x", "app.kubernetes.io/name=x"),
        ] {
            assert_eq!(selector(text).map(|s| s.to_string()), Ok(expect.to_owned()), "{text}");
        }
    }

    #[test]
    fn refusals_are_upstreams() {
        for (text, expect) in [
            ("a=b,", "found '', expected: identifier after ','"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            ("a=(", "unable to parse requirement: found '(', expected: identifier"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
        ] {
            assert_eq!(selector(text), Err(ParseError(expect.into())), "{text}");
        }
        assert!(
            selector("a=b/c")
                .unwrap_err()
                .0
                .starts_with("unable to parse requirement: values[0][a]: Invalid value: \"b/c\": a valid label")
        );
        assert!(
            selector("a//b=c")
                .unwrap_err()
                .0
                .starts_with("unable to parse requirement: key: Invalid value: \"a//b\": a qualified name")
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_to_the_same(text in "[ab!=(),<>in1 ]{0,24}") {
            if let Ok(first) = selector(&text) {
                prop_assert_eq!(selector(&first.to_string()), Ok(first));
            }
        }

        #[test]
        fn equality_selects_by_value(v in "[a-c]", w in prop::option::of("[a-c]")) {
            let yes = selector(&format!("k={v}")).unwrap();
            let no = selector(&format!("k!={v}")).unwrap();
            let matched = yes.matches(|_| w.as_deref());
            prop_assert_eq!(matched, w.as_deref() == Some(v.as_str()));
            prop_assert_eq!(no.matches(|_| w.as_deref()), !matched);
        }
    }
}
