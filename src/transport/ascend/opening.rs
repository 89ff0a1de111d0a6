//! How two engines make a channel: offer, answer, and the vendor's collective connect on both sides.
//!
//! The initiator offers its rank and regions over the control connection; the acceptor answers with its own and goes
//! on by itself; both come to the same communicator name, rank table and link from what they exchanged, and meet in
//! the vendor's prepare, which is bounded by the connect timeout. Nothing ends that call but its time limit, so each
//! side enters it only when the other has said that its end is made and bound: what fails before makes nobody wait.
//!
//! Invariants: nothing here runs on a thread of the caller or of the control connection except
//! [`Terms::check`] and [`Terms::answer`], which call no peer; whoever fails after an agreement tells the other, and
//! has given the opening up before it does: what the other side says to that must not find it still at hand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::channel::Channel;
use super::channels::{Channels, pair};
use super::costs::class_of;
use super::device::Device;
use super::direct::Reach;
use super::family::agree;
use super::rank::{Link, check_rank, choose_link, rank_table};
use super::registration::{Binding, HCCS_ALIGNMENT_BYTES, REGION_COUNT_LIMIT, VendorRegion};
use super::result::{CONNECTING, PREPARE_NETWORK};
use super::session::{Agreement, Session, Tuning};
use super::slot::Slot;
use crate::config::Config;
use crate::control::{
    ChannelAnswer, ChannelKey, ChannelOffer, Connection, Message, RankDevice, Region, RegionKind,
};
use crate::deadline::Deadline;
use crate::endpoint::Incarnation;
use crate::error::{Code, Error, Result, Stage};
use crate::memory::ByteRange;

/// What a reason starts with when another attempt may work: with another port, or because only this one was overtaken.
pub const AGAIN: &str = "again: ";

/// Attempts with another port of the device, after the first.
pub const PORT_TRIES: u32 = 3;

/// Ports of a device that channels use, unless one is set; the vendor's own default (16666) is left to the
/// framework's communicators.
const PORTS: std::ops::Range<u16> = 17_000..18_000;

/// How long to wait for the other side's offer after it said that offers cross.
const CROSSING_PAUSE: Duration = Duration::from_millis(200);

/// How often an end that waits for the other one looks whether it is still wanted.
const MEETING_SLICE: Duration = Duration::from_millis(50);

/// Longest name of a communicator.
const NAME_LIMIT_BYTES: usize = 127;

/// Which side made the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This one.
    Initiator,
    /// The peer.
    Acceptor,
}

/// A channel that is being made.
#[derive(Debug)]
pub struct Opening {
    role: Role,
    number: u32,
    port_try: u32,
    name: OnceLock<String>,
    stop: Mutex<Option<Error>>,
    stopped: AtomicBool,
    /// Whether the peer has bound its end; guards the condition below.
    peer_bound: Mutex<bool>,
    changed: Condvar,
}

impl Opening {
    /// The slot's `number`th.
    #[must_use]
    pub fn new(role: Role, number: u32, port_try: u32) -> Self {
        Self {
            role,
            number,
            port_try,
            name: OnceLock::new(),
            stop: Mutex::new(None),
            stopped: AtomicBool::new(false),
            peer_bound: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// Whose offer it is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// How many ports were tried before.
    #[must_use]
    pub fn port_try(&self) -> u32 {
        self.port_try
    }

    /// Says which communicator it is about, once that is known.
    pub fn set_name(&self, name: &str) {
        self.name.get_or_init(|| name.to_owned());
    }

    /// Whether it is about this communicator.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.name.get().is_some_and(|own| own == name)
    }

    /// Ends the attempt as soon as the vendor's current call returns.
    pub fn stop(&self, why: Error) {
        self.stop.lock().get_or_insert(why);
        self.stopped.store(true, Ordering::Release);
        // Taken, so that nobody is between looking and sleeping.
        drop(self.peer_bound.lock());
        self.changed.notify_all();
    }

    /// The peer's end is made and bound.
    pub fn peer_bound(&self) {
        *self.peer_bound.lock() = true;
        self.changed.notify_all();
    }

    /// Waits until the peer's end is made and bound.
    ///
    /// # Errors
    /// The answer of `stop`, which is asked now and then; [`Code::Timeout`] at the deadline.
    fn wait_peer_bound(&self, deadline: Deadline, stop: &dyn Fn() -> Option<Error>) -> Result<()> {
        let mut bound = self.peer_bound.lock();
        while !*bound {
            let slice = deadline.sooner(Deadline::after(MEETING_SLICE));
            self.changed.wait_until(&mut bound, slice.at());
            if let Some(error) = MutexGuard::unlocked(&mut bound, stop) {
                return Err(error);
            }
            if !*bound && deadline.expired() {
                let text = "the peer did not make its end of the channel in time";
                return Err(Error::new(Code::Timeout, Stage::Connect, text));
            }
        }
        Ok(())
    }

    /// Why it has to end, if it has.
    #[must_use]
    pub fn stopped(&self) -> Option<Error> {
        if self.stopped.load(Ordering::Acquire) { self.stop.lock().clone() } else { None }
    }
}

/// What both sides know once offer and answer are exchanged.
struct Agreed {
    name: String,
    lower: bool,
    own_rank: RankDevice,
    peer_rank: RankDevice,
    peer_regions: Vec<Region>,
    deadline: Deadline,
}

/// The name of a communicator: unique among all that the two engines may have at once, and in time.
fn name(key: &ChannelKey, generation: (u64, u64), attempt: u32) -> String {
    let mut name = format!(
        "mct_{}.{}_{}.{}_{:x}.{:x}.{attempt:x}",
        key.lower, key.lower_device, key.higher, key.higher_device, generation.0, generation.1
    );
    name.truncate(NAME_LIMIT_BYTES);
    name
}

/// A port for channels of this engine on its device: the set one, else one by the engine's identity, so that two
/// processes on one device rarely meet and can move on when they do.
fn device_port(config: &Config, incarnation: &Incarnation, port_try: u32) -> u16 {
    if let Some(port) = config.channel_device_port {
        return port;
    }
    let span = u128::from(PORTS.end - PORTS.start);
    let offset = (incarnation.id % span + u128::from(port_try) * 7) % span;
    PORTS.start + u16::try_from(offset).unwrap_or(0)
}

fn regions(regions: &[VendorRegion]) -> Vec<Region> {
    regions
        .iter()
        .map(|region| Region {
            address: region.range.start(),
            length_bytes: region.range.length_bytes(),
            kind: if region.host { RegionKind::Host } else { RegionKind::Device },
        })
        .collect()
}

/// The peer's regions that the link takes and those it does not, sorted.
fn sort_regions(regions: &[Region], link: Link) -> Result<(Vec<ByteRange>, Vec<ByteRange>)> {
    let refused =
        |what: &str| Error::new(Code::RejectHandshake, Stage::Connect, format!("the peer's regions: {what}"));
    if regions.len() > REGION_COUNT_LIMIT {
        return Err(refused("too many"));
    }
    let (mut fit, mut unfit) = (Vec::with_capacity(regions.len()), Vec::new());
    for region in regions {
        let range = ByteRange::checked(region.address, region.length_bytes)
            .filter(|range| !range.is_empty())
            .ok_or_else(|| refused("one passes the end of the address space, or is empty"))?;
        let aligned = (range.start() | range.length_bytes()).is_multiple_of(HCCS_ALIGNMENT_BYTES);
        if link == Link::Hccs && (region.kind == RegionKind::Host || !aligned) {
            unfit.push(range);
        } else {
            fit.push(range);
        }
    }
    for side in [&mut fit, &mut unfit] {
        side.sort_unstable();
        if !side.is_sorted_by(|a, b| a.end() <= b.start()) {
            return Err(refused("two overlap"));
        }
    }
    Ok((fit, unfit))
}

/// Makes the channel that this side wants. `None` when the other side's offer took its place.
///
/// # Errors
/// Why it cannot be made.
pub fn initiate(
    channels: &Arc<Channels>,
    slot: &Arc<Slot>,
    opening: &Arc<Opening>,
) -> Result<Option<(Arc<Channel>, Session)>> {
    let config = channels.config();
    let deadline = Deadline::after(config.ascend_connect_timeout);
    let (connection, device) = (slot.connection(), slot.device());
    let peer = connection.peer().incarnation.clone();
    let binding = channels.holdings().bind(device);
    let (key, lower) = pair(channels.incarnation(), slot.key().local_device, &peer, slot.key().remote_device);
    let generation = (binding.epoch(), 0);
    // Both sides count; the lowest bit tells whose count it is.
    let attempt = opening.number.wrapping_shl(1) | u32::from(lower);
    let port = device_port(config, channels.incarnation(), opening.port_try());
    let own_rank = device.rank(config, &channels.server_name(), Some(port))?;
    let offer = ChannelOffer {
        channel: name(&key, generation, attempt),
        key,
        generation,
        attempt,
        rank: own_rank.clone(),
        regions: regions(binding.regions()),
        target_device: slot.key().remote_device,
        timeout_ms: 0,
    };
    opening.set_name(&offer.channel);
    let Some(answer) = exchange(slot, opening, &connection, offer, deadline)? else { return Ok(None) };
    let agreed = Agreed {
        name: answer.channel,
        lower,
        own_rank,
        peer_rank: answer.rank,
        peer_regions: answer.regions,
        deadline,
    };
    connect(channels, slot, opening, &connection, binding, agreed).map(Some)
}

/// Sends the offer until it is answered. `None` when the other side's offer took its place.
fn exchange(
    slot: &Slot,
    opening: &Arc<Opening>,
    connection: &Arc<Connection>,
    mut offer: ChannelOffer,
    deadline: Deadline,
) -> Result<Option<ChannelAnswer>> {
    let peer = connection.peer().segment.clone();
    loop {
        if let Some(error) = opening.stopped() {
            return Err(error);
        }
        if !slot.is_current(opening) {
            return Ok(None);
        }
        offer.timeout_ms = u64::try_from(deadline.remaining().as_millis()).unwrap_or(u64::MAX);
        match connection.request(Message::OpenChannel(offer.clone()), deadline) {
            Ok(Message::ChannelAccepted(answer)) => {
                if answer.channel != offer.channel {
                    return Err(Error::new(
                        Code::RejectHandshake,
                        Stage::Connect,
                        "the peer answered another offer",
                    )
                    .peer(peer));
                }
                if slot.is_current(opening) {
                    return Ok(Some(answer));
                }
                // The other side's offer was taken while this one was on its way.
                let taken_back = Message::ChannelFailed {
                    channel: offer.channel,
                    reason: format!("{AGAIN}the other side's offer for the same devices went first"),
                };
                connection.send(taken_back)?;
                return Ok(None);
            }
            Ok(Message::Failed(failure)) if failure.code != Code::Busy.name() => {
                return Err(failure.to_error(&peer));
            }
            Ok(Message::Failed(_)) => {}
            Ok(_) => {
                return Err(Error::new(
                    Code::RejectHandshake,
                    Stage::Connect,
                    "the peer answered an offer with something else",
                )
                .peer(peer));
            }
            Err(error) if error.code() == Code::Busy => {}
            Err(error) => return Err(error.peer(peer)),
        }
        // The other side has an offer of its own under way, which goes first.
        if slot.wait_replaced(opening, Deadline::after(CROSSING_PAUSE).sooner(deadline)) {
            return Ok(None);
        }
        if deadline.expired() {
            return Err(Error::new(
                Code::Timeout,
                Stage::Connect,
                "the peer wanted to make the channel itself and did not",
            )
            .peer(peer));
        }
    }
}

/// The vendor's part, the same on both sides.
fn connect(
    channels: &Arc<Channels>,
    slot: &Arc<Slot>,
    opening: &Arc<Opening>,
    connection: &Arc<Connection>,
    mut binding: Binding,
    agreed: Agreed,
) -> Result<(Arc<Channel>, Session)> {
    let (config, device) = (channels.config(), slot.device());
    let peer = connection.peer().segment.clone();
    let made = (|| {
        check_rank(&agreed.peer_rank)?;
        let link = choose_link(device.chip(), config.intra_roce, &agreed.own_rank, &agreed.peer_rank)?;
        let unfit_local: Vec<ByteRange> = binding.keep_for(link).iter().map(|region| region.range).collect();
        let (remote, unfit_remote) = sort_regions(&agreed.peer_regions, link)?;
        let local = binding.regions().iter().map(|region| region.range).collect();
        let ranks = if agreed.lower {
            [&agreed.own_rank, &agreed.peer_rank]
        } else {
            [&agreed.peer_rank, &agreed.own_rank]
        };
        let agreement = Agreement {
            name: agreed.name.clone(),
            table: rank_table(ranks, link),
            rank: u32::from(!agreed.lower),
            family: agree(&agreed.own_rank.families, &agreed.peer_rank.families)?,
            remote: remote.clone(),
        };
        let tuning =
            Tuning { traffic_class: config.rdma_traffic_class, service_level: config.rdma_service_level };
        let stop = || {
            opening.stopped().or_else(|| {
                let replaced = || Error::new(Code::Cancelled, Stage::Connect, "a newer offer took its place");
                (!slot.is_current(opening)).then(replaced)
            })
        };
        let meet = || {
            connection.send(Message::ChannelBound { channel: agreed.name.clone() })?;
            opening.wait_peer_bound(agreed.deadline, &stop)
        };
        let session = Session::connect(device, &agreement, binding, tuning, agreed.deadline, &stop, &meet)?;
        let reach = Reach { local, remote };
        let unfit = Reach { local: unfit_local, remote: unfit_remote };
        let class = class_of(device.chip(), link, &agreed.own_rank, &agreed.peer_rank);
        let costs = channels.costs().costs(class);
        let channel = Channel::new(agreement.name, link, costs, reach, unfit, Arc::clone(connection));
        Ok((channel, session))
    })();
    let (made, message) = match made {
        Ok(made) => (Ok(made), Message::ChannelReady { channel: agreed.name }),
        Err(error) => {
            let overtaken = opening.stopped().is_none() && !slot.is_current(opening);
            let message = Message::ChannelFailed { channel: agreed.name, reason: reason(&error, overtaken) };
            let error = error.peer(peer).device(device.id());
            channels.give_up(slot, opening, &error);
            (Err(error), message)
        }
    };
    if let Err(error) = connection.send(message) {
        log::debug!("{error}");
    }
    made
}

/// Whether another port of the device may cure a failure.
#[must_use]
pub fn is_curable(error: &Error) -> bool {
    error
        .record()
        .vendor
        .as_ref()
        .is_some_and(|vendor| CONNECTING.contains(&vendor.function) && vendor.code == PREPARE_NETWORK)
}

/// A failure in words for the peer, marked when another attempt may work.
fn reason(error: &Error, overtaken: bool) -> String {
    format!("{}{error}", if overtaken || is_curable(error) { AGAIN } else { "" })
}

/// A peer's offer that is acceptable as such.
pub struct Terms {
    /// The peer's device, by the id it uses itself.
    pub remote_device: i32,
    /// Whether this side is the lower end of the pair.
    pub we_are_lower: bool,
}

/// What remains to be done for an accepted offer, on a thread of its own.
pub type Accept = Box<
    dyn FnOnce(&Arc<Channels>, &Arc<Slot>, &Arc<Opening>) -> Result<Option<(Arc<Channel>, Session)>> + Send,
>;

impl Terms {
    /// Checks who offers what.
    ///
    /// # Errors
    /// [`Code::StaleIncarnation`] when the offer is for another engine than this, [`Code::RejectHandshake`] when it
    /// makes no sense, [`Code::Unsupported`] when the two devices have no link.
    pub fn check(
        channels: &Channels,
        from: &Arc<Connection>,
        device: &Device,
        offer: &ChannelOffer,
    ) -> Result<Self> {
        let (own, peer) = (channels.incarnation(), &from.peer().incarnation);
        let refused = |what: &str| {
            Error::new(Code::RejectHandshake, Stage::Connect, format!("the offer of a channel: {what}"))
        };
        let (own_hex, peer_hex) = (own.hex(), peer.hex());
        let remote_device = if offer.key.lower == own_hex && offer.key.higher == peer_hex {
            offer.key.higher_device
        } else if offer.key.higher == own_hex && offer.key.lower == peer_hex {
            offer.key.lower_device
        } else {
            return Err(Error::new(
                Code::StaleIncarnation,
                Stage::Connect,
                "the offer is for another process than this one",
            ));
        };
        let (key, we_are_lower) = pair(own, offer.target_device, peer, remote_device);
        if key != offer.key {
            return Err(refused("its key does not fit its devices"));
        }
        if offer.channel.is_empty() || offer.channel.len() > NAME_LIMIT_BYTES || offer.channel.contains('\0')
        {
            return Err(refused("its name is no communicator's name"));
        }
        check_rank(&offer.rank)?;
        let own_rank = device.rank(channels.config(), &channels.server_name(), None)?;
        let link = choose_link(device.chip(), channels.config().intra_roce, &own_rank, &offer.rank)?;
        agree(&own_rank.families, &offer.rank.families)?;
        sort_regions(&offer.regions, link)?;
        Ok(Self { remote_device, we_are_lower })
    }

    /// The answer, and what is left to do.
    ///
    /// # Errors
    /// What the vendor says about this side's device.
    pub fn answer(
        &self,
        channels: &Channels,
        slot: &Slot,
        offer: &ChannelOffer,
    ) -> Result<(ChannelAnswer, Accept)> {
        let (config, own, device) = (channels.config(), channels.incarnation(), slot.device());
        let binding = channels.holdings().bind(device);
        let port_try = offer.rank.device_port.map_or(0, |_| offer.attempt >> 1);
        let own_rank =
            device.rank(config, &channels.server_name(), Some(device_port(config, own, port_try)))?;
        let timeout = Duration::from_millis(offer.timeout_ms).min(config.ascend_connect_timeout);
        let answer = ChannelAnswer {
            channel: offer.channel.clone(),
            key: offer.key.clone(),
            generation: (binding.epoch(), offer.generation.0),
            attempt: offer.attempt,
            rank: own_rank.clone(),
            regions: regions(binding.regions()),
            target_device: self.remote_device,
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let agreed = Agreed {
            name: offer.channel.clone(),
            lower: self.we_are_lower,
            own_rank,
            peer_rank: offer.rank.clone(),
            peer_regions: offer.regions.clone(),
            deadline: Deadline::after(timeout),
        };
        let accept: Accept = Box::new(move |channels, slot, opening| {
            let connection = slot.connection();
            connect(channels, slot, opening, &connection, binding, agreed).map(Some)
        });
        Ok((answer, accept))
    }
}

#[cfg(test)]
mod tests {
    use super::super::channels::ANY_DEVICE;
    use super::*;

    fn incarnation(id: u128) -> Incarnation {
        Incarnation { id, pid: 1, boot_id: "b".into() }
    }

    #[test]
    fn both_sides_agree_on_order_and_name() {
        let (a, b) = (incarnation(5), incarnation(9));
        let (from_a, a_lower) = pair(&a, 3, &b, 0);
        let (from_b, b_lower) = pair(&b, 0, &a, 3);
        assert_eq!(from_a, from_b);
        assert!(a_lower && !b_lower);
        assert_eq!((from_a.lower_device, from_a.higher_device), (3, 0));
    }

    #[test]
    fn names_fit_and_tell_generations_apart() {
        let (key, _) = pair(&incarnation(u128::MAX), ANY_DEVICE, &incarnation(u128::MAX - 1), 15);
        let longest = name(&key, (u64::MAX, u64::MAX), u32::MAX);
        assert!(longest.len() <= NAME_LIMIT_BYTES, "{}", longest.len());
        assert!(longest.ends_with("ffffffff"), "{longest} was cut");
        assert_ne!(name(&key, (1, 0), 2), name(&key, (1, 0), 4));
        assert_ne!(name(&key, (1, 0), 2), name(&key, (2, 0), 2));
    }

    #[test]
    fn only_what_another_attempt_may_cure_asks_for_one() {
        let error = Error::new(Code::Cancelled, Stage::Connect, "a newer offer took its place");
        assert!(reason(&error, true).starts_with(AGAIN));
        assert!(!reason(&error, false).starts_with(AGAIN));
    }

    #[test]
    fn ports_stay_in_range_and_move_on() {
        let config = Config::default();
        let ports: Vec<u16> =
            (0..4).map(|port_try| device_port(&config, &incarnation(u128::MAX), port_try)).collect();
        assert!(ports.iter().all(|port| PORTS.contains(port)), "{ports:?}");
        assert!(ports.windows(2).all(|pair| pair[0] != pair[1]));
        let pinned = Config { channel_device_port: Some(21_000), ..Config::default() };
        assert_eq!(device_port(&pinned, &incarnation(7), 2), 21_000);
    }

    #[test]
    fn hccs_takes_aligned_device_memory_only() {
        let region = |address, length_bytes, kind| Region { address, length_bytes, kind };
        let mib = 1 << 20;
        let all = [
            region(8 * mib, 4 * mib, RegionKind::Device),
            region(2 * mib, 2 * mib, RegionKind::Host),
            region(4 * mib, mib, RegionKind::Device),
        ];
        let (fit, unfit) = sort_regions(&all, Link::Hccs).unwrap();
        assert_eq!(fit, [ByteRange::checked(8 * mib, 4 * mib).unwrap()]);
        assert_eq!(unfit.len(), 2);
        let (fit, unfit) = sort_regions(&all, Link::Roce).unwrap();
        assert_eq!((fit.len(), unfit.len()), (3, 0));
        assert!(fit.is_sorted());
    }

    #[test]
    fn a_peer_cannot_describe_impossible_memory() {
        let region = |address, length_bytes| Region { address, length_bytes, kind: RegionKind::Device };
        for bad in [
            vec![region(u64::MAX, 2)],
            vec![region(5, 0)],
            vec![region(0, 10), region(5, 10)],
            vec![region(0, 1); REGION_COUNT_LIMIT + 1],
        ] {
            assert_eq!(sort_regions(&bad, Link::Roce).unwrap_err().code(), Code::RejectHandshake);
        }
    }
}
