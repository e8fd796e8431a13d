//! server/authn
