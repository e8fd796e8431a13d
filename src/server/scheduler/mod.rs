//! server/scheduler
