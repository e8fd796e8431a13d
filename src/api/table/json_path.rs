//! Decides: the JSON paths of printer columns (`k8s.io/client-go/util/jsonpath`, without braces): `.spec.size`,
//! `.status.conditions[?(@.type=="Ready")].status`, `.spec.containers[*].image`, `.metadata.labels['a/b']`, `..name`.

use serde_json::Value;

/// A path, taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Items of a list from, to, every so many; negative ones count from the end.
    Slice(Option<i64>, Option<i64>, i64),
    Index(i64),
    /// Every field or item.
    All,
    /// Everything below, at any depth.
    Recursive,
    Filter(Filter),
}

#[derive(Clone, Debug, PartialEq)]
struct Filter {
    left: Operand,
    /// `None` asks whether the left side is there.
    test: Option<(Operator, Operand)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// From `@`, the item that is looked at.
    Path(JsonPath),
    Literal(Value),
}

impl JsonPath {
    /// # Errors
    /// Says where it is no path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text.trim() };
        let steps = parser.steps()?;
        if parser.rest.is_empty() { Ok(Self(steps)) } else { Err(format!("unexpected {:?} in {text:?}", parser.rest)) }
    }

    /// What is there, in order. Empty when nothing is.
    #[must_use]
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                step.find(value, &mut next);
            }
            found = next;
        }
        found
    }
}

impl Step {
    fn find<'v>(&self, value: &'v Value, out: &mut Vec<&'v Value>) {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => out.extend(map.get(name)),
            (Self::Index(at), Value::Array(list)) => out.extend(place(*at, list.len()).and_then(|i| list.get(i))),
            (Self::Slice(from, to, step), Value::Array(list)) => {
                let bound = |at: i64| place(at, list.len()).unwrap_or(0).min(list.len());
                let (from, to) = (from.map_or(0, bound), to.map_or(list.len(), bound));
                let step = usize::try_from(*step).unwrap_or(1).max(1);
                out.extend(list.iter().take(to).skip(from).step_by(step));
            }
            (Self::All, Value::Array(list)) => out.extend(list),
            (Self::All, Value::Object(map)) => out.extend(map.values()),
            (Self::Recursive, value) => below(value, out),
            (Self::Filter(filter), Value::Array(list)) => out.extend(list.iter().filter(|item| filter.takes(item))),
            _ => {}
        }
    }
}

/// The value and all that is in it. As deep as an object can be, which the decoder bounds.
fn below<'v>(value: &'v Value, out: &mut Vec<&'v Value>) {
    out.push(value);
    match value {
        Value::Array(list) => list.iter().for_each(|v| below(v, out)),
        Value::Object(map) => map.values().for_each(|v| below(v, out)),
        _ => {}
    }
}

fn place(at: i64, length: usize) -> Option<usize> {
    usize::try_from(if at < 0 { at + i64::try_from(length).ok()? } else { at }).ok()
}

impl Filter {
    fn takes(&self, item: &Value) -> bool {
        let Some(left) = self.left.of(item) else { return false };
        let Some((operator, right)) = &self.test else { return true };
        let Some(right) = right.of(item) else { return false };
        let order = match (left, right) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) => (a == b).then_some(std::cmp::Ordering::Equal),
        };
        match operator {
            Operator::Equal => order.is_some_and(|o| o.is_eq()),
            Operator::NotEqual => order.is_none_or(|o| o.is_ne()),
            Operator::Less => order.is_some_and(|o| o.is_lt()),
            Operator::LessOrEqual => order.is_some_and(|o| o.is_le()),
            Operator::Greater => order.is_some_and(|o| o.is_gt()),
            Operator::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
        }
    }
}

impl Operand {
    fn of<'v>(&'v self, item: &'v Value) -> Option<&'v Value> {
        match self {
            Self::Path(path) => path.find(item).into_iter().next(),
            Self::Literal(value) => Some(value),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest.strip_prefix(token);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn until(&mut self, stop: impl Fn(char) -> bool) -> &'a str {
        let (head, rest) = self.rest.split_at(self.rest.find(stop).unwrap_or(self.rest.len()));
        self.rest = rest;
        head
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("expected {token:?} before {:?}", self.rest)) }
    }

    fn steps(&mut self) -> Result<Vec<Step>, String> {
        let mut out = Vec::new();
        self.eat("$");
        loop {
            if self.eat("..") {
                out.push(Step::Recursive);
                if !self.rest.starts_with('[') {
                    out.push(self.field()?);
                }
            } else if self.rest.starts_with(".[") {
                self.rest = &self.rest[1..];
            } else if self.rest == "." {
                // The whole value.
                self.rest = "";
            } else if self.eat(".") {
                out.push(self.field()?);
            } else if self.eat("[") {
                out.push(self.bracket()?);
            } else {
                return Ok(out);
            }
        }
    }

    /// A name; dots in it are escaped with a backslash.
    fn field(&mut self) -> Result<Step, String> {
        if self.eat("*") {
            return Ok(Step::All);
        }
        let mut name = String::new();
        let mut letters = self.rest.char_indices();
        let mut end = self.rest.len();
        while let Some((at, c)) = letters.next() {
            match c {
                '\\' => name.extend(letters.next().map(|(_, c)| c)),
                '.' | '[' | ']' | ')' | '(' | ' ' | '=' | '!' | '<' | '>' | '|' | '&' | '{' | '}' | '\'' | '"' => {
                    end = at;
                    break;
                }
                c => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        if name.is_empty() { Err(format!("a name is missing before {:?}", self.rest)) } else { Ok(Step::Field(name)) }
    }

    fn bracket(&mut self) -> Result<Step, String> {
        if self.eat("*") {
            self.expect("]")?;
            return Ok(Step::All);
        }
        if self.eat("?(") {
            let filter = self.filter()?;
            self.expect(")")?;
            self.expect("]")?;
            return Ok(Step::Filter(filter));
        }
        if let Some(text) = self.quoted()? {
            self.expect("]")?;
            return Ok(Step::Field(text));
        }
        let inside = self.until(|c| c == ']');
        self.expect("]")?;
        let number = |text: &str| match text.trim() {
            "" => Ok(None),
            text => text.parse::<i64>().map(Some).map_err(|_| format!("{text:?} is no index")),
        };
        let parts = inside.split(':').map(number).collect::<Result<Vec<_>, _>>()?;
        match parts.as_slice() {
            [Some(at)] => Ok(Step::Index(*at)),
            [from, to] => Ok(Step::Slice(*from, *to, 1)),
            [from, to, step] => Ok(Step::Slice(*from, *to, step.unwrap_or(1))),
            _ => Err(format!("[{inside}] is no index")),
        }
    }

    fn filter(&mut self) -> Result<Filter, String> {
        let left = self.operand()?;
        self.rest = self.rest.trim_start();
        let operators = [
            ("==", Operator::Equal),
            ("!=", Operator::NotEqual),
            ("<=", Operator::LessOrEqual),
            (">=", Operator::GreaterOrEqual),
            ("<", Operator::Less),
            (">", Operator::Greater),
        ];
        let Some((_, operator)) = operators.into_iter().find(|(token, _)| self.eat(token)) else {
            return Ok(Filter { left, test: None });
        };
        let right = self.operand()?;
        self.rest = self.rest.trim_start();
        Ok(Filter { left, test: Some((operator, right)) })
    }

    fn operand(&mut self) -> Result<Operand, String> {
        self.rest = self.rest.trim_start();
        if self.eat("@") {
            return Ok(Operand::Path(JsonPath(self.steps()?)));
        }
        if let Some(text) = self.quoted()? {
            return Ok(Operand::Literal(text.into()));
        }
        let word = self.until(|c: char| c == ')' || c.is_whitespace() || "=!<>".contains(c));
        let literal = serde_json::from_str(word).map_err(|_| format!("{word:?} is no value"))?;
        Ok(Operand::Literal(literal))
    }

    fn quoted(&mut self) -> Result<Option<String>, String> {
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')) else { return Ok(None) };
        let inside = &self.rest[1..];
        let end = inside.find(quote).ok_or_else(|| format!("no end of {:?}", self.rest))?;
        self.rest = &inside[end + 1..];
        Ok(Some(inside[..end].replace('\\', "")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths() {
        let object = json!({
            "metadata": {"labels": {"a/b": "x", "a.b": "y"}},
            "spec": {"size": 3, "list": [{"n": "a", "v": 1}, {"n": "b", "v": 2}, {"n": "c", "v": 3}], "map": {"k": "v"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        let check = |path: &str, expect: Value| {
            let found = JsonPath::parse(path).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(json!(found.find(&object)), expect, "{path}");
        };
        check(".spec.size", json!([3]));
        check("$.spec.size", json!([3]));
        check(".spec.nope.deeper", json!([]));
        check(".metadata.labels['a/b']", json!(["x"]));
        check(".metadata.labels.a\\.b", json!(["y"]));
        check(".metadata.labels['a\\.b']", json!(["y"]));
        check(".spec.list[0].n", json!(["a"]));
        check(".spec.list[-1].n", json!(["c"]));
        check(".spec.list[9].n", json!([]));
        check(".spec.list[0:2].v", json!([1, 2]));
        check(".spec.list[::2].v", json!([1, 3]));
        check(".spec.list[*].n", json!(["a", "b", "c"]));
        check(".spec.map.*", json!(["v"]));
        check(".status.conditions[?(@.type==\"Ready\")].status", json!(["True"]));
        check(".status.conditions[?(@.type == 'Ready')].status", json!(["True"]));
        check(".status.conditions[?(@.type != 'Ready')].status", json!(["False"]));
        check(".spec.list[?(@.v>=2)].n", json!(["b", "c"]));
        check(".spec.list[?(@.nope)].n", json!([]));
        check("..status", json!([object["status"], "True", "False"]));
    }

    #[test]
    fn what_is_no_path() {
        for text in ["spec", ".spec[", ".spec[x]", ".spec[?(@.a==)]", ".spec..", ".a['b", ".a b", ".spec[1:2:3:4]"] {
            assert!(JsonPath::parse(text).is_err(), "{text}");
        }
        assert_eq!(JsonPath::parse(".").unwrap().find(&json!(1)), [&json!(1)]);
    }
}
