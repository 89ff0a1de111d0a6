//! Descriptors in a service apart: what is common to every store of keys and values.

use parking_lot::Mutex;

use super::keys::{Keys, decode_place, encode_place};
use super::{Metadata, Standing};
use crate::config::Config;
use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
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
    own_place: Mutex<Option<(String, Vec<u8>)>>,
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

impl<S: Store> Service<S> {
    /// Says again where our own listener is, when the service has forgotten it: one that keeps everything in memory
    /// was started again.
    fn restore_place(&self, deadline: Deadline) -> Result<()> {
        let Some((key, place)) = self.own_place.lock().clone() else { return Ok(()) };
        if self.store.get(&key, deadline)?.is_none() {
            log::info!("the metadata service has forgotten where we are: it is told again");
            self.store.put(&key, &place, deadline)?;
        }
        Ok(())
    }
}

impl<S: Store> Metadata for Service<S> {
    fn publish(&self, descriptor: &SegmentDescriptor, deadline: Deadline) -> Result<()> {
        let bytes = descriptor.encode();
        self.store
            .put(&self.keys.segment(&descriptor.name), &bytes, deadline)
            .and_then(|()| self.restore_place(deadline))
            .map_err(|error| error.peer(&descriptor.name))
    }

    fn fetch(&self, name: &str, deadline: Deadline) -> Result<SegmentDescriptor> {
        let bytes = self.store.get(&self.keys.segment(name), deadline).map_err(|error| error.peer(name))?;
        let Some(bytes) = bytes else {
            return Err(Error::new(
                Code::Metadata,
                Stage::Resolve,
                "the metadata service knows no such segment",
            )
            .peer(name)
            .advice("check the name, and that the peer uses the same service and cluster id"));
        };
        SegmentDescriptor::decode(&bytes).map_err(|error| error.peer(name))
    }

    fn withdraw(&self, name: &str, deadline: Deadline) -> Result<()> {
        self.own_place.lock().take();
        let place = self.store.delete(&self.keys.place(name), deadline);
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
        let Some((key, own)) = self.own_place.lock().clone() else { return Ok(Standing::Known) };
        Ok(match self.store.get(&key, deadline)? {
            None => Standing::Forgotten,
            Some(place) if place.trim_ascii() != own.trim_ascii() => Standing::Taken(
                decode_place(&place, "").map_or_else(|_| "another place".to_owned(), |place| place.session()),
            ),
            // Who clears up after clients that were silent for long may take one without the other.
            Some(_) if self.store.get(&self.keys.segment(name), deadline)?.is_none() => Standing::Forgotten,
            Some(_) => Standing::Known,
        })
    }

    fn address(&self) -> Option<Endpoint> {
        Some(self.store.address())
    }

    fn is_peer_to_peer(&self) -> bool {
        false
    }
}
