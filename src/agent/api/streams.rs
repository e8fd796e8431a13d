//! Effects: exec, attach, run and port-forward. The runtime makes a URL for each; a client that the runtime understands
//! itself is passed on to it, the others are translated (see [`crate::agent::streaming`]).

use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::answer::{Body, Refusal, body, plain};
use super::{Backend, current};
use crate::agent::streaming::{exec, relay, websocket};
use crate::api::query::Query;
use crate::cri::StreamOptions;

impl From<relay::Error> for Refusal {
    fn from(error: relay::Error) -> Self {
        match error {
            relay::Error::Refused { code, text } => Refusal(code, text),
            other => Refusal::internal(&other),
        }
    }
}

impl Backend {
    /// Connects a client with a command in a container, or with its main process.
    pub(super) async fn session(
        &self,
        exec: bool,
        id: &str,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let asked = |key| query.first(key).is_some_and(|v| v == "1" || v == "true");
        let mut options =
            StreamOptions { stdin: asked("input"), stdout: asked("output"), stderr: asked("error"), tty: asked("tty") };
        // A terminal has one output.
        options.stderr &= !options.tty;
        if !options.stdin && !options.stdout && !options.stderr {
            return Err(Refusal::bad("you must specify at least 1 of stdin, stdout, stderr"));
        }
        is_upgrade(&request)?;
        let url = if exec {
            let command: Vec<String> = query.all("command").map(str::to_owned).collect();
            self.cx.runtime.exec_url(id, &command, options).await
        } else {
            self.cx.runtime.attach_url(id, options).await
        };
        let url = url.map_err(|e| Refusal::internal(&e))?;
        let Some(protocol) = websocket::protocol(&request, exec::knows) else {
            return self.relay(&url, request).await;
        };
        let runtime = match exec::connect(&url, options).await {
            Ok(runtime) => runtime,
            Err(exec::Error::Open(error)) => return Err(error.into()),
            Err(error) => return Err(Refusal::internal(&error)),
        };
        let response = websocket::accepted(&request, &protocol).map_err(|e| Refusal::internal(&e))?;
        self.stream(async move {
            let client = hyper::upgrade::on(request).await.map_err(|e| e.to_string())?;
            exec::bridge(TokioIo::new(client), &protocol, runtime).await.map_err(|e| e.to_string())
        })?;
        Ok(response.map(|()| body("")))
    }

    /// Connects a client with ports of a pod: those that it names later, stream by stream, or, by the older WebSocket
    /// protocol, those of the query.
    pub(super) async fn port_forward(
        &self,
        namespace: &str,
        name: &str,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let ports = ports(query).map_err(Refusal::bad)?;
        is_upgrade(&request)?;
        let entry = self.pod(namespace, name)?;
        let Some(sandbox) = entry.sandbox_id else {
            let text = format!("pod not found (\"{name}_{namespace}\")");
            return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, text));
        };
        let url = self.cx.runtime.port_forward_url(&sandbox, &ports).await.map_err(|e| Refusal::internal(&e))?;
        let tunnels = |p: &str| p.starts_with(relay::TUNNEL).then_some(0);
        let Some(protocol) = websocket::protocol(&request, tunnels) else {
            return self.relay(&url, request).await;
        };
        let inside = protocol.trim_start_matches(relay::TUNNEL);
        let switched = relay::open(&url, Method::POST, relay::spdy(inside)).await?;
        let response = websocket::accepted(&request, &protocol).map_err(|e| Refusal::internal(&e))?;
        self.stream(async move {
            let client = hyper::upgrade::on(request).await.map_err(|e| e.to_string())?;
            relay::tunnel(TokioIo::new(client), switched.stream).await.map_err(|e| e.to_string())
        })?;
        Ok(response.map(|()| body("")))
    }

    /// `POST /run`: a command to its end, and what it wrote.
    pub(super) async fn run(
        &self,
        namespace: &str,
        name: &str,
        container: &str,
        query: &Query,
    ) -> Result<Response<Body>, Refusal> {
        let entry = self.pod(namespace, name)?;
        let missing = || Refusal(StatusCode::INTERNAL_SERVER_ERROR, format!("container not found ({container:?})"));
        let id = current(&entry, container).ok_or_else(missing)?;
        let command: Vec<String> =
            query.first("cmd").unwrap_or_default().split(' ').filter(|c| !c.is_empty()).map(str::to_owned).collect();
        let ran = self.cx.runtime.exec(&id, &command, Duration::ZERO).await.map_err(|e| Refusal::internal(&e))?;
        let mut output = ran.stdout;
        output.extend_from_slice(&ran.stderr);
        if ran.exit_code != 0 {
            let text = format!(
                "command '{}' exited with {}: {}",
                command.join(" "),
                ran.exit_code,
                String::from_utf8_lossy(&output)
            );
            return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, text));
        }
        Ok(plain(output))
    }

    /// Passes a client to the runtime as it is.
    async fn relay(&self, url: &str, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
        let method = request.method().clone();
        let switched = relay::open(url, method, relay::handshake(request.headers())).await?;
        let mut response = Response::new(body(""));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = switched.headers;
        self.stream(async move {
            let client = hyper::upgrade::on(request).await.map_err(|e| e.to_string())?;
            relay::pass(TokioIo::new(client), switched.stream).await.map_err(|e| e.to_string())
        })?;
        Ok(response)
    }

    /// Runs a stream beside the connection that it came by, which is over then.
    fn stream(&self, moved: impl Future<Output = Result<(), String>> + Send + 'static) -> Result<(), Refusal> {
        let Ok(slot) = self.streams.clone().try_acquire_owned() else {
            let text = "too many streams into the containers of this node: try again when some have ended";
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, text.into()));
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let _slot = slot;
            if let Some(Err(error)) = stop.run_until_cancelled(moved).await {
                tracing::debug!(error, "a stream to a container broke off");
            }
        });
        Ok(())
    }
}

fn is_upgrade<B>(request: &Request<B>) -> Result<(), Refusal> {
    match request.headers().contains_key(http::header::UPGRADE) {
        true => Ok(()),
        false => Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, "Upgrade request required".into())),
    }
}

/// `port=80,81&port=82`.
fn ports(query: &Query) -> Result<Vec<u16>, String> {
    let mut ports = Vec::new();
    for text in query.all("port").flat_map(|text| text.split(',')) {
        if text.is_empty() {
            return Err("query parameter \"port\" cannot be empty".into());
        }
        let port = text.parse().ok().filter(|port| *port > 0);
        ports.push(port.ok_or_else(|| format!("unable to parse {text:?} as a port: from 1 to 65535"))?);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_query() {
        let check = |query: &str| ports(&Query::parse(query));
        assert_eq!(check(""), Ok(vec![]));
        assert_eq!(check("port=80,81&port=82"), Ok(vec![80, 81, 82]));
        for bad in ["port=", "port=0", "port=x", "port=70000", "port=80,"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
