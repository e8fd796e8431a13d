//! server/controllers
