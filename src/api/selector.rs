//! Decides: label and field selectors, as `labelSelector=` and `fieldSelector=` write them.

use std::fmt;

/// One requirement on one label key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    DoesNotExist(String),
    /// `key>n`, `key<n`: both sides integers.
    GreaterThan(String, i64),
    LessThan(String, i64),
}

/// All requirements must hold. No requirement selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(pub Vec<Requirement>);

/// `field=value` and `field!=value` terms; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldTerm>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub String);

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    ///
    /// # Errors
    /// Upstream's words for what was found where something else was expected.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut tokens = Tokens(text);
        let mut requirements = Vec::new();
        loop {
            match tokens.next() {
                Token::End if requirements.is_empty() => break,
                Token::Comma if requirements.is_empty() && tokens.peek() == Token::End => break,
                first => requirements.push(requirement(first, &mut tokens)?),
            }
            match tokens.next() {
                Token::End => break,
                Token::Comma if matches!(tokens.peek(), Token::Word(_) | Token::Not) => {}
                Token::Comma => return Err(expected(tokens.peek(), "identifier after ','")),
                other => return Err(expected(other, "',' or 'end of string'")),
            }
        }
        Ok(Self(requirements))
    }

    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// `get` returns the value of a label, if the object has it.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Requirement::NotIn(key, values) => get(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Requirement::Exists(key) => get(key).is_some(),
            Requirement::DoesNotExist(key) => get(key).is_none(),
            Requirement::GreaterThan(key, n) => get(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *n),
            Requirement::LessThan(key, n) => get(key).and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *n),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    End,
    Comma,
    Open,
    Close,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    Word(&'a str),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::End => "",
            Self::Comma => ",",
            Self::Open => "(",
            Self::Close => ")",
            Self::Not => "!",
            Self::Equals => "=",
            Self::NotEquals => "!=",
            Self::Greater => ">",
            Self::Less => "<",
            Self::Word(word) => word,
        })
    }
}

struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Token<'a> {
        self.0 = self.0.trim_start();
        for (text, token) in [
            ("!=", Token::NotEquals),
            ("==", Token::Equals),
            ("=", Token::Equals),
            ("!", Token::Not),
            (",", Token::Comma),
            ("(", Token::Open),
            (")", Token::Close),
            (">", Token::Greater),
            ("<", Token::Less),
        ] {
            if let Some(rest) = self.0.strip_prefix(text) {
                self.0 = rest;
                return token;
            }
        }
        let special = |c: char| c.is_whitespace() || "!=,()><".contains(c);
        let (word, rest) = self.0.split_at(self.0.find(special).unwrap_or(self.0.len()));
        self.0 = rest;
        if word.is_empty() { Token::End } else { Token::Word(word) }
    }

    fn peek(&self) -> Token<'a> {
        Tokens(self.0).next()
    }
}

fn expected(found: Token<'_>, what: &str) -> ParseError {
    ParseError(format!("unable to parse requirement: found '{found}', expected: {what}"))
}

fn requirement(first: Token<'_>, tokens: &mut Tokens<'_>) -> Result<Requirement, ParseError> {
    let not = first == Token::Not;
    let key = match if not { tokens.next() } else { first } {
        Token::Word(key) => label_key(key)?,
        other => return Err(expected(other, "identifier")),
    };
    if not {
        return Ok(Requirement::DoesNotExist(key));
    }
    if matches!(tokens.peek(), Token::End | Token::Comma) {
        return Ok(Requirement::Exists(key));
    }
    let exact = |tokens: &mut Tokens<'_>| match tokens.peek() {
        // Nothing after the operator is the empty value.
        Token::End | Token::Comma => Ok(String::new()),
        Token::Word(value) => {
            tokens.next();
            label_value(&key, value)
        }
        other => Err(expected(other, "identifier")),
    };
    match tokens.next() {
        Token::Equals => Ok(Requirement::In(key.clone(), vec![exact(tokens)?])),
        Token::NotEquals => Ok(Requirement::NotIn(key.clone(), vec![exact(tokens)?])),
        Token::Greater => Ok(Requirement::GreaterThan(key.clone(), integer(&key, &exact(tokens)?)?)),
        Token::Less => Ok(Requirement::LessThan(key.clone(), integer(&key, &exact(tokens)?)?)),
        Token::Word("in") => Ok(Requirement::In(key.clone(), set(&key, tokens)?)),
        Token::Word("notin") => Ok(Requirement::NotIn(key.clone(), set(&key, tokens)?)),
        other => Err(expected(other, "in, notin, =, ==, !=, gt, lt")),
    }
}

fn set(key: &str, tokens: &mut Tokens<'_>) -> Result<Vec<String>, ParseError> {
    match tokens.next() {
        Token::Open => {}
        other => return Err(expected(other, "'('")),
    }
    let mut values = Vec::new();
    loop {
        match tokens.next() {
            Token::Word(value) => {
                values.push(label_value(key, value)?);
                match tokens.next() {
                    Token::Comma => {}
                    Token::Close => break,
                    other => return Err(expected(other, "',', or ')'")),
                }
            }
            // An empty place between commas is the empty value.
            Token::Comma => values.push(String::new()),
            Token::Close => {
                values.push(String::new());
                break;
            }
            other => return Err(expected(other, "',', ')' or identifier")),
        }
    }
    Ok(values)
}

fn integer(key: &str, value: &str) -> Result<i64, ParseError> {
    value.parse().map_err(|_| {
        ParseError(format!(
            "key: Invalid value: {value:?}: for label {key:?}: for 'Gt', 'Lt' operators, the value must be an integer"
        ))
    })
}

/// Longest name part of a label key, and longest label value, in bytes.
const NAME_MAX: usize = 63;

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= NAME_MAX && text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last())
}

fn label_key(key: &str) -> Result<String, ParseError> {
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    if is_name(name) {
        return Ok(key.into());
    }
    Err(ParseError(format!(
        "unable to parse requirement: <nil>: Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', \
         '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
         regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
    )))
}

fn label_value(key: &str, value: &str) -> Result<String, ParseError> {
    if is_name(value) {
        return Ok(value.into());
    }
    Err(ParseError(format!(
        "unable to parse requirement: values[0][{key}]: Invalid value: {value:?}: a valid label must be an empty string or \
         consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
         'MyValue',  or 'my_value',  or '12345', regex used for validation is \
         '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    )))
}

impl FieldSelector {
    /// # Errors
    /// When a term has no operator.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|t| !t.is_empty()) {
            let parsed = if let Some((field, value)) = term.split_once("!=") {
                FieldTerm { field: field.into(), equal: false, value: value.into() }
            } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                FieldTerm { field: field.into(), equal: true, value: value.into() }
            } else {
                return Err(ParseError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            terms.push(parsed);
        }
        Ok(Self(terms))
    }

    /// `get` returns the value of a field, empty when the object has none.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|t| (get(&t.field).unwrap_or_default() == t.value) == t.equal)
    }

    /// The value that `field` must equal, if a term says so: lets a list go straight to one object.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, t) in self.0.iter().enumerate() {
            let (comma, op) = (if i == 0 { "" } else { "," }, if t.equal { "=" } else { "!=" });
            write!(f, "{comma}{}{op}{}", t.field, t.value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[Requirement]) {
        assert_eq!(LabelSelector::parse(text).expect(text).0, expect, "{text}");
    }

    #[test]
    fn label_selectors_read_as_upstream() {
        let one = |v: &str| vec![v.to_owned()];
        check("", &[]);
        check("a=b, c!=d", &[Requirement::In("a".into(), one("b")), Requirement::NotIn("c".into(), one("d"))]);
        check(
            "a==b,!c,x.io/d",
            &[
                Requirement::In("a".into(), one("b")),
                Requirement::DoesNotExist("c".into()),
                Requirement::Exists("x.io/d".into()),
            ],
        );
        check(
            "e in (f, g),h notin(i)",
            &[Requirement::In("e".into(), vec!["f".into(), "g".into()]), Requirement::NotIn("h".into(), one("i"))],
        );
        check(
            "a=,n>3,n<5",
            &[
                Requirement::In("a".into(), one("")),
                Requirement::GreaterThan("n".into(), 3),
                Requirement::LessThan("n".into(), 5),
            ],
        );
        for bad in ["a=b,", "=b", "a in b", "a in (b", "a=b c", "-a", "a=b/c", "n>x"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }
}
