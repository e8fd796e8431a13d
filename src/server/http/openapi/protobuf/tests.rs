//! Golden: a document of each version, as gnostic's models have it.

use super::*;

/// A field that has a length: its key by the wire format, its length and what is in it.
fn of(number: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    let inner = parts.concat();
    let mut out = Vec::new();
    for mut n in [number << 3 | 2, inner.len() as u64] {
        while n > 127 {
            out.push((n & 127) as u8 | 128);
            n >>= 7;
        }
        out.push(n as u8);
    }
    [out, inner].concat()
}

fn text(number: u64, text: &str) -> Vec<u8> {
    of(number, &[text.as_bytes().to_vec()])
}

#[track_caller]
fn check(json: &str, dialect: Dialect, expect: &[Vec<u8>]) {
    assert_eq!(encode(json.as_bytes(), dialect).unwrap(), expect.concat());
}

#[test]
fn version_2() {
    let schema = r##"{"type":"object","required":["b"],"properties":{"b":{"type":"array","minItems":3,
        "items":{"$ref":"#/definitions/A"},"x-kubernetes-list-type":"set"}},"additionalProperties":false,
        "x-kubernetes-group-version-kind":[{"kind":"A"}],"enum":["x",1],"oneOf":[]}"##;
    let json = format!(r#"{{"definitions":{{"A":{schema}}},"security":[{{"BearerToken":[]}}],"swagger":"2.0"}}"#);
    let any = |name: &str, yaml: &str| of(31, &[text(1, name), of(2, &[text(2, yaml)])]);
    let b = [
        vec![15 << 3, 3],
        of(22, &[text(1, "array")]),
        of(23, &[of(1, &[text(1, "#/definitions/A")])]),
        any("x-kubernetes-list-type", "\"set\"\n"),
    ];
    let a = [
        text(19, "b"),
        of(20, &[text(2, "\"x\"\n")]),
        of(20, &[text(2, "1\n")]),
        of(21, &[vec![2 << 3, 0]]),
        of(22, &[text(1, "object")]),
        of(25, &[of(1, &[text(1, "b"), of(2, &b)])]),
        any("x-kubernetes-group-version-kind", "[{\"kind\":\"A\"}]\n"),
    ];
    let security = of(12, &[of(1, &[text(1, "BearerToken"), of(2, &[])])]);
    let definitions = of(9, &[of(1, &[text(1, "A"), of(2, &a)])]);
    check(&json, Dialect::V2, &[text(1, "2.0"), definitions, security]);
}

#[test]
fn paths_of_version_2() {
    let json = r##"{"paths":{"/x":{"get":{"parameters":[{"$ref":"#/parameters/p"},
        {"in":"query","name":"q","uniqueItems":true},
        {"in":"path","name":"n","required":true},{"in":"body","name":"body","schema":{}}],
        "responses":{"200":{"description":"OK","schema":{"format":"f"}}},"deprecated":false}}}}"##;
    let parameters = [
        of(8, &[of(2, &[text(1, "#/parameters/p")])]),
        of(8, &[of(1, &[of(2, &[of(3, &[text(2, "query"), text(4, "q"), vec![0xa0, 1, 1]])])])]),
        of(8, &[of(1, &[of(2, &[of(4, &[vec![1 << 3, 1], text(2, "path"), text(4, "n")])])])]),
        of(8, &[of(1, &[of(1, &[text(2, "body"), text(3, "body"), of(5, &[])])])]),
    ];
    let response = of(1, &[text(1, "OK"), of(2, &[of(1, &[text(2, "f")])])]);
    let responses = of(9, &[of(1, &[text(1, "200"), of(2, &[response])])]);
    let get = of(2, &[parameters.concat(), responses]);
    check(json, Dialect::V2, &[of(8, &[of(2, &[text(1, "/x"), of(2, &[get])])])]);
}

#[test]
fn version_3() {
    let json = r##"{"openapi":"3.0.0","components":{"schemas":{"A":{"type":"object","properties":{
        "b":{"allOf":[{"$ref":"#/components/schemas/B"}],"default":{}},
        "c":{"type":"integer","default":2,"nullable":true}}}}}}"##;
    let b = [of(26, &[of(2, &[text(1, "#/components/schemas/B")])]), of(33, &[])];
    let number = of(33, &[[vec![1 << 3 | 1], 2.0_f64.to_le_bytes().to_vec()].concat()]);
    let c = [vec![1 << 3, 1], text(25, "integer"), number];
    let property = |name: &str, parts: &[Vec<u8>]| of(1, &[text(1, name), of(2, &[of(1, parts)])]);
    let a = [text(25, "object"), of(31, &[property("b", &b), property("c", &c)])];
    let schemas = of(1, &[of(1, &[text(1, "A"), of(2, &[of(1, &a)])])]);
    check(json, Dialect::V3, &[text(1, "3.0.0"), of(5, &[schemas])]);
    assert!(encode(b"[]", Dialect::V3).is_err());
}
