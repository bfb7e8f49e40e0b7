//! Full pages by what they hold: the adapter that computed them and every token up to their end.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::PAGE_TOKENS;

/// A page in the tree. Numbers are never used again, so that a page cannot be taken for one that is gone.
pub(super) type NodeId = u64;

/// What a page follows: nothing, under the adapter with this identity (0 is the base model), or another page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Parent {
    /// The page is the first of its sequence.
    Root(u64),
    /// The page follows this one.
    Node(NodeId),
}

type Tokens = [u32; PAGE_TOKENS];

#[derive(Debug)]
struct Node<P> {
    parent: Parent,
    tokens: Tokens,
    page: Arc<P>,
    users: usize,
    children: usize,
    left_at: u64, // when its last user left
}

/// A tree of pages: the path from a root to a page spells the tokens that it depends on. Found by comparing
/// them, not their hash, so that no collision can mix up two prompts.
///
/// Pages without a user stay until they are evicted, the longest unused first, leaves before what they follow.
#[derive(Debug)]
pub(super) struct PrefixTree<P> {
    nodes: HashMap<NodeId, Node<P>>,
    children: HashMap<(Parent, Tokens), NodeId>,
    idle: BTreeSet<(u64, NodeId)>, // leaves without a user, by when it left
    unused: usize,                 // nodes without a user
    next: NodeId,
    clock: u64,
}

impl<P> Default for PrefixTree<P> {
    fn default() -> Self {
        Self {
            nodes: HashMap::new(),
            children: HashMap::new(),
            idle: BTreeSet::new(),
            unused: 0,
            next: 0,
            clock: 0,
        }
    }
}

impl<P> PrefixTree<P> {
    /// Pages that nobody uses; every one of them can be evicted in the end.
    pub(super) fn unused(&self) -> usize {
        self.unused
    }

    /// The pages that hold the beginning of `tokens`, and how many of them somebody uses.
    pub(super) fn find(&self, root: u64, tokens: &[u32]) -> (Vec<NodeId>, usize) {
        let (mut found, mut used) = (Vec::new(), 0);
        let mut parent = Parent::Root(root);
        for tokens in tokens.as_chunks::<PAGE_TOKENS>().0 {
            let Some(&id) = self.children.get(&(parent, *tokens)) else { break };
            used += usize::from(self.nodes.get(&id).is_some_and(|node| node.users > 0));
            found.push(id);
            parent = Parent::Node(id);
        }
        (found, used)
    }

    /// Counts one more user of a page, and hands the page out.
    pub(super) fn acquire(&mut self, id: NodeId) -> Option<Arc<P>> {
        let node = self.nodes.get_mut(&id)?;
        if node.users == 0 {
            self.unused -= 1;
            self.idle.remove(&(node.left_at, id));
        }
        node.users += 1;
        Some(Arc::clone(&node.page))
    }

    /// The page under this key with its user counted: `page`, or the one that was there before.
    pub(super) fn adopt(&mut self, parent: Parent, tokens: &Tokens, page: &Arc<P>) -> (NodeId, Arc<P>) {
        if let Some(&id) = self.children.get(&(parent, *tokens))
            && let Some(page) = self.acquire(id)
        {
            return (id, page);
        }
        let id = self.next;
        self.next += 1;
        self.children.insert((parent, *tokens), id);
        if let Parent::Node(parent) = parent
            && let Some(parent) = self.nodes.get_mut(&parent)
        {
            parent.children += 1;
        }
        let node =
            Node { parent, tokens: *tokens, page: Arc::clone(page), users: 1, children: 0, left_at: 0 };
        self.nodes.insert(id, node);
        (id, Arc::clone(page))
    }

    /// Counts one user less.
    pub(super) fn release(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.users -= 1;
        if node.users == 0 {
            self.clock += 1;
            node.left_at = self.clock;
            self.unused += 1;
            if node.children == 0 {
                self.idle.insert((node.left_at, id));
            }
        }
    }

    /// Takes out the page that was left longest ago of those that nothing follows.
    pub(super) fn evict(&mut self) -> Option<Arc<P>> {
        let (_, id) = self.idle.pop_first()?;
        let node = self.nodes.remove(&id)?;
        self.unused -= 1;
        self.children.remove(&(node.parent, node.tokens));
        if let Parent::Node(parent) = node.parent
            && let Some(above) = self.nodes.get_mut(&parent)
        {
            above.children -= 1;
            if above.children == 0 && above.users == 0 {
                self.idle.insert((above.left_at, parent));
            }
        }
        Some(node.page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(pages: &[u32]) -> Vec<u32> {
        pages.iter().flat_map(|token| [*token; PAGE_TOKENS]).collect()
    }

    /// Adds the pages of a sequence as a run of it would; gives back their ids.
    fn run(tree: &mut PrefixTree<u32>, root: u64, pages: &[u32]) -> Vec<NodeId> {
        let mut parent = Parent::Root(root);
        pages
            .iter()
            .map(|page| {
                let (id, _) = tree.adopt(parent, &[*page; PAGE_TOKENS], &Arc::new(*page));
                parent = Parent::Node(id);
                id
            })
            .collect()
    }

    #[test]
    fn only_the_same_tokens_under_the_same_adapter_are_found() {
        let mut tree = PrefixTree::default();
        let ids = run(&mut tree, 1, &[7, 8, 9]);
        assert_eq!(tree.find(1, &tokens(&[7, 8, 9, 7])), (ids.clone(), 3));
        assert_eq!(tree.find(1, &tokens(&[7, 9])).0, ids[..1]);
        assert!(tree.find(1, &tokens(&[8, 9])).0.is_empty());
        assert!(tree.find(2, &tokens(&[7, 8, 9])).0.is_empty());
        // A part of a page is not a page.
        assert_eq!(tree.find(1, &tokens(&[7, 8])[..2 * PAGE_TOKENS - 1]).0, ids[..1]);
    }

    #[test]
    fn a_page_that_is_there_takes_the_place_of_its_double() {
        let mut tree = PrefixTree::default();
        let first = Arc::new(1);
        let (id, held) = tree.adopt(Parent::Root(0), &[5; PAGE_TOKENS], &first);
        let (again, shared) = tree.adopt(Parent::Root(0), &[5; PAGE_TOKENS], &Arc::new(2));
        assert!(id == again && Arc::ptr_eq(&held, &first) && Arc::ptr_eq(&shared, &first));
        tree.release(id);
        assert_eq!((tree.unused(), tree.evict()), (0, None));
        tree.release(id);
        assert_eq!((tree.unused(), tree.evict()), (1, Some(first)));
    }

    #[test]
    fn the_longest_unused_go_first_and_never_what_others_follow() {
        let mut tree = PrefixTree::default();
        let old = run(&mut tree, 0, &[1, 2]);
        let new = run(&mut tree, 0, &[1, 3]);
        assert_eq!(old[0], new[0]);
        for ids in [&old, &new] {
            ids.iter().rev().for_each(|id| tree.release(*id));
        }
        assert_eq!(tree.unused(), 3);
        // The second page of the older one goes; found again, the other one is the longest unused.
        assert_eq!(tree.evict().as_deref(), Some(&2));
        assert_eq!(tree.acquire(new[0]).as_deref(), Some(&1));
        assert_eq!((tree.evict().as_deref(), tree.evict().as_deref()), (Some(&3), None));
        tree.release(new[0]);
        assert_eq!((tree.evict().as_deref(), tree.unused(), tree.nodes.len()), (Some(&1), 0, 0));
        assert!(tree.children.is_empty());
    }
}
