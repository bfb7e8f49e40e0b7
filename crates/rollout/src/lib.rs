//! Empty for a moment.
