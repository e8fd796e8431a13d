//! Decides whom a request acts as: `Impersonate-*` headers, each of which needs the right to `impersonate` what it names
//! (`k8s.io/apiserver/pkg/endpoints/filters/impersonation.go`).

use std::collections::BTreeMap;

use http::HeaderMap;

use super::claims::split_user_name;
use crate::api::status::Status;
use crate::api::user::{SYSTEM_ANONYMOUS, SYSTEM_AUTHENTICATED, SYSTEM_UNAUTHENTICATED, User};
use crate::server::authz::{Attributes, Authorizer, ResourceAttributes};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Groups and extra values together.
const MAX_VALUES: usize = 256;

/// The user that the request is made as: `user` itself when it asks for nobody else.
///
/// # Errors
/// 403 when it may not, 400 when the headers make no sense.
pub fn impersonate(user: User, headers: &HeaderMap, authorizer: &Authorizer) -> Result<User, Status> {
    if !headers.keys().any(|k| k.as_str().starts_with("impersonate-")) {
        return Ok(user);
    }
    let name = values(headers, USER)?.into_iter().next().unwrap_or_default();
    let mut groups: Vec<String> = values(headers, GROUP)?.into_iter().map(str::to_owned).collect();
    let uid = values(headers, UID)?.into_iter().next().unwrap_or_default();
    let extra = extra(headers)?;
    if name.is_empty() {
        return Err(Status::bad_request(
            "requested impersonation of a group, uid or extra without impersonating a user",
        ));
    }
    if groups.len() + extra.values().map(Vec::len).sum::<usize>() > MAX_VALUES {
        return Err(Status::bad_request(format!("more than {MAX_VALUES} impersonated groups and extra values")));
    }
    let check = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let verb = "impersonate";
        let a = ResourceAttributes { verb, group, resource, subresource, namespace, name, fields: None };
        authorizer.check(&user, &Attributes::Resource(a))
    };
    match split_user_name(name) {
        Some((namespace, account)) => {
            check("", "serviceaccounts", "", namespace, account)?;
            if groups.is_empty() {
                groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
            }
        }
        None => check("", "users", "", "", name)?,
    }
    // Groups that follow from the service account need no right of their own.
    for group in values(headers, GROUP)? {
        check("", "groups", "", "", group)?;
    }
    if !uid.is_empty() {
        check(AUTHENTICATION, "uids", "", "", uid)?;
    }
    for (key, values) in &extra {
        for value in values {
            check(AUTHENTICATION, "userextras", key, "", value)?;
        }
    }
    let presence = if name == SYSTEM_ANONYMOUS { SYSTEM_UNAUTHENTICATED } else { SYSTEM_AUTHENTICATED };
    if !groups.iter().any(|g| g == SYSTEM_AUTHENTICATED || g == SYSTEM_UNAUTHENTICATED) {
        groups.push(presence.into());
    }
    Ok(User { name: name.into(), uid: uid.into(), groups, extra })
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Result<Vec<&'a str>, Status> {
    let text = |v: &'a http::HeaderValue| v.to_str().map_err(|_| Status::bad_request(format!("{name} is not text")));
    headers.get_all(name).iter().map(text).filter(|v| v.as_ref().map_or(true, |t| !t.is_empty())).collect()
}

/// Keys are lower case and percent-encoded.
fn extra(headers: &HeaderMap) -> Result<BTreeMap<String, Vec<String>>, Status> {
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix(EXTRA) {
            let values = values(headers, name.as_str())?.into_iter().map(str::to_owned);
            extra.entry(unescape(key)).or_default().extend(values);
        }
    }
    Ok(extra)
}

/// As upstream, a key that isn't properly encoded is taken as it is.
pub(super) fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let Some(byte) = digits.and_then(|d| u8::from_str_radix(d, 16).ok()) else { return key.to_owned() };
        bytes.push(byte);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).unwrap_or_else(|_| key.to_owned()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;
    use crate::server::objects::fake::Fake;

    fn check(user: &User, headers: &[(&str, &str)], expect: Result<(&str, &[&str]), &str>) {
        let rules = json!([
            {"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["bob", "system:anonymous"]},
            {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "verbs": ["impersonate"]}]);
        let rbac = "rbac.authorization.k8s.io";
        let authorizer = Authorizer::new(Fake::new([
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "r"}, "rules": rules}),
            json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "b"},
                   "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "r"},
                   "subjects": [{"kind": "User", "name": "alice"}]}),
        ]));
        let header =
            |(k, v): &(&str, &str)| (HeaderName::from_bytes(k.as_bytes()).unwrap(), HeaderValue::from_str(v).unwrap());
        let headers: HeaderMap = headers.iter().map(header).collect();
        match (impersonate(user.clone(), &headers, &authorizer), expect) {
            (Ok(got), Ok((name, groups))) => {
                assert_eq!((got.name.as_str(), got.groups), (name, groups.iter().map(|g| (*g).to_owned()).collect()))
            }
            (Err(got), Err(message)) => assert_eq!(got.message(), message),
            (got, _) => panic!("{got:?}"),
        }
    }

    #[test]
    fn who_may_act_as_whom() {
        let alice = User::new("alice", &[SYSTEM_AUTHENTICATED]);
        let admin = User::new("admin", &["system:masters"]);
        let account = (USER, "system:serviceaccount:x:app");
        check(&alice, &[], Ok(("alice", &["system:authenticated"])));
        check(&alice, &[(USER, "bob")], Ok(("bob", &["system:authenticated"])));
        check(&alice, &[(USER, "system:anonymous")], Ok(("system:anonymous", &["system:unauthenticated"])));
        check(
            &alice,
            &[account],
            Ok((
                "system:serviceaccount:x:app",
                &["system:serviceaccounts", "system:serviceaccounts:x", "system:authenticated"],
            )),
        );
        check(&admin, &[(USER, "bob"), (GROUP, "dev")], Ok(("bob", &["dev", "system:authenticated"])));
        check(
            &alice,
            &[(USER, "carol")],
            Err(
                "users \"carol\" is forbidden: User \"alice\" cannot impersonate resource \"users\" in API group \"\" at the \
                 cluster scope",
            ),
        );
        check(
            &alice,
            &[(USER, "bob"), (GROUP, "system:masters")],
            Err(
                "groups \"system:masters\" is forbidden: User \"alice\" cannot impersonate resource \"groups\" in API group \
                 \"\" at the cluster scope",
            ),
        );
        check(&alice, &[(USER, "bob"), ("impersonate-extra-scopes", "view")], Ok(("bob", &["system:authenticated"])));
        check(
            &alice,
            &[(GROUP, "dev")],
            Err("requested impersonation of a group, uid or extra without impersonating a user"),
        );
        check(
            &alice,
            &[(USER, "bob"), ("impersonate-extra-acme.com%2fproject", "p")],
            Err("userextras.authentication.k8s.io \"p\" is forbidden: User \"alice\" cannot impersonate resource \
                 \"userextras/acme.com/project\" in API group \"authentication.k8s.io\" at the cluster scope"),
        );
    }
}
