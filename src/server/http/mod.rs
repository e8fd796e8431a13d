//! server/http
