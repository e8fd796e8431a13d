//! Decides: indents a JSON document as Go's `json.Indent` does with two spaces, without reading it into a tree.

/// `json` must be valid; whitespace outside strings is replaced.
#[must_use]
pub fn indent(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 3 / 2);
    let (mut depth, mut string, mut escape) = (0_usize, false, false);
    let newline = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', depth * 2));
    };
    let mut opened = false;
    for &byte in json {
        if string {
            out.push(byte);
            string = escape || byte != b'"';
            escape = !escape && byte == b'\\';
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if opened && !closes {
            newline(&mut out, depth);
        }
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !opened {
                    newline(&mut out, depth);
                }
            }
            b'"' => string = true,
            _ => {}
        }
        opened = matches!(byte, b'{' | b'[');
        out.push(byte);
        match byte {
            b',' => newline(&mut out, depth),
            b':' => out.push(b' '),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indents_like_a_tree_printer() {
        let value = serde_json::json!({"a": [1, {"b": "x\"{[,:\\"}, [], {}], "c": {"d": null}});
        let expect = serde_json::to_string_pretty(&value).expect("plain values");
        assert_eq!(String::from_utf8(indent(value.to_string().as_bytes())).expect("text"), expect);
        assert_eq!(String::from_utf8(indent(expect.as_bytes())).expect("text"), expect);
    }
}
