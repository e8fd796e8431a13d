//! Effects: the way between a component and the server, and what goes wrong on it. Every request is the real one, to the
//! real service; only when it arrives, whether it does, and whether its answer does, is up to the dice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time::Instant;

use super::disks::Disks;
use super::random::Dice;
use crate::api::user::User;
use crate::clock;
use crate::server::http::Service;
use crate::server::http::body::{Body, BoxError, full};
use crate::server::http::service::Identity;

tokio::task_local! {
    /// Who makes the request that is being answered.
    static ACTOR: Arc<str>;
}

pub fn actor() -> Arc<str> {
    ACTOR.try_with(Clone::clone).unwrap_or_else(|_| "nobody".into())
}

/// Shared by everyone who reaches the server.
pub struct Weather {
    dice: Dice,
    disks: Arc<Disks>,
    bad: AtomicBool,
    /// Who cannot reach the server at all.
    away: Mutex<BTreeSet<Arc<str>>>,
    /// When an answer to each was lost last: it may do again what it has done.
    lost: Mutex<BTreeMap<Arc<str>, Instant>>,
    /// Who is to be killed in the middle of its next requests, and whether it was.
    doomed: Mutex<BTreeMap<Arc<str>, Arc<tokio::sync::Notify>>>,
    pub requests: AtomicU64,
}

impl Weather {
    pub fn new(dice: Dice, disks: Arc<Disks>) -> Arc<Self> {
        Arc::new(Self {
            dice,
            disks,
            bad: AtomicBool::new(false),
            away: Mutex::default(),
            lost: Mutex::default(),
            doomed: Mutex::default(),
            requests: AtomicU64::new(0),
        })
    }

    pub fn set_bad(&self, bad: bool) {
        self.bad.store(bad, Relaxed);
        if !bad {
            self.away.lock().unwrap().clear();
            self.doomed.lock().unwrap().clear();
        }
    }

    pub fn set_away(&self, who: &str, away: bool) {
        let mut all = self.away.lock().unwrap();
        if away {
            all.insert(who.into())
        } else {
            all.remove(who)
        };
    }

    /// Rings when the next request of `who` is under way, before or after it was carried out: it is to die then.
    pub fn doom(&self, who: &str, bell: Arc<tokio::sync::Notify>) {
        self.doomed.lock().unwrap().insert(who.into(), bell);
    }

    /// It is another one by now.
    pub fn spare(&self, who: &str) {
        self.doomed.lock().unwrap().remove(who);
    }

    /// An answer to `who` was lost not long ago.
    pub fn lost_lately(&self, who: &str, within: Duration) -> bool {
        self.lost.lock().unwrap().get(who).is_some_and(|at| clock::instant() - *at < within)
    }

    fn is_away(&self, who: &str) -> bool {
        self.away.lock().unwrap().contains(who)
    }

    fn is_bad(&self) -> bool {
        self.bad.load(Relaxed)
    }

    /// A client of `service` that acts as `who`, through this.
    pub fn client(self: &Arc<Self>, service: &Service, who: &str) -> kube::Client {
        let (weather, service, who) = (self.clone(), service.clone(), Arc::<str>::from(who));
        let user = User::new(&who, &["system:masters", "system:authenticated"]);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (weather, service, who, user) = (weather.clone(), service.clone(), who.clone(), user.clone());
            async move {
                let (mut parts, body) = request.into_parts();
                parts.extensions.insert(Identity(user));
                let request = Request::from_parts(parts, body.map_err(Into::into).boxed_unsync());
                weather.carry(&service, &who, request).await
            }
        });
        kube::Client::new(service, "default")
    }

    async fn carry(
        self: Arc<Self>,
        service: &Service,
        who: &Arc<str>,
        request: Request<Body>,
    ) -> Result<Response<Body>, BoxError> {
        self.requests.fetch_add(1, Relaxed);
        let is_watch = request.uri().query().is_some_and(|q| q.contains("watch=true"));
        if self.is_away(who) {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Err("no route to host".into());
        }
        if self.is_bad() {
            self.delay().await;
            self.die(who).await;
            if self.dice.chance(20) {
                return Err("connection refused".into());
            }
            if is_watch && self.dice.chance(50) {
                return Ok(gone());
            }
        }
        let is_write = !matches!(*request.method(), http::Method::GET);
        // What the server passes on to a node.
        let of_node = self.disks.asked(request.method(), request.uri().path());
        let response = match of_node {
            true => Response::new(full("{}")),
            false => ACTOR.scope(who.clone(), service.respond(request)).await,
        };
        if is_watch && response.status().is_success() {
            return Ok(response.map(|body| self.clone().watched(who.clone(), body)));
        }
        if self.is_bad() {
            self.die(who).await;
            if is_write && self.dice.chance(15) {
                self.lost.lock().unwrap().insert(who.clone(), clock::instant());
                return Err("connection reset by peer".into());
            }
            self.delay().await;
        }
        Ok(response)
    }

    async fn delay(&self) {
        if self.dice.chance(200) {
            let most = if self.dice.chance(100) { 5000 } else { 100 };
            tokio::time::sleep(self.dice.millis(0, most)).await;
        }
    }

    /// Never goes on when its end has come.
    async fn die(&self, who: &Arc<str>) {
        let bell = if self.dice.chance(300) { self.doomed.lock().unwrap().remove(who) } else { None };
        if let Some(bell) = bell {
            self.lost.lock().unwrap().insert(who.clone(), clock::instant());
            bell.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Events come late, come again, and end.
    fn watched(self: Arc<Self>, who: Arc<str>, body: Body) -> Body {
        let frames =
            futures::stream::unfold((self, who, body, None::<Bytes>), |(weather, who, mut body, again)| async {
                if let Some(again) = again {
                    return Some((Ok(Frame::data(again)), (weather, who, body, None)));
                }
                let frame = body.frame().await?;
                if weather.is_away(&who) {
                    // A connection that carries nothing is given up some time after.
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    return Some((Err("timed out".into()), (weather, who, body, None)));
                }
                let mut again = None;
                if weather.is_bad() {
                    weather.delay().await;
                    if weather.dice.chance(10) {
                        return Some((Err(BoxError::from("connection reset by peer")), (weather, who, body, None)));
                    }
                    let whole = frame.as_ref().ok().and_then(|f| f.data_ref()).filter(|data| data.ends_with(b"\n"));
                    again = whole.filter(|_| weather.dice.chance(20)).cloned();
                }
                Some((frame, (weather, who, body, again)))
            });
        StreamBody::new(frames.boxed()).boxed_unsync()
    }
}

fn gone() -> Response<Body> {
    let status = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
        "reason": "Expired", "message": "too old resource version"});
    let mut response = Response::new(full(status.to_string()));
    *response.status_mut() = http::StatusCode::GONE;
    response
}
