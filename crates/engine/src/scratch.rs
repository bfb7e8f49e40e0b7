//! Buffers that are used again: fresh memory costs a page fault every four KiB, and a training step asks for
//! gigabytes.

use std::{
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;

/// Buffers that wait to be used again. It never holds more of them than were in use at once.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    free: Mutex<Vec<Vec<f32>>>,
    /// Values in all of its buffers, free or on loan, now and at most.
    held: AtomicUsize,
    peak: AtomicUsize,
}

/// A buffer on loan; it goes back when it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer<'a> {
    values: Vec<f32>, // at least `len`
    len: usize,
    home: &'a Scratch,
}

impl Scratch {
    /// `len` values, whatever they were: for results that are written in full.
    pub(crate) fn take(&self, len: usize) -> Buffer<'_> {
        let mut values = self.reuse(len).unwrap_or_default();
        if values.len() < len {
            // Dropped first, so that the old and the new one are not there together.
            self.held.fetch_sub(values.len(), Ordering::Relaxed);
            drop(std::mem::take(&mut values));
            values = vec![0.0; len];
            let held = self.held.fetch_add(len, Ordering::Relaxed) + len;
            self.peak.fetch_max(held, Ordering::Relaxed);
        }
        let mut buffer = Buffer { values, len, home: self };
        if cfg!(debug_assertions) {
            // Whoever reads before writing shall see it in the tests.
            buffer.fill(f32::NAN);
        }
        buffer
    }

    /// `len` zeros: for sums.
    pub(crate) fn zeros(&self, len: usize) -> Buffer<'_> {
        let mut buffer = self.take(len);
        buffer.fill(0.0);
        buffer
    }

    /// A copy of `values`.
    pub(crate) fn copy(&self, values: &[f32]) -> Buffer<'_> {
        let mut buffer = self.take(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    /// Most bytes that its buffers ever took.
    pub(crate) fn peak_bytes(&self) -> usize {
        self.peak.load(Ordering::Relaxed) * size_of::<f32>()
    }

    /// The smallest free buffer that holds `len` without wasting more than as much again; else the largest that
    /// is too small, to be replaced.
    fn reuse(&self, len: usize) -> Option<Vec<f32>> {
        let mut free = self.free.lock();
        let fits = |values: &Vec<f32>| (len..=2 * len).contains(&values.len());
        let enough = (0..free.len()).filter(|&at| fits(&free[at])).min_by_key(|&at| free[at].len());
        let smaller = || (0..free.len()).filter(|&at| free[at].len() < len).max_by_key(|&at| free[at].len());
        enough.or_else(smaller).map(|at| free.swap_remove(at))
    }
}

impl Deref for Buffer<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.len]
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        if !self.values.is_empty() {
            self.home.free.lock().push(std::mem::take(&mut self.values));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_a_much_larger_one_is_not_wasted() {
        let scratch = Scratch::default();
        let at = {
            let buffer = scratch.zeros(100);
            assert_eq!(&buffer[..], [0.0; 100]);
            buffer.as_ptr()
        };
        assert_eq!(scratch.peak_bytes(), 400);
        let again = scratch.copy(&[1.5; 60]);
        assert_eq!((again.as_ptr(), &again[..]), (at, &[1.5; 60][..]));
        drop(again);
        assert_ne!(scratch.take(10).as_ptr(), at);
        assert_eq!(scratch.peak_bytes(), 440);
    }

    #[test]
    fn sizes_that_grow_do_not_pile_up() {
        let scratch = Scratch::default();
        for len in 1..200 {
            let (one, two) = (scratch.take(len), scratch.take(3 * len));
            assert_eq!((one.len(), two.len()), (len, 3 * len));
        }
        assert!(scratch.free.lock().len() <= 4);
    }
}
