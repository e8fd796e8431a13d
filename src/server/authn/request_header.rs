//! Decides: who a request is from, as the headers of a proxy say it (`k8s.io/apiserver/pkg/authentication/request/
//! headerrequest`), and the same the other way round: what we tell extension servers of who asks
//! (`transport.SetAuthProxyHeaders`).

use std::fmt::Write as _;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::impersonate::unescape;
use crate::api::user::User;

/// As extension servers are told to look for them, in the form in which people write them.
pub const USER: &str = "X-Remote-User";
pub const UID: &str = "X-Remote-Uid";
pub const GROUP: &str = "X-Remote-Group";
pub const EXTRA: &str = "X-Remote-Extra-";

const NAMED: [HeaderName; 3] = [
    HeaderName::from_static("x-remote-user"),
    HeaderName::from_static("x-remote-uid"),
    HeaderName::from_static("x-remote-group"),
];
const EXTRA_LOWER: &str = "x-remote-extra-";

/// The user that is named, `None` when none is. Only a proxy that has proved to be one may be believed.
#[must_use]
pub fn read(headers: &HeaderMap) -> Option<User> {
    let [user, uid, group] = &NAMED;
    let all = |name: &HeaderName| {
        let texts = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        texts.filter(|t| !t.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let first = |name| all(name).into_iter().next();
    let mut found =
        User { name: first(user)?, uid: first(uid).unwrap_or_default(), groups: all(group), ..User::default() };
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA_LOWER) {
            found.extra.entry(unescape(key)).or_default().extend(all(name));
        }
    }
    Some(found)
}

/// Says who `user` is, in place of whatever the headers said before.
pub fn put(headers: &mut HeaderMap, user: &User) {
    remove(headers);
    let [name, uid, group] = NAMED;
    let mut add = |name: &HeaderName, text: &str| {
        // Names are UTF-8 at most, which a header may hold.
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            headers.append(name, value);
        }
    };
    add(&name, &user.name);
    if !user.uid.is_empty() {
        add(&uid, &user.uid);
    }
    for one in &user.groups {
        add(&group, one);
    }
    for (key, values) in &user.extra {
        if let Ok(name) = HeaderName::from_bytes(format!("{EXTRA_LOWER}{}", escape(key)).as_bytes()) {
            for value in values {
                add(&name, value);
            }
        }
    }
}

/// Takes away what a client says of itself.
pub fn remove(headers: &mut HeaderMap) {
    let forged: Vec<HeaderName> = headers.keys().filter(|name| is_one(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
}

/// Whether a header says who a request is from.
#[must_use]
pub fn is_one(name: &HeaderName) -> bool {
    NAMED.contains(name) || name.as_str().starts_with(EXTRA_LOWER)
}

/// What may not be in the name of a header, and the escape itself, as `%2F`.
fn escape(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User {
            name: "alice".into(),
            uid: "u1".into(),
            groups: vec!["dev".into(), "system:authenticated".into()],
            extra: [("acme.com/project".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into(),
        }
    }

    #[test]
    fn what_is_put_is_read_again() {
        let mut headers = HeaderMap::new();
        put(&mut headers, &user());
        assert_eq!(headers.get_all("x-remote-extra-acme.com%2fproject").iter().count(), 2);
        assert_eq!(read(&headers), Some(user()));
    }

    #[test]
    fn what_a_client_says_of_itself_is_gone() {
        let mut headers = HeaderMap::new();
        for name in ["x-remote-user", "X-Remote-Uid", "x-remote-group", "x-remote-extra-a", "x-remote-addr"] {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("forged"));
        }
        let mut other = headers.clone();
        remove(&mut other);
        assert_eq!(other.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-remote-addr"]);
        put(&mut headers, &user());
        assert_eq!(read(&headers), Some(user()));
    }

    #[test]
    fn nobody_is_named_without_a_name() {
        let mut headers = HeaderMap::new();
        assert_eq!(read(&headers), None);
        headers.insert("x-remote-group", HeaderValue::from_static("system:masters"));
        assert_eq!(read(&headers), None);
        headers.insert("x-remote-user", HeaderValue::from_static(""));
        assert_eq!(read(&headers), None);
    }
}
