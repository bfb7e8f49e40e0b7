//! The scan: an adapter's file form, shapes and numbers, before anything applies it.
//!
//! An adapter from anywhere comes in; findings come out, none when it passed. It is the same for adapters
//! trained here: a run that diverged is stopped here too.

use autoglm_domain::Adapter;

use crate::{ScanLimits, peft, tensors};

/// Most findings that are told; a file that is wrong everywhere would fill a page.
const MAX_FINDINGS: usize = 20;

/// What is wrong with `adapter`, one line each; empty when nothing is. At most 21 lines.
pub fn scan(adapter: &Adapter, limits: &ScanLimits) -> Vec<String> {
    let mut findings = Vec::new();
    let config = peft::read(&adapter.config, limits, &mut findings);
    tensors::check(&adapter.weights, config.as_ref(), limits, &mut findings);
    if findings.len() > MAX_FINDINGS {
        let more = findings.len() - MAX_FINDINGS;
        findings.truncate(MAX_FINDINGS);
        findings.push(format!("and {more} more"));
    }
    findings
}
