//! Memory for weights: in large pages where the system has them.

/// `len` times `value`. A step streams through all weights, and with pages of 4 KiB the processor looks up an address every 64
/// lines and stops fetching ahead at each page's end; so the system is asked for pages of 2 MiB.
pub(super) fn filled<T: Clone>(value: T, len: usize) -> Vec<T> {
    let mut values: Vec<T> = Vec::with_capacity(len);
    ask_for_large_pages(values.as_mut_ptr().cast(), len * size_of::<T>());
    values.resize(len, value);
    values
}

/// Says of the whole large pages within `len` bytes from `at` that they should be large ones.
#[cfg(target_os = "linux")]
fn ask_for_large_pages(at: *mut u8, len: usize) {
    const LARGE: usize = 2 << 20;
    let before = at.align_offset(LARGE);
    let whole = len.saturating_sub(before) / LARGE * LARGE;
    if whole > 0 {
        // SAFETY: the range lies within one allocation, and the advice changes nothing of what is in it. Where the system
        // refuses, the pages stay small.
        #[allow(unsafe_code, reason = "a system call that takes a pointer")]
        unsafe {
            libc::madvise(at.add(before).cast(), whole, libc::MADV_HUGEPAGE);
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_large_pages(_: *mut u8, _: usize) {}

#[cfg(test)]
mod tests {
    #[test]
    fn every_value_is_there_whatever_the_size() {
        for len in [0, 1, 4096, 3 << 20] {
            assert!(super::filled(7u32, len).iter().all(|value| *value == 7));
        }
    }
}
