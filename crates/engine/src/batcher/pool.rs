//! The pages of all sequences: a limited number, handed out one by one, shared where two sequences begin alike.

use std::sync::Arc;

use parking_lot::Mutex;

use super::prefix::{NodeId, Parent, PrefixTree};
use crate::{PAGE_TOKENS, PagedCache};

/// At most `limit` pages.
pub(super) struct Pool<P> {
    state: Mutex<State<P>>,
    make: Box<dyn Fn() -> P + Send + Sync>,
    limit: usize,
    keep: usize,
}

struct State<P> {
    out: usize, // pages of sequences and of the tree
    free: Vec<Arc<P>>,
    tree: PrefixTree<P>,
    hit_tokens: u64,
}

/// Where the pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PoolStats {
    /// In sequences.
    pub(super) used: usize,
    /// Kept for sequences to come.
    pub(super) cached: usize,
    /// Tokens that did not have to be computed, since the start.
    pub(super) hit_tokens: u64,
}

impl<P> Pool<P> {
    /// An empty pool; `make` makes its pages when they are first needed. Up to `keep` pages that nobody uses
    /// stay.
    pub(super) fn new(limit: usize, keep: usize, make: impl Fn() -> P + Send + Sync + 'static) -> Self {
        let state = State { out: 0, free: Vec::new(), tree: PrefixTree::default(), hit_tokens: 0 };
        Self { state: Mutex::new(state), make: Box::new(make), limit, keep }
    }

    /// Tokens that all its pages hold.
    pub(super) fn tokens(&self) -> usize {
        self.limit * PAGE_TOKENS
    }

    /// Pages that can be had without taking them from a sequence.
    pub(super) fn available(&self) -> usize {
        let state = self.state.lock();
        self.limit - state.out + state.tree.unused()
    }

    /// Pages that a sequence of these tokens would take from those available, one more token included.
    pub(super) fn need(&self, root: u64, tokens: &[u32]) -> usize {
        let whole = (tokens.len() + 1).div_ceil(PAGE_TOKENS);
        whole - self.state.lock().tree.find(root, shareable(tokens)).1
    }

    /// Where the pages are.
    pub(super) fn stats(&self) -> PoolStats {
        let state = self.state.lock();
        let cached = state.tree.unused();
        PoolStats { used: state.out - cached, cached, hit_tokens: state.hit_tokens }
    }

    fn take(&self) -> Option<Arc<P>> {
        let mut state = self.state.lock();
        if state.out >= self.limit {
            // It comes from the tree and stays out.
            return state.tree.evict();
        }
        state.out += 1;
        Some(state.free.pop().unwrap_or_else(|| Arc::new((self.make)())))
    }
}

impl<P> State<P> {
    fn give_back(&mut self, mut page: Arc<P>, keep: usize) {
        self.out -= 1;
        if self.free.len() + self.tree.unused() < keep && Arc::get_mut(&mut page).is_some() {
            self.free.push(page);
        }
    }
}

/// The pages of `tokens` that may come from elsewhere: the last token is always computed, for its logits.
fn shareable(tokens: &[u32]) -> &[u32] {
    tokens.split_last().map_or(&[], |(_, rest)| rest)
}

/// One sequence's pages. What is dropped goes back to the pool.
pub(super) struct PageTable<P> {
    pool: Arc<Pool<P>>,
    root: u64,
    cache: PagedCache<P>,
    nodes: Vec<NodeId>, // of its full pages
}

impl<P> PageTable<P> {
    /// No pages yet; they are shared with sequences of the same `root` alone.
    pub(super) fn new(pool: Arc<Pool<P>>, root: u64) -> Self {
        Self { pool, root, cache: PagedCache::default(), nodes: Vec::new() }
    }

    /// Begins again with the pages that are there for the beginning of `tokens`.
    pub(super) fn open(&mut self, tokens: &[u32]) {
        self.release();
        let mut state = self.pool.state.lock();
        let (nodes, _) = state.tree.find(self.root, shareable(tokens));
        let pages: Vec<_> = nodes.iter().filter_map(|id| state.tree.acquire(*id)).collect();
        state.hit_tokens += (pages.len() * PAGE_TOKENS) as u64;
        self.cache = PagedCache::of_full_pages(pages);
        self.nodes = nodes;
    }

    /// What [`PageTable::need`](Pool::need) says of its sequence.
    pub(super) fn need(&self, tokens: &[u32]) -> usize {
        self.pool.need(self.root, tokens)
    }

    /// Tokens that it holds.
    pub(super) fn tokens(&self) -> usize {
        self.cache.tokens()
    }

    /// Pages that it holds.
    pub(super) fn pages(&self) -> usize {
        self.cache.pages().len()
    }

    /// Tokens that can be added without another page.
    pub(super) fn room(&self) -> usize {
        self.cache.room() - self.cache.tokens()
    }

    /// For the model to append to.
    pub(super) fn cache(&mut self) -> &mut PagedCache<P> {
        &mut self.cache
    }

    /// Takes pages until `tokens` more fit; `false` when the pool has no more.
    pub(super) fn reserve(&mut self, tokens: usize) -> bool {
        while self.room() < tokens {
            let Some(page) = self.pool.take() else { return false };
            self.cache.push(page);
        }
        true
    }

    /// Makes the pages that have become full known; `tokens` are those of the sequence. Where somebody was
    /// quicker with the same page, that one is used from now on and the own one is given back.
    pub(super) fn settle(&mut self, tokens: &[u32]) {
        let full = self.cache.tokens() / PAGE_TOKENS;
        if self.nodes.len() == full {
            return;
        }
        let mut state = self.pool.state.lock();
        for (index, tokens) in tokens.as_chunks::<PAGE_TOKENS>().0.iter().enumerate().take(full) {
            if index < self.nodes.len() {
                continue;
            }
            let parent = self.nodes.last().map_or(Parent::Root(self.root), |id| Parent::Node(*id));
            let Some(own) = self.cache.pages().get(index) else { break };
            let (id, shared) = state.tree.adopt(parent, tokens, own);
            if !Arc::ptr_eq(own, &shared)
                && let Some(double) = self.cache.replace(index, shared)
            {
                state.give_back(double, self.pool.keep);
            }
            self.nodes.push(id);
        }
    }

    /// Gives all pages back, the last one first: it is the one that is least likely to be needed again.
    pub(super) fn release(&mut self) {
        let mut pages = self.cache.take();
        if pages.is_empty() {
            return;
        }
        let mut state = self.pool.state.lock();
        for page in pages.drain(self.nodes.len().min(pages.len())..).rev() {
            state.give_back(page, self.pool.keep);
        }
        drop(pages);
        for id in self.nodes.drain(..).rev() {
            state.tree.release(id);
        }
        while state.tree.unused() > self.pool.keep
            && let Some(page) = state.tree.evict()
        {
            state.give_back(page, self.pool.keep);
        }
    }
}

impl<P> Drop for PageTable<P> {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pool: &Arc<Pool<()>>, root: u64) -> PageTable<()> {
        PageTable::new(Arc::clone(pool), root)
    }

    /// Opens, fills and settles a sequence as steps of the model would.
    fn fill(table: &mut PageTable<()>, tokens: &[u32]) -> bool {
        table.open(tokens);
        let rest = tokens.len() - table.tokens();
        let fits = table.reserve(rest);
        if fits {
            assert!(table.cache().is_writable(rest));
            table.cache().advance(rest);
            table.settle(tokens);
        }
        fits
    }

    fn counts(pool: &Pool<()>) -> (usize, usize, u64) {
        let PoolStats { used, cached, hit_tokens } = pool.stats();
        (used, cached, hit_tokens)
    }

    #[test]
    fn a_common_beginning_is_held_once_and_found_again_later() {
        let pool = Arc::new(Pool::new(8, 8, || ()));
        let tokens: Vec<u32> = (0..100).collect();
        let (mut one, mut two, mut other) = (table(&pool, 0), table(&pool, 0), table(&pool, 1));
        assert!(fill(&mut one, &tokens) && fill(&mut two, &tokens));
        assert_eq!(counts(&pool), (5, 0, 96));
        assert_eq!((pool.need(0, &tokens), pool.need(1, &tokens)), (1, 4));
        // The other adapter's pages are its own, and do not fit beside these.
        assert!(!fill(&mut other, &tokens));
        drop((one, two));
        assert_eq!((counts(&pool), pool.available()), ((3, 3, 96), 5));
        assert!(fill(&mut table(&pool, 0), &tokens[..64]));
        // Two pages hold 64 tokens, but the last token is computed all the same.
        assert_eq!(counts(&pool).2, 96 + 32);
        drop(other);
        assert_eq!(counts(&pool), (0, 3, 128));
    }

    #[test]
    fn the_same_page_computed_twice_is_kept_once() {
        let pool = Arc::new(Pool::new(8, 8, || ()));
        let tokens: Vec<u32> = (0..40).collect();
        let (mut one, mut two) = (table(&pool, 0), table(&pool, 0));
        one.open(&tokens);
        two.open(&tokens);
        for table in [&mut one, &mut two] {
            assert!(table.reserve(40));
            table.cache().advance(40);
        }
        assert_eq!(counts(&pool).0, 4);
        one.settle(&tokens);
        two.settle(&tokens);
        assert_eq!(counts(&pool).0, 3);
        assert!(Arc::ptr_eq(&one.cache().pages()[0], &two.cache().pages()[0]));
    }

    #[test]
    fn unused_pages_make_way_and_no_more_than_wanted_are_kept() {
        let pool = Arc::new(Pool::new(4, 2, || ()));
        let tokens: Vec<u32> = (0..130).collect();
        assert!(fill(&mut table(&pool, 0), &tokens[..128]));
        // Its first two pages stayed.
        assert_eq!((counts(&pool).1, pool.need(0, &tokens[..65])), (2, 3));
        let mut one = table(&pool, 5);
        assert!(fill(&mut one, &tokens[..128]));
        assert_eq!((counts(&pool), pool.available()), ((4, 0, 0), 0));
        assert!(!fill(&mut table(&pool, 0), &tokens[..1]));
    }
}
