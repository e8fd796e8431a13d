//! What formats accept, and what they do not. The examples are those of upstream's own tests where it has some.

use super::*;

fn check(name: &str, good: &[&str], bad: &[&str]) {
    let format = find(Kind::String, name).unwrap_or_else(|| panic!("{name} is unknown"));
    for text in good {
        assert!(format.accepts(text), "{name} should accept {text:?}");
    }
    for text in bad {
        assert!(!format.accepts(text), "{name} should not accept {text:?}");
    }
}

#[test]
fn formats_belong_to_types() {
    for (kind, name, expect) in [
        (Kind::String, "date-time", Some(Format::DateTime)),
        (Kind::IntOrString, "k8s-short-name", Some(Format::ShortName)),
        (Kind::String, "int32", None),
        (Kind::String, "k8s-ip-sloppy", None),
        (Kind::Integer, "int32", Some(Format::Int32)),
        (Kind::Integer, "date", None),
        (Kind::Number, "double", Some(Format::Double)),
        (Kind::Object, "uri", None),
    ] {
        assert_eq!(find(kind, name), expect, "{name}");
    }
}

#[test]
fn addresses() {
    check("ipv4", &["1.2.3.4", "010.000.1.255", "::ffff:1.2.3.4"], &["1.2.3", "1.2.3.256", "", "1.2.3.4/8", "::1"]);
    check("ipv6", &["::1", "fd00::1:2", "::ffff:1.2.3.4"], &["1.2.3.4", "fe80::1%eth0", ":::"]);
    check(
        "cidr",
        &["10.0.0.0/8", "010.0.0.0/08", "fd00::/64"],
        &["10.0.0.0", "10.0.0.0/33", "fd00::/129", "a/8", "1.1.1.1/"],
    );
    check(
        "mac",
        &["00:00:5e:00:53:01", "02-00-5E-10-00-00-00-01", "0000.5e00.5301"],
        &["00:00:5e:00:53", "00:00-5e:00:53:01", "0000.5e00.53", "x"],
    );
    check(
        "hostname",
        &["somewhere.com", "a", "1a", "a-b", "a.b-c.example.london", "www.詹姆斯.org"],
        &["somewhere.com!", "-a", "ab-c", "a..b", "a.b1", "a_b.com", "", "a.c"],
    );
    check(
        "uri",
        &["http://somewhere.com", "/path", "mailto:a@b", "http://u:p@h:80/a%20b?x=%", "http://[::1]:80/", "*"],
        &["somewhere.com", "", ":a", "http://a:b/", "http://a b/", "/%zz", "http://[::1/", "http://a%41/", "a\nb"],
    );
    check(
        "email",
        &["a@b.c", "Bob <a@b.c>", "\"a b\"@c", "a@[1.2.3.4]", "é@x.y"],
        &["a", "@b", "a@", "a b@c", "a@b <", "<a@b.c", "a@b@c"],
    );
}

#[test]
fn names_and_identifiers() {
    check("k8s-short-name", &["a", "1-a"], &["", "A", "-a", "a-", "a.b"]);
    check("k8s-long-name", &["a.b-1.c"], &["a..b", "A.b", ".a"]);
    assert!(!Format::ShortName.accepts(&"a".repeat(64)) && Format::LongName.accepts(&"a".repeat(64)));
    let v4 = "025b0d74-00a2-4048-bf57-227c5111bb34";
    check("uuid", &[v4, "025B0D7400A24048BF57227C5111BB34", "025b0d74-00a240480f57-227c5111bb34"], &["", "025b0d74"]);
    check("uuid4", &[v4], &["025b0d74-00a2-5048-bf57-227c5111bb34", "025b0d74-00a2-4048-0f57-227c5111bb34"]);
    check("uuid3", &["bcd02e22-68f0-3046-a512-327cca9def8f"], &[v4]);
    check("uuid5", &["bcd02e22-68f0-5046-a512-327cca9def8f"], &[v4]);
    check("bsonobjectid", &["507f1f77bcf86cd799439011"], &["507f1f77bcf86cd79943901", "x07f1f77bcf86cd799439011"]);
}

#[test]
fn numbers_and_colours() {
    check("isbn10", &["0321751043", "0-321-75104-3"], &["0321751042", "978-0321751041", ""]);
    check("isbn13", &["978-0321751041"], &["978-0321751042", "0321751043"]);
    check("isbn", &["0321751043", "978 0321751041"], &["1"]);
    check(
        "creditcard",
        &["4111-1111-1111-1111", "378282246310005"],
        &["4111-1111-1111-1112", "9111-1111-1111-1111", ""],
    );
    check("ssn", &["111-11-1111", "111 11 1111"], &["111111111", "999 99 999", "11-111-1111"]);
    check("hexcolor", &["#FFF", "abcdef"], &["#ff", "#gggggg"]);
    check("rgbcolor", &["rgb(255,0, 10)", "rgb( 1 ,2,3)"], &["rgb(256,0,0)", "rgb(01,0,0)", "rgb(1,2)", "rgb(,,)"]);
    check("byte", &["YWI=", "YQ==", "YWJj"], &["", "YWI", "Y===", "YW I=", "YWI=YWI="]);
    check("password", &["", "anything"], &[]);
    check("quantity", &["anything"], &[]);
}

#[test]
fn dates_and_durations() {
    check("date", &["2006-01-02", "2024-02-29"], &["2023-02-29", "2006-1-2", "06-01-02", "2006/01/02", ""]);
    check(
        "date-time",
        &["2014-12-15T19:30:20.000Z", "2014-12-15t19:30:20+01:00", "2014-12-15T19:30:20Z"],
        &["2014-12-15", "2014-12-15T24:00:00Z", "2014-12-15T19:30:20", "2014-12-15T19:30Z", "2014-12-15T19:30:20.Z"],
    );
    check(
        "duration",
        &["1h30m", "0", "-1.5h", ".5s", "5 days", "2w", "1 hour 3 minutes", "22 ns", "9999999h", "x 3 weeks"],
        &["", "5", "1y", "h", "99999999999999999999 s", "1.2.3"],
    );
}
