//! Descriptors in a service apart: what is common to every store of keys and values.
//!
//! Whose a name is, the place says: who has it may write the descriptor, and nobody else does. So every word looks at
//! the place first, and leaves everything alone where it is another's.
//!
//! Limits: the stores have no "only if", so that who takes a name over between the look and the word behind it is
//! overwritten, or taken out; an engine of ours finds that when it looks, and says it again. A word that the service
//! did not answer in time may be applied later, after the end of who sent it. And at its end an engine leaves its place
//! to another engine's descriptor: one that came after it may have its very address.

use parking_lot::Mutex;

use super::keys::{Keys, decode_place, encode_place};
use super::{Metadata, Standing, taken};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::endpoint::{Endpoint, Incarnation};
use crate::error::{Code, Error, Result, Stage};
use crate::handshake;
use crate::segment::SegmentDescriptor;

/// A store of keys and values.
pub(super) trait Store: Send + Sync {
    /// The value of a key; `None` when it has none.
    fn get(&self, key: &str, deadline: Deadline) -> Result<Option<Vec<u8>>>;
    /// Gives a key a value.
    fn put(&self, key: &str, value: &[u8], deadline: Deadline) -> Result<()>;
    /// Takes a key out; not an error when there is none.
    fn delete(&self, key: &str, deadline: Deadline) -> Result<()>;
    /// Address of the service, to find out by which of our own addresses it is reached.
    fn address(&self) -> Endpoint;
}

/// Upstream's use of such a store.
pub(super) struct Service<S> {
    store: S,
    keys: Keys,
    config: Config,
    /// The key and the value by which peers find our own handshake listener, once it was announced.
    own_place: Mutex<Option<Place>>,
}

impl<S: Store> Service<S> {
    pub(super) fn new(store: S, config: &Config) -> Self {
        Self {
            store,
            keys: Keys::new(config.cluster_id.as_deref()),
            config: config.clone(),
            own_place: Mutex::default(),
        }
    }

    /// A place that was left by a process that is gone is taken over; one where somebody answers is not.
    fn take_place(&self, name: &str, place: &[u8], deadline: Deadline) -> Result<()> {
        let key = self.keys.place(name);
        if let Some(old) = self.store.get(&key, deadline)? {
            if old.trim_ascii() == place {
                return Ok(());
            }
            if let Ok(endpoint) = decode_place(&old, name)
                && handshake::probe(&endpoint, &self.config, deadline).is_ok()
            {
                return Err(Error::new(
                    Code::Metadata,
                    Stage::Configure,
                    format!("the name is taken: an engine answers at {}", endpoint.session()),
                )
                .peer(name)
                .advice("give each engine a name of its own"));
            }
            log::info!("{name}: taking the place of an engine that does not answer");
            // The stock servers do not let a place be overwritten.
            self.store.delete(&key, deadline)?;
        }
        self.store.put(&key, place, deadline)
    }
}

/// The key and the value of a place.
type Place = (String, Vec<u8>);

impl<S: Store> Service<S> {
    /// What the service has where `own` was announced.
    fn standing_of(&self, (key, own): &Place, deadline: Deadline) -> Result<Standing> {
        Ok(match self.store.get(key, deadline)? {
            None => Standing::Forgotten,
            Some(place) if place.trim_ascii() == own.trim_ascii() => Standing::Known,
            Some(place) => Standing::Taken(
                decode_place(&place, "").map_or_else(|_| "another place".to_owned(), |place| place.session()),
            ),
        })
    }

    /// Whether the name of an engine that ends has become another's.
    fn is_anothers(
        &self,
        name: &str,
        own: &Place,
        incarnation: &Incarnation,
        deadline: Deadline,
    ) -> Result<bool> {
        let place = self.standing_of(own, deadline)?;
        if matches!(place, Standing::Taken(_)) {
            return Ok(true);
        }
        let Some(bytes) = self.store.get(&self.keys.segment(name), deadline)? else { return Ok(false) };
        let found = SegmentDescriptor::decode(&bytes).ok();
        Ok(match found.as_ref().and_then(SegmentDescriptor::incarnation) {
            // Our listener is gone: who comes after us may have its very address.
            Some(found) => found != incarnation,
            // Upstream's descriptors name no incarnation; where the place is ours, so is the name.
            None => place == Standing::Forgotten,
        })
    }
}

impl<S: Store> Metadata for Service<S> {
    fn publish(&self, descriptor: &SegmentDescriptor, deadline: Deadline) -> Result<()> {
        let name = &descriptor.name;
        let told = || {
            let own = self.own_place.lock().clone();
            let place = own.as_ref().map(|own| self.standing_of(own, deadline)).transpose()?;
            if let Some(Standing::Taken(other)) = &place {
                return Err(taken(name, other));
            }
            self.store.put(&self.keys.segment(name), &descriptor.encode(), deadline)?;
            if let (Some((key, own)), Some(Standing::Forgotten)) = (&own, place) {
                // One that keeps everything in memory was started again.
                log::info!("the metadata service has forgotten where we are: it is told again");
                self.store.put(key, own, deadline)?;
            }
            Ok(())
        };
        told().map_err(|error| error.peer(name))
    }

    fn published(&self, name: &str, deadline: Deadline) -> Result<Option<SegmentDescriptor>> {
        let bytes = self.store.get(&self.keys.segment(name), deadline).map_err(|error| error.peer(name))?;
        bytes.map(|bytes| SegmentDescriptor::decode(&bytes)).transpose().map_err(|error| error.peer(name))
    }

    fn withdraw(&self, name: &str, incarnation: &Incarnation, deadline: Deadline) -> Result<()> {
        let Some(own) = self.own_place.lock().take() else { return Ok(()) };
        // A service that is silent when it is asked has half of the time left for what it is told.
        let look = Deadline::after(deadline.remaining() / 2);
        match self.is_anothers(name, &own, incarnation, look) {
            Ok(true) => {
                log::info!("{name}: the name is another engine's by now, whose entry stays");
                return Ok(());
            }
            Ok(false) => {}
            // An entry that is left keeps the name from upstream's engines for good and costs every peer a wait;
            // that of an engine of ours, taken out in error, is back after its next look. And who cannot be asked is
            // far more often slow than taken over in that very moment.
            Err(error) => log::debug!("{name}: the entry is taken out unseen: {error}"),
        }
        let place = self.store.delete(&own.0, deadline);
        self.store.delete(&self.keys.segment(name), deadline).and(place).map_err(|error| error.peer(name))
    }

    fn announce(&self, name: &str, host: &str, port: u16, deadline: Deadline) -> Result<()> {
        let place = encode_place(host, port)?;
        self.take_place(name, &place, deadline).map_err(|error| error.peer(name))?;
        *self.own_place.lock() = Some((self.keys.place(name), place));
        Ok(())
    }

    fn locate(&self, name: &str, deadline: Deadline) -> Result<Endpoint> {
        match self.store.get(&self.keys.place(name), deadline).map_err(|error| error.peer(name))? {
            Some(bytes) => decode_place(&bytes, name),
            None => Err(Error::new(
                Code::Metadata,
                Stage::Resolve,
                "the metadata service knows no place of that name",
            )
            .peer(name)),
        }
    }

    fn standing(&self, name: &str, deadline: Deadline) -> Result<Standing> {
        let Some(own) = self.own_place.lock().clone() else { return Ok(Standing::Known) };
        self.standing_of(&own, deadline).map_err(|error| error.peer(name))
    }

    fn address(&self) -> Option<Endpoint> {
        Some(self.store.address())
    }

    fn is_peer_to_peer(&self) -> bool {
        false
    }
}
