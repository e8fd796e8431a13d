//! src
