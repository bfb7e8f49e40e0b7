//! What a sequence remembers: pages of keys and values, and how many tokens they hold.

use std::sync::Arc;

use crate::PAGE_TOKENS;

/// The cache of one sequence: pages of [`PAGE_TOKENS`] tokens, in order; the last one may be part full.
///
/// Full pages may be shared with other sequences of the same beginning; a page that is written to is held by
/// this cache alone.
#[derive(Debug)]
pub struct PagedCache<P> {
    pages: Vec<Arc<P>>,
    tokens: usize,
}

impl<P> Default for PagedCache<P> {
    fn default() -> Self {
        Self { pages: Vec::new(), tokens: 0 }
    }
}

impl<P> PagedCache<P> {
    /// A cache whose first tokens were computed before: `pages` are full.
    pub fn of_full_pages(pages: Vec<Arc<P>>) -> Self {
        Self { tokens: pages.len() * PAGE_TOKENS, pages }
    }

    /// Tokens that it holds.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Its pages, in order; those past [`PagedCache::tokens`] are empty.
    pub fn pages(&self) -> &[Arc<P>] {
        &self.pages
    }

    /// Tokens that its pages have room for, those that it holds included.
    pub fn room(&self) -> usize {
        self.pages.len() * PAGE_TOKENS
    }

    /// Appends an empty page.
    pub fn push(&mut self, page: Arc<P>) {
        self.pages.push(page);
    }

    /// Puts `page`, of the same content, in the place of the one with this index, which is given back.
    pub fn replace(&mut self, index: usize, page: Arc<P>) -> Option<Arc<P>> {
        self.pages.get_mut(index).map(|held| std::mem::replace(held, page))
    }

    /// Appends pages until there is room for `tokens` more.
    pub fn grow(&mut self, tokens: usize, mut make: impl FnMut() -> P) {
        while self.room() < self.tokens + tokens {
            self.pages.push(Arc::new(make()));
        }
    }

    /// Whether `tokens` more can be written: there is room, and nobody else holds a page of it.
    pub fn is_writable(&mut self, tokens: usize) -> bool {
        let first = self.tokens / PAGE_TOKENS;
        let end = (self.tokens + tokens).div_ceil(PAGE_TOKENS);
        self.pages
            .get_mut(first..end)
            .is_some_and(|pages| pages.iter_mut().all(|page| Arc::get_mut(page).is_some()))
    }

    /// The page with this index, to write to; `None` where it is shared or not there.
    pub fn page_mut(&mut self, index: usize) -> Option<&mut P> {
        self.pages.get_mut(index).and_then(Arc::get_mut)
    }

    /// Notes that `tokens` more were written.
    pub fn advance(&mut self, tokens: usize) {
        self.tokens += tokens;
    }

    /// Takes its pages out and leaves it empty.
    pub fn take(&mut self) -> Vec<Arc<P>> {
        self.tokens = 0;
        std::mem::take(&mut self.pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_page_is_read_and_never_written() {
        let shared = Arc::new(7);
        let mut cache = PagedCache::of_full_pages(vec![Arc::clone(&shared)]);
        assert_eq!((cache.tokens(), cache.room()), (PAGE_TOKENS, PAGE_TOKENS));
        assert!(!cache.is_writable(1) && cache.page_mut(0).is_none());
        cache.grow(PAGE_TOKENS + 1, || 8);
        assert_eq!((cache.pages().len(), cache.is_writable(PAGE_TOKENS + 1)), (3, true));
        cache.advance(PAGE_TOKENS + 1);
        assert_eq!(cache.tokens(), 2 * PAGE_TOKENS + 1);
        // The part-full page goes on to be written; a page beyond it is not there.
        assert!(cache.is_writable(PAGE_TOKENS - 1) && !cache.is_writable(PAGE_TOKENS));
        assert_eq!(cache.take().len(), 3);
        assert_eq!((cache.tokens(), cache.room(), Arc::strong_count(&shared)), (0, 0, 1));
    }
}
