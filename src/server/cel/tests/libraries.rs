//! Every function of every library, by examples of its documentation.

use super::*;
use crate::server::cel::functions;

#[test]
fn the_table_can_be_read() {
    assert!(functions::overloads("size").len() >= 8);
    assert!(functions::overloads("nothing").is_empty());
}

#[test]
fn strings() {
    hold(&[
        "'hello'.contains('ell')",
        "'hello'.startsWith('he')",
        "'hello'.endsWith('lo')",
        "!'a'.contains('b')",
        "'hello'.charAt(4) == 'o'",
        "'hello'.charAt(5) == ''",
        "'hello mellow'.indexOf('') == 0",
        "'hello mellow'.indexOf('ello') == 1",
        "'hello mellow'.indexOf('jello') == -1",
        "'hello mellow'.indexOf('', 2) == 2",
        "'hello mellow'.indexOf('ello', 2) == 7",
        "'hello mellow'.lastIndexOf('') == 12",
        "'hello mellow'.lastIndexOf('ello') == 7",
        "'hello mellow'.lastIndexOf('ello', 6) == 1",
        "'hello'.lastIndexOf('ello', 1) == 1",
        "['hello', 'mellow'].join() == 'hellomellow'",
        "['hello', 'mellow'].join(' ') == 'hello mellow'",
        "[].join() == ''",
        "'TacoCat'.lowerAscii() == 'tacocat'",
        "'TacoCÆt Xii'.lowerAscii() == 'tacocÆt xii'",
        "'TacoCÆt Xii'.upperAscii() == 'TACOCÆT XII'",
        "'hello hello'.replace('he', 'we') == 'wello wello'",
        "'hello hello'.replace('he', 'we', -1) == 'wello wello'",
        "'hello hello'.replace('he', 'we', 1) == 'wello hello'",
        "'hello hello'.replace('he', 'we', 0) == 'hello hello'",
        "'ab'.replace('', '-') == '-a-b-'",
        "'hello hello'.split(' ') == ['hello', 'hello']",
        "'hello hello hello'.split(' ', 2) == ['hello', 'hello hello']",
        "'hello'.split(' ', 0) == []",
        "'hello'.split(' ', 1) == ['hello']",
        "'abc'.split('') == ['a', 'b', 'c']",
        "'abc'.split('', 2) == ['a', 'bc']",
        "''.split('') == []",
        "''.split(',') == ['']",
        "'tacocat'.substring(4) == 'cat'",
        "'tacocat'.substring(0, 4) == 'taco'",
        "'ta©o©αT'.substring(3, 6) == 'o©α'",
        "'tacocat'.substring(7) == ''",
        "'  trim\\n'.trim() == 'trim'",
        "strings.quote('a\"b\\n') == '\"a\\\\\"b\\\\n\"'",
        "size('ta©o') == 4",
        "'ta©o'.size() == 4",
        "size(b'ab') == 2",
    ]);
    refuse("'gums'.reverse()", "found no matching overload for 'reverse' applied to 'string.()'");
    refuse("s.charAt(9)", "! index out of range: 9");
    refuse("s.substring(9)", "! index out of range: 9");
    refuse("s.substring(3, 1)", "! invalid substring range. start: 3, end: 1");
    refuse("s.indexOf('e', 30)", "! index out of range: 30");
}

#[test]
fn formats_of_strings() {
    hold(&[
        "'%s is %d'.format(['a', 1]) == 'a is 1'",
        "'100%%'.format([]) == '100%'",
        "'%.2f'.format([1.005]) == '1.00'",
        "'%f'.format([1.5]) == '1.500000'",
        "'%.0f'.format([1234567.0]) == '1,234,567'",
        "'%x'.format([255]) == 'ff'",
        "'%X'.format([255u]) == 'FF'",
        "'%x'.format(['ab']) == '6162'",
        "'%b'.format([5]) == '101'",
        "'%b'.format([true]) == '1'",
        "'%o'.format([8]) == '10'",
        "'%x'.format([-31]) == '-1f'",
        "'%s'.format([[1, 'a', 1.5]]) == '[1, \"a\", 1.500000]'",
        "'%s'.format([{'b': 1, 'a': true}]) == '{\"a\":true, \"b\":1}'",
        "'%s'.format([null]) == 'null'",
        "'%s'.format([timestamp('2020-01-01T00:00:00Z')]) == '2020-01-01T00:00:00Z'",
        "'%s'.format([duration('2h')]) == '7200s'",
        "'%s'.format([[duration('1s')]]) == '[duration(\"1s\")]'",
        "'%s'.format([int]) == 'int'",
        "'%.3e'.format([1052.032911275]) == '1.052\u{202f}×\u{202f}10⁰³'",
        "'%f'.format(['NaN']) == 'NaN'",
    ]);
    refuse(
        "'%d'.format(['a'])",
        "! error during formatting: decimal clause can only be used on integers, was given string",
    );
    refuse(
        "'%f'.format([1])",
        "! error during formatting: fixed-point clause can only be used on doubles, was given int",
    );
    refuse("'%s'.format([])", "! index 0 out of range");
    refuse("'%z'.format([1])", "! could not parse formatting clause: unrecognized formatting clause \"z\"");
    refuse("'%.99999f'.format([1.0])", "! precision 99999 is above the limit 1000");
}

#[test]
fn lists() {
    hold(&[
        "[1, 2, 2].isSorted()",
        "!['b', 'a'].isSorted()",
        "[].isSorted()",
        "[1, 3].sum() == 4",
        "[1.5, 2.5].sum() == 4.0",
        "[duration('1m'), duration('1s')].sum() == duration('61s')",
        "[1, 3, 2].max() == 3",
        "['b', 'a'].min() == 'a'",
        "[1, 2, 2].indexOf(2) == 1",
        "[1, 2, 2].lastIndexOf(2) == 2",
        "[1].indexOf(5) == -1",
        "[].sum() == 0",
        "[1, 2, 3, 4].slice(1, 3) == [2, 3]",
        "[[1, 2], [3]].flatten() == [1, 2, 3]",
        "[dyn(1), dyn([2, [3][0]])].flatten(2) == [1, 2, 3]",
        "[1, 2, 1, 3].distinct() == [1, 2, 3]",
        "[[1], [1]].distinct() == [[1]]",
        "[1, 2, 3].reverse() == [3, 2, 1]",
        "lists.range(3) == [0, 1, 2]",
        "lists.range(-1) == []",
        "[3, 1, 2].sort() == [1, 2, 3]",
        "['b', 'a'].sort() == ['a', 'b']",
        "['aaa', 'b', 'cc'].sortBy(x, size(x)) == ['b', 'cc', 'aaa']",
        "sets.contains([1, 2, 3], [2, 3])",
        "!sets.contains([1], [2])",
        "sets.equivalent([1, 2, 2], [2, 1])",
        "sets.intersects([1, 2], [2, 3])",
        "!sets.intersects([1], [2])",
        "sets.contains([1], [])",
    ]);
    refuse("[].max()", "! max called on empty list");
    refuse("[].min()", "! min called on empty list");
    refuse("l.slice(1, 9)", "! cannot slice(1, 9), list is length 2");
    refuse("[true].sum()", "found no matching overload for 'sum' applied to 'list(bool).()'");
    refuse("[dyn(1), dyn('a')].sort()", "! list elements must have the same type");
}

#[test]
fn patterns() {
    hold(&[
        "'abc 123'.find('[0-9]+') == '123'",
        "'abc'.find('[0-9]+') == ''",
        "'123 abc 456'.findAll('[0-9]+') == ['123', '456']",
        "'123 abc 456'.findAll('[0-9]+', 1) == ['123']",
        "'123 abc 456'.findAll('x') == []",
        "'abc'.matches('^[a-c]+$')",
        "matches('abc', 'b')",
        "!'٣'.matches(r'\\d')",
        "'3_a'.matches(r'^\\w+$')",
        "'a b'.matches(r'a\\sb')",
        "'[x'.matches('^[[x]+$')",
        "'a-]'.matches(r'^[]a-]+$')",
        "'aXb'.matches('(?i)axB')",
        "'a&&b'.matches('^[a&&b]+$')",
        "'ab'.matches('a' + 'b')",
    ]);
    refuse("s.find('(')", "error parsing regexp: unclosed group");
}

#[test]
fn addresses() {
    hold(&[
        "isIP('127.0.0.1')",
        "isIP('::1')",
        "!isIP('127.0.0.256')",
        "!isIP('::ffff:1.2.3.4')",
        "!isIP('fe80::1%eth0')",
        "!isIP('010.0.0.1')",
        "ip('127.0.0.1').family() == 4",
        "ip('::1').family() == 6",
        "ip.isCanonical('2001:db8::abcd')",
        "!ip.isCanonical('2001:DB8::ABCD')",
        "ip('0.0.0.0').isUnspecified()",
        "ip('127.0.0.1').isLoopback()",
        "ip('224.0.0.1').isLinkLocalMulticast()",
        "ip('169.254.1.1').isLinkLocalUnicast()",
        "ip('192.168.0.1').isGlobalUnicast()",
        "ip('::1') == ip('0:0:0:0:0:0:0:1')",
        "string(ip('2001:DB8::1')) == '2001:db8::1'",
        "type(ip('::1')) == net.IP",
        "isCIDR('192.168.0.0/16')",
        "isCIDR('::1/128')",
        "!isCIDR('192.168.0.0/33')",
        "!isCIDR('192.168.0.0/08')",
        "!isCIDR('::ffff:1.2.3.4/24')",
        "cidr('192.168.0.0/24').containsIP('192.168.0.1')",
        "!cidr('192.168.0.0/24').containsIP(ip('192.168.1.1'))",
        "cidr('192.168.0.0/16').containsCIDR('192.168.10.0/24')",
        "!cidr('192.168.1.0/24').containsCIDR(cidr('192.168.0.0/16'))",
        "cidr('192.168.0.1/24').ip() == ip('192.168.0.1')",
        "cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24')",
        "cidr('192.168.0.1/24') != cidr('192.168.0.0/24')",
        "cidr('::1/128').prefixLength() == 128",
        "cidr('::/0').containsIP('2001:db8::1')",
        "string(cidr('10.0.0.0/8')) == '10.0.0.0/8'",
    ]);
    refuse("ip('::ffff:1.2.3.4')", "! IPv4-mapped IPv6 address \"::ffff:1.2.3.4\" is not allowed");
    refuse(
        "ip(s)",
        "! IP Address \"text\" parse error during conversion from string: ParseAddr(\"text\"): unable to parse IP",
    );
    refuse(
        "cidr('1.2.3.4')",
        "! network address parse error during conversion from string: network address parse error during conversion from string: netip.ParsePrefix(\"1.2.3.4\"): no '/'",
    );
}

#[test]
fn urls() {
    hold(&[
        "isURL('https://user:pass@example.com:80/path?query=val#fragment')",
        "isURL('/absolute-path')",
        "!isURL('https://a:b:c/')",
        "!isURL('../relative-path')",
        "!isURL('')",
        "url('https://example.com:80/').getHost() == 'example.com:80'",
        "url('https://example.com/').getHost() == 'example.com'",
        "url('https://[::1]:80/').getHost() == '[::1]:80'",
        "url('/path').getHost() == ''",
        "url('https://[::1]:80/').getHostname() == '::1'",
        "url('https://example.com:80/').getPort() == '80'",
        "url('https://example.com/').getPort() == ''",
        "url('https://example.com/path').getScheme() == 'https'",
        "url('https://example.com/path with spaces/').getEscapedPath() == '/path%20with%20spaces/'",
        "url('https://example.com/path?k1=a&k2=b&k2=c').getQuery() == {'k1': ['a'], 'k2': ['b', 'c']}",
        "url('https://example.com/path?key with spaces=value with spaces').getQuery() == {'key with spaces': ['value with spaces']}",
        "url('https://example.com/path').getQuery() == {}",
        "url('/a') == url('/a')",
        "url('/a') != url('/b')",
        "isURL('http://exam`ple.com') == false",
        "isURL('mailto:a@b')",
    ]);
    refuse(
        "url('../relative-path')",
        "! URL parse error during conversion from string: parse \"../relative-path\": invalid URI for request",
    );
}

#[test]
fn quantities() {
    hold(&[
        "quantity('1500m') == quantity('1.5')",
        "isQuantity('1.3G')",
        "!isQuantity('1.3GiB')",
        "quantity('50k').asInteger() == 50000",
        "quantity('50k').isInteger()",
        "!quantity('1.5').isInteger()",
        "quantity('1.5').asApproximateFloat() == 1.5",
        "quantity('50').sign() == 1",
        "quantity('-50').sign() == -1",
        "quantity('0').sign() == 0",
        "quantity('200M').compareTo(quantity('0.2G')) == 0",
        "quantity('50M').compareTo(quantity('50Mi')) == -1",
        "quantity('150Mi').isGreaterThan(quantity('100Mi'))",
        "quantity('50M').isLessThan(quantity('100M'))",
        "quantity('50k').add(20) == quantity('50020')",
        "quantity('50k').sub(quantity('20k')) == quantity('30k')",
        "type(quantity('1')) == kubernetes.Quantity",
    ]);
    refuse(
        "quantity('Three')",
        "! quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
    );
    refuse("quantity('1.5').asInteger()", "! cannot convert value to integer");
}

#[test]
fn versions() {
    hold(&[
        "isSemver('1.0.0')",
        "!isSemver('v1.0')",
        "isSemver('v1.0', true)",
        "!isSemver('1.0')",
        "isSemver('01.01.01', true)",
        "semver('v01.1', true) == semver('1.1.0')",
        "semver('1.2.3').major() == 1",
        "semver('1.2.3').minor() == 2",
        "semver('1.2.3').patch() == 3",
        "semver('1.2.3').compareTo(semver('1.2.3')) == 0",
        "semver('1.2.3').compareTo(semver('2.0.0')) == -1",
        "semver('1.0.0').isGreaterThan(semver('1.0.0-rc.1'))",
        "semver('1.0.0-alpha.2').isLessThan(semver('1.0.0-alpha.10'))",
        "semver('1.0.0-1').isLessThan(semver('1.0.0-a'))",
        "semver('1.0.0+a').compareTo(semver('1.0.0+b')) == 0",
        "!isSemver('1.0.0-01')",
    ]);
    refuse("semver('Three')", "! No Major.Minor.Patch elements found");
    refuse("semver('01.1.1')", "! Major number must not contain leading zeroes \"01\"");
}

#[test]
fn named_formats() {
    hold(&[
        "!format.dns1123Label().validate('my-label-name').hasValue()",
        "format.dns1123Label().validate('My').hasValue()",
        "!format.dns1123Subdomain().validate('apiextensions.k8s.io').hasValue()",
        "!format.dns1035Label().validate('a-b').hasValue()",
        "format.dns1035Label().validate('1a').hasValue()",
        "!format.qualifiedName().validate('example.com/x').hasValue()",
        "!format.dns1123LabelPrefix().validate('my-').hasValue()",
        "format.dns1123Label().validate('my-').hasValue()",
        "!format.dns1123SubdomainPrefix().validate('a.b-').hasValue()",
        "!format.dns1035LabelPrefix().validate('a-').hasValue()",
        "!format.labelValue().validate('').hasValue()",
        "!format.uri().validate('http://example.com').hasValue()",
        "!format.uuid().validate('123e4567-e89b-12d3-a456-426614174000').hasValue()",
        "format.uuid().validate('x').value() == ['does not match the UUID format']",
        "!format.byte().validate('aGVsbG8=').hasValue()",
        "format.byte().validate('{').value() == ['invalid base64']",
        "!format.date().validate('2021-01-01').hasValue()",
        "format.date().validate('2021').value() == ['invalid date']",
        "!format.datetime().validate('2021-01-01T00:00:00Z').hasValue()",
        "format.named('uuid').hasValue()",
        "!format.named('nope').hasValue()",
        "!format.named('dns1123Label').value().validate('a').hasValue()",
    ]);
}

#[test]
fn hosts_are_asked_and_lazy_fields_are_read_once() {
    use std::cell::Cell;
    use std::sync::Arc;

    use crate::server::cel::Error;
    use crate::server::cel::functions::opaque::{AUTHORIZER, DECISION, PATH_CHECK};
    use crate::server::cel::value::{Host, Lazy};

    #[derive(Debug)]
    struct Asked(&'static str);
    impl Host for Asked {
        fn type_name(&self) -> &'static str {
            self.0
        }
        fn call(&self, function: &str, arguments: &[Value<'_>]) -> Result<Value<'static>, Error> {
            match function {
                "path" => Ok(Value::Host(Arc::new(Asked(PATH_CHECK)))),
                "check" => Ok(Value::Host(Arc::new(Asked(DECISION)))),
                "allowed" => Ok(Value::Bool(arguments.is_empty())),
                _ => Err(Error::no_overload()),
            }
        }
    }
    struct Counted(Cell<u32>);
    impl Lazy for Counted {
        fn field(&self, name: &str) -> Option<Result<Value<'_>, Error>> {
            self.0.set(self.0.get() + 1);
            (name == "x").then_some(Ok(Value::Int(5)))
        }
    }
    let environment = Environment::new()
        .with("authorizer", Decl::of(Type::Opaque(AUTHORIZER)))
        .with("variables", Decl::of(Type::Dyn));
    let lazy = Counted(Cell::new(0));
    let bindings = Bindings::new().with(0, Value::Host(Arc::new(Asked(AUTHORIZER)))).with(1, Value::Lazy(&lazy));
    let source = "authorizer.path('/healthz').check('get').allowed() && variables.x == 5 && !has(variables.y)";
    let program = Program::compile(source, &environment).unwrap_or_else(|e| panic!("{}", render(source, &e)));
    let mut budget = Budget::default();
    assert_eq!(program.evaluate(&bindings, &mut budget).map(|v| v.as_bool()), Ok(Some(true)));
    assert_eq!(lazy.0.get(), 2);
    let again = Program::compile("authorizer.path('/a').check('get').allowed() && authorizer.path('/a').check('get').allowed() && authorizer.path('/a').check('get').allowed()", &environment).map_err(|_| ()).unwrap();
    assert_eq!(again.evaluate(&bindings, &mut budget).map(|_| ()), Err(Error::CallLimit));
}

#[test]
fn mutations_build_objects() {
    let environment = Environment::new().with("object", Decl::of(Type::Dyn)).with_mutations();
    let value = json!({"spec": {"n": 1}});
    let bindings = Bindings::new().with(0, Value::dynamic(&value));
    for (source, expected) in [
        ("Object{spec: Object.spec{n: object.spec.n + 1, l: ['a']}}", json!({"spec": {"n": 2, "l": ["a"]}})),
        ("Object{?spec: optional.none()}", json!({})),
        (
            "[JSONPatch{op: 'add', path: '/a', value: Object{x: 1}}]",
            json!([{"op": "add", "path": "/a", "value": {"x": 1}}]),
        ),
    ] {
        let program = Program::compile(source, &environment).unwrap_or_else(|e| panic!("{}", render(source, &e)));
        let result = program.evaluate(&bindings, &mut Budget::default()).map(|v| v.to_json());
        assert_eq!(result, Ok(Some(expected)), "{source}");
    }
    let issues = Program::compile("JSONPatch{nope: 1}", &environment).map(|_| ()).unwrap_err();
    assert_eq!(issues[0].message, "undefined field 'nope'");
    let issues = Program::compile("JSONPatch{op: 1}", &environment).map(|_| ()).unwrap_err();
    assert_eq!(issues[0].message, "expected type of field 'op' is 'string' but provided type is 'int'");
}
