//! Blocks sorted by where they go.

use std::collections::HashMap;
use std::hash::Hash;

use crate::plan::Block;

/// Blocks by key (peer, direction, device, ...), in order of first appearance; each group keeps its order.
///
/// The common case, one key for the whole call, costs one comparison per block.
#[derive(Debug)]
pub struct Groups<K> {
    groups: Vec<(K, Vec<Block>)>,
    by_key: HashMap<K, usize>,
    last: usize,
}

impl<K: Copy + Eq + Hash> Groups<K> {
    /// No groups yet; the first one to come has room for `expected` blocks.
    #[must_use]
    pub fn new() -> Self {
        Self { groups: Vec::new(), by_key: HashMap::new(), last: 0 }
    }

    /// Adds a block to the group of `key`; `expected` is the room that a new first group gets.
    pub fn add(&mut self, key: K, block: Block, expected: usize) {
        if let Some((_, blocks)) = self.groups.get_mut(self.last).filter(|(last, _)| *last == key) {
            blocks.push(block);
            return;
        }
        let next = self.groups.len();
        let index = *self.by_key.entry(key).or_insert(next);
        self.last = index;
        match self.groups.get_mut(index) {
            Some((_, blocks)) => blocks.push(block),
            None => {
                let mut blocks = Vec::with_capacity(if next == 0 { expected } else { 0 });
                blocks.push(block);
                self.groups.push((key, blocks));
            }
        }
    }

    /// Number of groups.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

impl<K: Copy + Eq + Hash> Default for Groups<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K> IntoIterator for Groups<K> {
    type Item = (K, Vec<Block>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.groups.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_appear_in_order_and_keep_theirs() {
        let mut groups = Groups::new();
        for (task, key) in (0u32..).zip(["b", "b", "a", "b", "a", "c"]) {
            groups.add(key, Block { local: 0, remote: 0, length_bytes: 1, task }, 6);
        }
        assert_eq!((groups.len(), groups.is_empty()), (3, false));
        let seen: Vec<_> = groups
            .into_iter()
            .map(|(key, blocks)| (key, blocks.iter().map(|block| block.task).collect::<Vec<_>>()))
            .collect();
        assert_eq!(seen, [("b", vec![0, 1, 3]), ("a", vec![2, 4]), ("c", vec![5])]);
    }
}
