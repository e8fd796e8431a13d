use std::sync::Arc;

use super::*;
#[test]
fn placeholder() { let _ = Arc::new(Cache::default()); }
