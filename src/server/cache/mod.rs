//! server/cache
