//! Counters and gauges of the master. Counters only go up: there is no way to take from one.

use std::sync::atomic::{AtomicU64, Ordering};

use mooncake_wire::Function;

use crate::stripe::Striped;

/// A number that only goes up.
#[derive(Debug, Default)]
pub struct Counter(Striped<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds some.
    pub fn add(&self, count: u64) {
        if count > 0 {
            self.0.own().fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.iter().map(|stripe| stripe.load(Ordering::Relaxed)).sum()
    }
}

/// What is counted of each function.
#[derive(Debug, Default)]
pub struct Calls {
    /// Calls.
    pub requests: Counter,
    /// Calls of which everything failed.
    pub failures: Counter,
    /// Batches of which a part failed.
    pub partial_successes: Counter,
    /// Keys of batches.
    pub items: Counter,
    /// Keys of batches that failed.
    pub failed_items: Counter,
}

impl Calls {
    /// Counts a call of one item.
    pub fn single(&self, failed: bool) {
        self.requests.increment();
        if failed {
            self.failures.increment();
        }
    }

    /// Counts a batch.
    pub fn batch(&self, items: usize, failed: usize) {
        self.requests.increment();
        self.items.add(items as u64);
        self.failed_items.add(failed as u64);
        if failed > 0 && failed == items {
            self.failures.increment();
        } else if failed > 0 {
            self.partial_successes.increment();
        }
    }
}

/// Upper bounds of the histogram of object sizes, in bytes.
pub const VALUE_SIZE_BOUNDS: [u64; 7] = [4096, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216, 67_108_864];

/// Sizes of the objects of one call, which are counted once.
#[derive(Debug, Default)]
pub struct Sizes {
    objects: [u64; VALUE_SIZE_BOUNDS.len() + 1],
    bytes: u64,
}

impl Sizes {
    /// Adds an object.
    pub fn add(&mut self, bytes: u64) {
        let class = VALUE_SIZE_BOUNDS.iter().take_while(|bound| bytes > **bound).count();
        if let Some(objects) = self.objects.get_mut(class) {
            *objects += 1;
        }
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    calls: Vec<Calls>,
    /// Objects of each size class; the last is above all bounds.
    pub value_sizes: [Counter; VALUE_SIZE_BOUNDS.len() + 1],
    /// Sum of the sizes.
    pub value_bytes: Counter,
    /// Puts for which no space was found, after eviction.
    pub put_alloc_failures: Counter,
    /// Puts that got fewer replicas than asked for.
    pub put_partial_allocations: Counter,
    /// Evictions that took something.
    pub evictions_succeeded: Counter,
    /// Evictions.
    pub evictions_attempted: Counter,
    /// Objects that were evicted.
    pub evicted_objects: Counter,
    /// Bytes that were evicted.
    pub evicted_bytes: Counter,
    /// Evictions that ran inside a put.
    pub evictions_in_put: Counter,
    /// Unfinished puts that were replaced.
    pub puts_discarded: Counter,
    /// Unfinished puts whose space was taken back.
    pub puts_released: Counter,
    /// Reads that found the object.
    pub hits: Counter,
    /// Bytes of the objects that reads found.
    pub hit_bytes: Counter,
    /// Reads.
    pub reads: Counter,
    /// Times a client closed its last connection and lent something still.
    pub clients_doubted: Counter,
    /// Clients that became suspect.
    pub clients_suspected: Counter,
    /// Clients that expired.
    pub clients_expired: Counter,
    /// Connections that were accepted.
    pub connections_accepted: Counter,
    /// Connections that were closed for what they sent.
    pub connections_refused: Counter,
    /// Calls with arguments of another release.
    pub release_mismatches: Counter,
    /// Objects that the journal brought back.
    pub objects_restored: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            calls: Function::ALL.iter().map(|_| Calls::default()).collect(),
            value_sizes: Default::default(),
            value_bytes: Counter::default(),
            put_alloc_failures: Counter::default(),
            put_partial_allocations: Counter::default(),
            evictions_succeeded: Counter::default(),
            evictions_attempted: Counter::default(),
            evicted_objects: Counter::default(),
            evicted_bytes: Counter::default(),
            evictions_in_put: Counter::default(),
            puts_discarded: Counter::default(),
            puts_released: Counter::default(),
            hits: Counter::default(),
            hit_bytes: Counter::default(),
            reads: Counter::default(),
            clients_doubted: Counter::default(),
            clients_suspected: Counter::default(),
            clients_expired: Counter::default(),
            connections_accepted: Counter::default(),
            connections_refused: Counter::default(),
            release_mismatches: Counter::default(),
            objects_restored: Counter::default(),
        }
    }
}

impl Metrics {
    /// What is counted of a function.
    #[must_use]
    pub fn calls(&self, function: Function) -> Option<&Calls> {
        self.calls.get(function as usize)
    }

    /// Counts the sizes of objects.
    pub fn values(&self, sizes: &Sizes) {
        for (counter, objects) in self.value_sizes.iter().zip(sizes.objects) {
            counter.add(objects);
        }
        self.value_bytes.add(sizes.bytes);
    }
}
