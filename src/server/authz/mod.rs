//! server/authz
