//! Effects and decides: `GET /containerLogs`: which container's log is meant, and its lines.

use futures::StreamExt;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use k8s_openapi::api::core::v1::{ContainerState, Pod};

use super::answer::{Body, Refusal};
use super::{Backend, bare_id, names, statuses};
use crate::agent::streaming::log_file;
use crate::agent::streaming::log_line::Options;
use crate::api::query::Query;
use crate::{clock, cri};

impl Backend {
    pub(super) async fn logs(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let options = Options::parse(query, clock::now()).map_err(Refusal::bad)?;
        let pod = self
            .cx
            .pods
            .find(namespace, name)
            .map(|entry| entry.full())
            .ok_or_else(|| Refusal::not_found(format!("pod {name:?} not found\n")))?;
        if !names(&pod).any(|n| n == container) {
            return Err(Refusal::not_found(format!("container {container:?} not found in pod {name:?}\n")));
        }
        let id = logged(&pod, name, container, options.previous).map_err(Refusal::bad)?;
        let status = match self.cx.runtime.container_status(&id).await {
            Ok(status) => status,
            Err(cri::Error::NotFound(_)) => {
                return Err(Refusal::bad(format!("unable to retrieve container logs for containerd://{id}")));
            }
            Err(error) => return Err(Refusal::internal(&error)),
        };
        let source = log_file::Container { id, runtime: self.cx.runtime.clone() };
        let lines = match log_file::stream(status.log_path.as_ref(), &options, source).await {
            Ok(lines) => lines,
            Err(e) => {
                let text = format!("failed to try resolving symlinks in path {:?}: {e}", status.log_path);
                return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, text));
            }
        };
        let stopped = self.stop.clone().cancelled_owned();
        let frames = lines.take_until(stopped).map(|piece| piece.map(Frame::data));
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        Ok(response)
    }
}

/// The container whose log is meant (`validateContainerLogStatus`).
fn logged(pod: &Pod, name: &str, container: &str, previous: bool) -> Result<String, String> {
    let Some(status) = statuses(pod).find(|s| s.name == container) else {
        return Err(format!("container {container:?} in pod {name:?} is not available"));
    };
    let ended = |state: &Option<ContainerState>| {
        let id = state.as_ref().and_then(|s| s.terminated.as_ref()).map(|t| t.container_id.clone().unwrap_or_default());
        id.map(|id| bare_id(&id).to_owned())
    };
    let last = ended(&status.last_state);
    let current = bare_id(status.container_id.as_deref().unwrap_or_default()).to_owned();
    let state = status.state.as_ref();
    let known = |id: Option<String>| id.filter(|id| !id.is_empty());
    if previous {
        return known(last)
            .ok_or_else(|| format!("previous terminated container {container:?} in pod {name:?} not found"));
    }
    if state.is_some_and(|s| s.running.is_some()) {
        return Ok(current);
    }
    if let Some(id) = ended(&status.state) {
        // When the next container could not be made, its state has no id.
        return known(Some(id))
            .or(known(last))
            .ok_or_else(|| format!("container {container:?} in pod {name:?} is terminated"));
    }
    if last.is_some() {
        return known(last).ok_or_else(|| format!("container {container:?} in pod {name:?} is terminated"));
    }
    let waits = format!("container {container:?} in pod {name:?} is waiting to start");
    Err(match state.and_then(|s| s.waiting.as_ref()).map(|w| w.reason.as_deref().unwrap_or_default()) {
        Some("ErrImagePull") => format!("{waits}: image can't be pulled"),
        Some("ImagePullBackOff") => format!("{waits}: trying and failing to pull image"),
        Some(reason) => format!("{waits}: {reason}"),
        None => format!("{waits} - no logs yet"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(status: serde_json::Value, previous: bool, expect: Result<&str, &str>) {
        let mut full = json!({"name": "c", "ready": false, "restartCount": 0, "image": "", "imageID": ""});
        full.as_object_mut().unwrap().extend(status.as_object().unwrap().clone());
        let pod = json!({"status": {"containerStatuses": [full]}});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let found = logged(&pod, "p", "c", previous);
        assert_eq!(found.as_deref().map_err(String::as_str), expect);
    }

    #[test]
    fn the_log_of_the_right_container_is_found() {
        let running = json!({"containerID": "containerd://two", "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://one"}}});
        check(running.clone(), false, Ok("two"));
        check(running, true, Ok("one"));
        let crashed = json!({"containerID": "containerd://one", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "containerID": "containerd://one"}}});
        check(crashed.clone(), false, Ok("one"));
        check(crashed, true, Ok("one"));
        let done = json!({"state": {"terminated": {"exitCode": 0, "containerID": "containerd://one"}}});
        check(done.clone(), false, Ok("one"));
        check(done, true, Err("previous terminated container \"c\" in pod \"p\" not found"));
        let waiting = |reason: &str| json!({"state": {"waiting": {"reason": reason}}});
        let text = "container \"c\" in pod \"p\" is waiting to start: ContainerCreating";
        check(waiting("ContainerCreating"), false, Err(text));
        let text = "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image";
        check(waiting("ImagePullBackOff"), false, Err(text));
        check(json!({}), false, Err("container \"c\" in pod \"p\" is waiting to start - no logs yet"));
    }
}
