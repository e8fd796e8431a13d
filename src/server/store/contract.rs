//! Tests: what every store must do.
