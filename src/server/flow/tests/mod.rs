//! Tests: classification, the dispatcher, and what becomes of turns.

mod bench;
mod classify;
mod dispatch;
mod turns;
