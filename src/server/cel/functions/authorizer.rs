//! Decides: which functions the authorizer of admission has (`library.Authz` of `k8s.io/apiserver/pkg/cel`). What they do is
//! done by the [`Host`](super::super::value::Host) that is bound to `authorizer`.

use super::super::value::{Error, Value};
use super::cost::Cost;
use super::{Row, no_overload};

macro_rules! host {
    ($name:literal, $signature:literal, $cost:expr) => {
        ($name, $signature, $cost, |v| ask(v, $name))
    };
}

pub(super) const ROWS: &[Row] = &[
    host!("path", "authorizer.(string) -> path", Cost::One),
    host!("serviceAccount", "authorizer.(string, string) -> authorizer", Cost::One),
    host!("group", "authorizer.(string) -> group", Cost::One),
    host!("resource", "group.(string) -> resource", Cost::One),
    host!("subresource", "resource.(string) -> resource", Cost::One),
    host!("namespace", "resource.(string) -> resource", Cost::One),
    host!("name", "resource.(string) -> resource", Cost::One),
    host!("fieldSelector", "resource.(string) -> resource", Cost::One),
    host!("labelSelector", "resource.(string) -> resource", Cost::One),
    host!("check", "path.(string) -> decision; resource.(string) -> decision", Cost::Check),
    host!("allowed", "decision.() -> bool", Cost::One),
    host!("reason", "decision.() -> string", Cost::One),
    host!("errored", "decision.() -> bool", Cost::One),
    host!("error", "decision.() -> string", Cost::One),
];

fn ask<'a>(v: &mut [Value<'a>], name: &str) -> Result<Value<'a>, Error> {
    match v.split_first() {
        Some((Value::Host(host), arguments)) => host.call(name, arguments),
        _ => no_overload(name, v),
    }
}
