//! The settings the state works by. Flags make them; tests make them directly.

/// How a segment is chosen for a new replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// A random segment name, then its neighbours.
    #[default]
    Random,
    /// The emptiest of a few.
    FreeRatioFirst,
    /// The writer's own host, then as `Random`.
    LocalFirst,
}

/// The settings of the state.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How long a read protects an object, in milliseconds.
    pub lease_ttl_ms: u64,
    /// How long a soft pin holds if its writer does not say, in milliseconds.
    pub soft_pin_ttl_ms: u64,
    /// Longest soft pin a writer may ask for, in milliseconds.
    pub max_soft_pin_ttl_ms: u64,
    /// Whether soft-pinned objects are evicted when nothing else is left.
    pub evict_soft_pinned: bool,
    /// Fraction of the objects that one eviction takes, 0 to 1; 0: a full pool evicts nothing.
    pub eviction_ratio: f64,
    /// Fraction of the pool above which eviction runs by itself, 0 to 1.
    pub eviction_high_watermark: f64,
    /// Silence after which a client's segments are unmounted, in milliseconds.
    pub client_ttl_ms: u64,
    /// Age after which an unfinished put may be replaced, in milliseconds.
    pub put_discard_ms: u64,
    /// Age after which the space of an unfinished put is used again, in milliseconds.
    pub put_release_ms: u64,
    /// How a segment is chosen.
    pub strategy: Strategy,
    /// Bytes the metadata of objects may take; 0 is unlimited.
    pub metadata_budget_bytes: u64,
    /// Time over which a segment that joins a running pool gets its full share of new objects, in milliseconds.
    pub ramp_ms: u64,
    /// How long objects of the journal wait for their segment to be mounted again, in milliseconds.
    pub restore_wait_ms: u64,
    /// Seed of the random choices.
    pub seed: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            lease_ttl_ms: 10_000,
            soft_pin_ttl_ms: 1_800_000,
            max_soft_pin_ttl_ms: 86_400_000,
            evict_soft_pinned: true,
            eviction_ratio: 0.05,
            eviction_high_watermark: 0.90,
            client_ttl_ms: 10_000,
            put_discard_ms: 30_000,
            put_release_ms: 600_000,
            strategy: Strategy::Random,
            metadata_budget_bytes: 0,
            ramp_ms: 30_000,
            restore_wait_ms: 600_000,
            seed: 0,
        }
    }
}

impl Policy {
    /// Silence after which a client's segments take no new puts, in milliseconds: four of the one-second heartbeats
    /// of the default time to live.
    #[must_use]
    pub const fn suspect_ms(&self) -> u64 {
        self.client_ttl_ms / 5 * 2
    }
}
