//! Tables: see the modules beside.
