//! Streams out of and into containers, for the kubelet endpoint.
//!
//! - [`log_line`], [`log_file`]: container logs, as they are and as they grow
//! - [`exec`]: a WebSocket from the client, a SPDY connection to the runtime, bytes between them
//! - [`spdy`]: as much of SPDY/3.1 as the runtime's streaming server needs
//! - [`relay`]: clients that the runtime understands itself; SPDY in a WebSocket
//! - [`websocket`]: the server's side of a handshake

pub mod exec;
pub mod log_file;
pub mod log_line;
pub mod relay;
pub mod spdy;
pub mod websocket;

#[cfg(test)]
mod tests;
