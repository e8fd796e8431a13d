//! Effects: the client side of `grpc.health.v1.Health/Check`, for gRPC probes: one message each way, written by hand.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

use super::http_get;

/// An answer is a few bytes; more is no health server.
const ANSWER_BYTES: usize = 4096;
/// Compression flag and length before each message.
const PREFIX_BYTES: usize = 5;
const SERVING: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub async fn check(host: &str, port: i32, service: String, timeout: Duration) -> Result<(), String> {
    let port = u16::try_from(port).map_err(|_| "invalid port".to_owned())?;
    let call = async {
        let stream = http_get::connect(host, port, timeout).await?;
        exchange(stream, host, port, service).await
    };
    let late = || format!("timeout: failed to connect service \"{host}:{port}\" within {}s", timeout.as_secs());
    let status = tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| Err(late()))?;
    match status {
        SERVING => Ok(()),
        2 => Err("service unhealthy (responded with \"NOT_SERVING\")".into()),
        _ => Err("service unhealthy (responded with \"UNKNOWN\")".into()),
    }
}

async fn exchange(stream: tokio::net::TcpStream, host: &str, port: u16, service: String) -> Result<i32, String> {
    let text = |error: hyper::Error| error.to_string();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(text)?;
    let message = HealthCheckRequest { service }.encode_to_vec();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).map_err(|error| error.to_string())?);
    frame.put_slice(&message);
    let request = Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "kube-probe/1.36")
        .body(Full::<Bytes>::from(frame.freeze()))
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await.map_err(|error| error.to_string())?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        let code = trailers.get("grpc-status").or(head.headers.get("grpc-status"));
        let code = code.and_then(|value| value.to_str().ok()).unwrap_or("0").to_owned();
        if code != "0" {
            return Err(format!("error: health rpc failed: rpc error: code = {code}"));
        }
        let bytes = body.to_bytes();
        let message = bytes.get(PREFIX_BYTES..).ok_or("error: health rpc failed: empty answer")?;
        HealthCheckResponse::decode(message).map(|answer| answer.status).map_err(|error| error.to_string())
    };
    tokio::pin!(answer, connection);
    let mut open = true;
    loop {
        tokio::select! {
            result = &mut answer => return result,
            _ = &mut connection, if open => open = false,
        }
    }
}
