//! Decides: `/healthz`, `/livez`, `/readyz` and their single checks, in upstream's words (`k8s.io/apiserver` healthz).

use std::sync::Arc;

use http::{Response, StatusCode};

use super::body::Body;
use super::respond;
use crate::api::query::Query;

/// Looks at something and says what is wrong with it. Called on every probe: it must be quick.
pub type Probe = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

#[derive(Clone)]
pub struct Check {
    /// As in `/readyz/<name>`.
    pub name: &'static str,
    /// A failing check also means that only a restart helps. The others only mean "not yet" or "not now".
    pub live: bool,
    pub probe: Probe,
}

impl Check {
    pub fn new(name: &'static str, live: bool, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { name, live, probe: Arc::new(probe) }
    }
}

/// `None` when `path` is none of the three endpoints.
#[must_use]
pub fn respond(path: &str, query: &Query, checks: &[Check]) -> Option<Response<Body>> {
    let path = path.trim_matches('/');
    // The names of some checks have a slash of their own.
    let (endpoint, one) = path.split_once('/').map_or((path, None), |(endpoint, name)| (endpoint, Some(name)));
    if !matches!(endpoint, "healthz" | "livez" | "readyz") {
        return None;
    }
    let ping = Check::new("ping", true, || Ok(()));
    let wanted = std::iter::once(&ping).chain(checks).filter(|c| endpoint != "livez" || c.live);
    if let Some(name) = one {
        let check = wanted.into_iter().find(|c| c.name == name)?;
        return Some(match (check.probe)() {
            Ok(()) => respond::text(StatusCode::OK, "ok"),
            Err(why) => respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        });
    }
    let excluded: Vec<&str> = query.all("exclude").collect();
    let (mut lines, mut failed) = (String::new(), Vec::new());
    for check in wanted {
        let line = if excluded.contains(&check.name) {
            format!("[+]{} excluded: ok\n", check.name)
        } else if let Err(why) = (check.probe)() {
            tracing::debug!(check = check.name, why, "health check failed");
            failed.push(check.name);
            format!("[-]{} failed: reason withheld\n", check.name)
        } else {
            format!("[+]{} ok\n", check.name)
        };
        lines.push_str(&line);
    }
    Some(if !failed.is_empty() {
        respond::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{endpoint} check failed\n"))
    } else if query.first("verbose").is_some() {
        respond::text(StatusCode::OK, format!("{lines}{endpoint} check passed\n"))
    } else {
        respond::text(StatusCode::OK, "ok")
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn check(uri: &str, expect: Option<(u16, &str)>) {
        let checks = [
            Check::new("store", true, || Ok(())),
            Check::new("poststarthook/rbac", false, || Err("not yet".into())),
            Check::new("informer-sync", false, || Err("not yet".into())),
        ];
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let found = match respond(path, &Query::parse(query), &checks) {
            None => None,
            Some(r) => {
                let code = r.status().as_u16();
                let bytes = r.into_body().collect().await.expect("a body").to_bytes();
                Some((code, String::from_utf8(bytes.to_vec()).expect("text")))
            }
        };
        assert_eq!(found, expect.map(|(code, text)| (code, text.to_owned())), "{uri}");
    }

    #[tokio::test]
    async fn answers_as_upstream_does() {
        check("/livez", Some((200, "ok"))).await;
        check("/livez?verbose", Some((200, "[+]ping ok\n[+]store ok\nlivez check passed\n"))).await;
        let failing = "[+]ping ok\n[+]store ok\n[-]poststarthook/rbac failed: reason withheld\n[-]informer-sync failed: reason \
                       withheld\nreadyz check failed\n";
        check("/readyz", Some((500, failing))).await;
        check("/readyz/store", Some((200, "ok"))).await;
        check("/readyz/informer-sync", Some((500, "internal server error: not yet\n"))).await;
        check("/readyz/poststarthook/rbac", Some((500, "internal server error: not yet\n"))).await;
        check("/livez/informer-sync", None).await;
        check("/readyz/nothing", None).await;
        check("/version", None).await;
    }
}
