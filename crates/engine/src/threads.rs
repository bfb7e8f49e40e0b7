//! How many threads serving's products share.

use crate::{EngineError, Result};

/// Sets how many threads the products of serving share in this process; without it, one a core. Training has
/// threads of its own.
///
/// # Errors
/// `Internal` when they run already: it must come before the first product.
pub fn set_threads(threads: usize) -> Result<()> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|at| format!("serve-{at}"))
        .build_global()
        .map_err(|error| EngineError::Internal(format!("cannot set {threads} threads for serving: {error}")))
}
