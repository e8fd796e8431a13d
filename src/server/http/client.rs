//! Effects: a `kube::Client` for components of this process: the same requests as over the network, without TCP, TLS
//! or a password. The identity is attached to each request instead.

use http::Request;
use http::header::{HeaderValue, USER_AGENT};
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::service::{Identity, Service};
use crate::api::user::{SYSTEM_AUTHENTICATED, User};
use crate::api::version;

/// A client that acts as `user`. It lives as long as anyone holds it; stopping the server's service ends its watches.
#[must_use]
pub fn client(service: &Service, mut user: User) -> kube::Client {
    if !user.in_group(SYSTEM_AUTHENTICATED) {
        user.groups.push(SYSTEM_AUTHENTICATED.into());
    }
    let agent = HeaderValue::from_str(&version::user_agent()).ok();
    let service = service.clone().map_request(move |request: Request<kube::client::Body>| {
        let (mut parts, body) = request.into_parts();
        parts.headers.extend(agent.clone().map(|agent| (USER_AGENT, agent)));
        parts.extensions.insert(Identity(user.clone()));
        Request::from_parts(parts, body.map_err(Into::into).boxed_unsync())
    });
    kube::Client::new(service, "default")
}
