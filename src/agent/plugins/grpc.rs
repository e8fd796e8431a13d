//! Effects: gRPC over Unix sockets, both sides: calls to plugins, and the few services that plugins call at us. Methods
//! are named by their path, `/package.Service/Method`; messages are `prost`'s.

use std::future::{Ready, ready};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either, MapOk};
use futures::{Stream, TryFutureExt as _};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::Streaming;
use tonic::server::{ServerStreamingService, UnaryService};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

/// Connections to one of our services at once; more wait.
const CONNECTIONS: usize = 64;

/// A failed call, in the words that gRPC's own library for Go has for it: events and logs quote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rpc error: code = {code:?} desc = {message}")]
pub struct Error {
    pub code: Code,
    pub message: String,
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error { code: status.code(), message: status.message().to_owned() }
    }
}

/// A channel to a plugin. Nothing is connected until the first call; it connects again by itself.
#[must_use]
pub fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    // The authority is required by HTTP/2 and ignored by the server.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(&socket).await.map(TokioIo::new) }
    }))
}

/// One message there, one back, within a deadline.
///
/// # Errors
/// The plugin's own, or why it cannot be reached.
pub async fn call<M, R>(channel: &Channel, path: &'static str, message: M, deadline: Duration) -> Result<R, Error>
where
    M: Message + Send + Sync + 'static,
    R: Message + Default + Send + Sync + 'static,
{
    let late = || Error { code: Code::DeadlineExceeded, message: "context deadline exceeded".into() };
    let exchange = async {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.map_err(|error| unreachable(&error))?;
        let codec: ProstCodec<M, R> = ProstCodec::default();
        let answer = client.unary(Request::new(message), PathAndQuery::from_static(path), codec).await?;
        Ok(answer.into_inner())
    };
    tokio::time::timeout(deadline, exchange).await.unwrap_or_else(|_| Err(late()))
}

/// One message there, and then what comes back for as long as the plugin lives.
///
/// # Errors
/// As [`call`].
pub async fn stream<M, R>(channel: &Channel, path: &'static str, message: M) -> Result<Streaming<R>, Error>
where
    M: Message + Send + Sync + 'static,
    R: Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| unreachable(&error))?;
    let codec: ProstCodec<M, R> = ProstCodec::default();
    let answer = client.server_streaming(Request::new(message), PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}

fn unreachable(error: &tonic::transport::Error) -> Error {
    Error { code: Code::Unavailable, message: format!("connection error: {}", crate::supervisor::chain(error)) }
}

pub type HttpRequest = http::Request<Incoming>;
pub type HttpResponse = http::Response<Body>;
/// Answers the calls of a service: [`unary`] by the path of the request, else [`unknown`].
pub type Service = Arc<dyn Fn(HttpRequest) -> BoxFuture<'static, HttpResponse> + Send + Sync>;

/// Answers one message with one.
pub async fn unary<M, R, F>(request: HttpRequest, answer: impl FnOnce(M) -> F + Send) -> HttpResponse
where
    M: Message + Default + Send + Sync + 'static,
    R: Message + Send + Sync + 'static,
    F: Future<Output = Result<R, Status>> + Send,
{
    let codec: ProstCodec<R, M> = ProstCodec::default();
    tonic::server::Grpc::new(codec).unary(Once(Some(answer)), request).await
}

/// Answers one message with as many as come.
pub async fn streamed<M, R, S>(request: HttpRequest, answer: impl FnOnce(M) -> S + Send) -> HttpResponse
where
    M: Message + Default + Send + Sync + 'static,
    R: Message + Send + Sync + 'static,
    S: Stream<Item = Result<R, Status>> + Send + 'static,
{
    let codec: ProstCodec<R, M> = ProstCodec::default();
    tonic::server::Grpc::new(codec).server_streaming(Once(Some(answer)), request).await
}

/// A service for a single call, which is what each request is.
struct Once<A>(Option<A>);

impl<A> Once<A> {
    fn take(&mut self) -> Result<A, Status> {
        self.0.take().ok_or_else(|| Status::internal("answered already"))
    }
}

impl<M, R, F, A> UnaryService<M> for Once<A>
where
    A: FnOnce(M) -> F,
    F: Future<Output = Result<R, Status>> + Send,
    R: Send,
{
    type Response = R;
    type Future = Either<MapOk<F, fn(R) -> Response<R>>, Ready<Result<Response<R>, Status>>>;

    fn call(&mut self, request: Request<M>) -> Self::Future {
        match self.take() {
            Ok(answer) => Either::Left(answer(request.into_inner()).map_ok(Response::new as fn(R) -> Response<R>)),
            Err(status) => Either::Right(ready(Err(status))),
        }
    }
}

impl<M, R, S, A> ServerStreamingService<M> for Once<A>
where
    A: FnOnce(M) -> S,
    S: Stream<Item = Result<R, Status>> + Send + 'static,
    R: Send + 'static,
{
    type Response = R;
    type ResponseStream = S;
    type Future = Ready<Result<Response<S>, Status>>;

    fn call(&mut self, request: Request<M>) -> Self::Future {
        ready(self.take().map(|answer| Response::new(answer(request.into_inner()))))
    }
}

/// For a path that the service does not have.
#[must_use]
pub fn unknown() -> HttpResponse {
    Status::unimplemented("unknown method").into_http()
}

/// Serves until `stop`.
pub async fn serve(listener: UnixListener, service: Service, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        tokio::select! {
            () = stop.cancelled() => return,
            _ = connections.join_next(), if connections.len() >= CONNECTIONS => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, service.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "a plugin's connection was not taken");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
        }
    }
}

async fn connection(stream: UnixStream, service: Service) {
    let answer = hyper::service::service_fn(move |request| {
        let answered = service(request);
        async move { Ok::<_, std::convert::Infallible>(answered.await) }
    });
    let served = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a plugin's connection ended");
    }
}
