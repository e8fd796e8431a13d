//! Fair use of the API: API Priority and Fairness (KEP-1040). Who runs at once, who waits for a turn, who is sent away.
//!
//! ```text
//! request ─▶ FlowSchema ─▶ priority level ─▶ a seat is free: runs
//!                                        ├▶ a place in a fair queue ─▶ runs, or gives up
//!                                        └▶ 429
//! ```
//!
//! - [`config`]: the stored objects, compiled; [`rules`]: which requests a FlowSchema is for
//! - [`work`]: how many seats a request takes; [`watches`]: how many are told of a write
//! - [`queues`]: the queues of one level; [`shuffle`]: which of them are open to a flow
//! - [`share`]: how many seats each level has; [`demand`]: how many it asked for
//! - [`level`]: the state of a level, and the turns that are taken in it; [`gate`]: waiting for a turn
//! - [`metrics`], [`dump`]: what an operator sees of it

pub mod config;
pub mod demand;
pub mod dump;
pub mod gate;
pub mod level;
pub mod metrics;
pub mod queues;
pub mod rules;
pub mod share;
pub mod shuffle;
pub mod watches;
pub mod work;

pub use gate::Fairness;
pub use level::Turn;

#[cfg(test)]
mod tests;
