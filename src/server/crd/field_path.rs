//! Decides: paths into a schema, as rules (`fieldPath`) and selectable fields (`jsonPath`) write them: `.spec.replicas`,
//! `.spec['a.b']` (`ValidFieldPath` in `apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go`).

use super::structural::Structural;
use crate::api::field::Path;

/// The field that a path leads to, and its schema. Without `brackets` only dots are allowed.
///
/// # Errors
/// Why the path leads nowhere, in upstream's words.
pub fn resolve<'a>(text: &str, schema: &'a Structural, brackets: bool) -> Result<(Path, &'a Structural), String> {
    let mut tokens = Tokens { rest: text };
    let (mut path, mut schema) = (Path::default(), schema);
    while let Some(token) = tokens.next() {
        let end = || "unexpected end of JSON path".to_owned();
        let name = match token {
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let quoted = tokens.next().ok_or_else(end)?;
                let inner = quoted.strip_prefix('\'').and_then(|q| q.strip_suffix('\''));
                let inner = inner.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                let name = unescape(inner).map_err(|e| format!("invalid string literal: {e}"))?;
                (path, schema) = step(&path, schema, &name)?;
                match tokens.next().ok_or_else(end)? {
                    "]" => continue,
                    other => return Err(format!("expected ] but got {other}")),
                }
            }
            "." => tokens.next().ok_or_else(end)?,
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        (path, schema) = step(&path, schema, name)?;
    }
    Ok((path, schema))
}

fn step<'a>(path: &Path, schema: &'a Structural, name: &str) -> Result<(Path, &'a Structural), String> {
    let missing = || "does not refer to a valid field".to_owned();
    if !schema.properties.is_empty() {
        return schema.properties.get(name).map(|s| (path.child(name), s)).ok_or_else(missing);
    }
    schema.additional.as_deref().map(|s| (path.key(name), s)).ok_or_else(missing)
}

/// `.`, `[`, `]`, a text in single quotes, or what is between those.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        let length = match bytes.first()? {
            b'\'' => (1..bytes.len()).find(|i| bytes[*i] == b'\'' && bytes[i - 1] != b'\\').map(|i| i + 1),
            b'.' | b'[' | b']' => Some(1),
            _ => bytes.iter().position(|b| b".[]".contains(b)),
        };
        let (token, rest) = self.rest.split_at(length.unwrap_or(bytes.len()));
        self.rest = rest;
        Some(token)
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('a') => '\u{7}',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('v') => '\u{b}',
            Some(c @ ('\'' | '\\')) => c,
            other => return Err(format!("invalid escape char \\{}", other.map(String::from).unwrap_or_default())),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::server::crd::compile::compile;

    #[test]
    fn paths_lead_to_fields() {
        let schema = compile(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {"a": {"type": "string"}, "b.c": {"type": "string"}, "it's": {"type": "string"}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "list": {"type": "array", "items": {"type": "string"}},
        }}))
        .unwrap();
        for (text, expect) in [
            (".spec.a", Ok("spec.a")),
            (".spec['b.c']", Ok("spec.b.c")),
            ("['spec']['it\\'s']", Ok("spec.it's")),
            (".labels.x", Ok("labels[x]")),
            (".labels['a.b/c']", Ok("labels[a.b/c]")),
            ("spec", Err("expected [ or . but got: spec")),
            (".spec.x", Err("does not refer to a valid field")),
            (".list[0]", Err("expected single quoted string but got 0")),
            (".list['0']", Err("does not refer to a valid field")),
            (".spec.", Err("unexpected end of JSON path")),
            (".spec['a'", Err("unexpected end of JSON path")),
            (".spec['a'.", Err("expected ] but got .")),
            (".spec['\\x']", Err("invalid string literal: invalid escape char \\x")),
        ] {
            let found = resolve(text, &schema, true).map(|(path, _)| path.to_string());
            assert_eq!(found, expect.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
        assert_eq!(resolve(".spec['a']", &schema, false).unwrap_err(), "array notation is not allowed");
    }
}
