//! What each operation reserves.
//!
//! Two steps, as on hardware: the calling thread launches, which takes it a while and orders the launches of a device;
//! then the device works, in stream order, from when the launch is over. Both answer times and wait for nothing; who
//! waits is the caller's business.

use super::Costs;
use super::clock;
use super::ledger::{Kind, Place, Resource};
use super::profile::{LinkCost, Way, Wire};
use crate::copy::{Direction, End};
use crate::device::Device;
use crate::rank_table::LinkKind;

/// A row of launches of one thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launches {
    begin_ns: u64,
    each_ns: u64,
}

impl Launches {
    /// When the launch of this number is over.
    pub fn end_of(&self, index: usize) -> u64 {
        let number = u64::try_from(index).unwrap_or(u64::MAX).saturating_add(1);
        self.begin_ns.saturating_add(self.each_ns.saturating_mul(number))
    }
}

/// The two ends of a link, ours first.
pub type Ends = (Place, Place);

/// A descriptor on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// The link.
    pub kind: LinkKind,
    /// Its ends.
    pub ends: Ends,
    /// Put or get.
    pub direction: Direction,
    /// Our end is host memory.
    pub local_is_host: bool,
    /// Bytes.
    pub length: usize,
}

/// What kind of copy the runtime makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyKind {
    Inside,
    Between { direction: Direction, ends: Ends },
    ToDevice,
    ToHost,
    Host,
}

/// The place of a device of this process.
fn place(device: &Device) -> Place {
    Place { server: device.npu.server, device: device.physical_id }
}

fn kind_of(device: &Device, target: &End, source: &End) -> CopyKind {
    let other = |user_id: u32| {
        let npu = crate::device::devices().iter().find(|device| device.user_id == user_id);
        (place(device), npu.map_or_else(|| place(device), place))
    };
    match (source.device(), target.device()) {
        (Some(source), Some(target)) if source == target => CopyKind::Inside,
        (Some(source), Some(target)) if source == device.user_id => {
            CopyKind::Between { direction: Direction::Write, ends: other(target) }
        }
        (Some(source), Some(_)) => CopyKind::Between { direction: Direction::Read, ends: other(source) },
        (None, Some(_)) => CopyKind::ToDevice,
        (Some(_), None) => CopyKind::ToHost,
        (None, None) => CopyKind::Host,
    }
}

impl Costs {
    /// Machine time of so much model time.
    pub fn scaled(&self, model_ns: u64) -> u64 {
        model_ns.saturating_mul(self.slowdown)
    }

    /// Machine time that `length` bytes take at a rate.
    fn bytes(&self, length: usize, mb_s: u64) -> u64 {
        let length = u128::try_from(length).unwrap_or(u128::MAX);
        let time = length.saturating_mul(1000).saturating_mul(u128::from(self.slowdown)) / u128::from(mb_s);
        u64::try_from(time).unwrap_or(u64::MAX)
    }

    fn link(&self, kind: LinkKind) -> &LinkCost {
        match kind {
            LinkKind::Hccs => &self.profile.hccs,
            LinkKind::Roce => &self.profile.roce,
        }
    }

    fn way(&self, kind: LinkKind, direction: Direction) -> &Way {
        match direction {
            Direction::Write => &self.link(kind).put,
            Direction::Read => &self.link(kind).get,
        }
    }

    /// The calling thread, at `ready_ns` by its clock, launches `count` times.
    fn launch(&self, device: Place, ready_ns: u64, each_ns: u64, count: usize) -> Launches {
        let each_ns = self.scaled(each_ns);
        let length_ns = each_ns.saturating_mul(u64::try_from(count).unwrap_or(u64::MAX));
        // A thread that launches for itself is kept in order by its own clock.
        let shared =
            if self.launches_per_thread { None } else { self.ledger.resource(Kind::Launch, device, None) };
        let end_ns = shared.map_or_else(
            || ready_ns.saturating_add(length_ns),
            |launches| launches.reserve(ready_ns, length_ns),
        );
        Launches { begin_ns: end_ns.saturating_sub(length_ns), each_ns }
    }

    /// The calling thread launches `count` descriptors.
    pub fn launch_descriptors(
        &self,
        device: &Device,
        kind: LinkKind,
        direction: Direction,
        count: usize,
    ) -> Launches {
        self.launch(place(device), clock::launching_ns(), self.way(kind, direction).launch_ns, count)
    }

    /// The calling thread launches a copy; answers when that is over.
    pub fn launch_copy(&self, device: &Device, target: &End, source: &End) -> u64 {
        let chip = &self.profile.chip;
        let each_ns = match kind_of(device, target, source) {
            CopyKind::Inside => chip.copy_launch_ns,
            CopyKind::Between { direction, .. } => self.way(LinkKind::Hccs, direction).launch_ns,
            CopyKind::ToDevice | CopyKind::ToHost => chip.host_copy_launch_ns,
            CopyKind::Host => return clock::launching_ns(),
        };
        self.launch(place(device), clock::launching_ns(), each_ns, 1).end_of(0)
    }

    /// The calling thread launches a batch of `count` host copies; answers when that is over.
    pub fn launch_batch(&self, device: &Device, count: usize) -> u64 {
        let chip = &self.profile.chip;
        let items = chip.batch_item_ns.saturating_mul(u64::try_from(count).unwrap_or(u64::MAX));
        self.launch(place(device), clock::launching_ns(), chip.batch_launch_ns.saturating_add(items), 1)
            .end_of(0)
    }

    /// The device moves a descriptor's bytes from `ready_ns` on; answers when they are there.
    pub fn descriptor(&self, device: &Device, descriptor: &Descriptor, ready_ns: u64) -> u64 {
        let end_ns = self.pass_link(descriptor, ready_ns);
        if !descriptor.local_is_host {
            return end_ns;
        }
        let kind = match descriptor.direction {
            Direction::Write => Kind::HostToDevice,
            Direction::Read => Kind::DeviceToHost,
        };
        self.pass_host(kind, device, descriptor.length, ready_ns).max(end_ns)
    }

    fn pass_link(&self, descriptor: &Descriptor, ready_ns: u64) -> u64 {
        let Descriptor { kind, ends: (own, peer), direction, local_is_host, length } = *descriptor;
        let (link, way) = (self.link(kind), self.way(kind, direction));
        let (setup_ns, mb_s) = link.host.filter(|_| local_is_host).unwrap_or((way.setup_ns, way.mb_s));
        let stream_ns = self.scaled(setup_ns).saturating_add(self.bytes(length, mb_s));
        let (from, to) = if direction == Direction::Write { (own, peer) } else { (peer, own) };
        let ways: [Option<Resource>; 2] = match (link.wire, kind) {
            (Wire::Pair, _) => [self.ledger.resource(Kind::HccsPair, from, Some(to)), None],
            (Wire::Port, LinkKind::Hccs) => [
                self.ledger.resource(Kind::HccsOut, from, None),
                self.ledger.resource(Kind::HccsIn, to, None),
            ],
            (Wire::Port, LinkKind::Roce) => [
                self.ledger.resource(Kind::RoceOut, from, None),
                self.ledger.resource(Kind::RoceIn, to, None),
            ],
        };
        let wire_ns = self.bytes(length, link.wire_mb_s);
        let passed = ways.into_iter().flatten().map(|way| way.reserve(ready_ns, wire_ns)).max();
        ready_ns.saturating_add(stream_ns).max(passed.unwrap_or(0))
    }

    fn pass_host(&self, kind: Kind, device: &Device, length: usize, ready_ns: u64) -> u64 {
        let time_ns = self.bytes(length, self.profile.chip.host_mb_s);
        self.ledger
            .resource(kind, place(device), None)
            .map_or_else(|| ready_ns.saturating_add(time_ns), |link| link.reserve(ready_ns, time_ns))
    }

    /// The device copies from `ready_ns` on; answers when the bytes are there.
    pub fn copy(&self, device: &Device, target: &End, source: &End, length: usize, ready_ns: u64) -> u64 {
        match kind_of(device, target, source) {
            CopyKind::Inside => {
                let time_ns = self.bytes(length, self.profile.chip.copy_mb_s);
                self.ledger.resource(Kind::CopyEngine, place(device), None).map_or_else(
                    || ready_ns.saturating_add(time_ns),
                    |engine| engine.reserve(ready_ns, time_ns),
                )
            }
            CopyKind::Between { direction, ends } => self.pass_link(
                &Descriptor { kind: LinkKind::Hccs, ends, direction, local_is_host: false, length },
                ready_ns,
            ),
            CopyKind::ToDevice => self.pass_host(Kind::HostToDevice, device, length, ready_ns),
            CopyKind::ToHost => self.pass_host(Kind::DeviceToHost, device, length, ready_ns),
            CopyKind::Host => ready_ns,
        }
    }

    /// Machine time of one way of a message of the program.
    pub fn message(&self, length: usize) -> u64 {
        let chip = &self.profile.chip;
        self.scaled(chip.message_ns).saturating_add(self.bytes(length, chip.message_mb_s))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Ledger;
    use super::super::profile;
    use super::*;

    const PUBLISHED: &str = include_str!("../../cost/published.csv");
    /// The published runs moved this much.
    const RUN_BYTES: usize = 128 << 20;
    const CALL: usize = 256;
    /// How far a claimed cell may be off.
    const LIMIT: f64 = 0.15;

    fn costs(name: &str, slowdown: u64) -> Costs {
        let profile = profile::load(name, None).unwrap();
        Costs { profile, slowdown, launches_per_thread: false, ledger: Ledger::private() }
    }

    /// GB/s of one initiator over one stream, by the reservations alone.
    fn rate(costs: &Costs, descriptor: &Descriptor) -> f64 {
        let device = crate::device::by_user_id(0).unwrap();
        let (mut thread_ns, mut stream_ns) = (1_000, 0);
        let count = RUN_BYTES / descriptor.length;
        let launch_ns = costs.way(descriptor.kind, descriptor.direction).launch_ns;
        for first in (0..count).step_by(CALL) {
            let number = CALL.min(count - first);
            let launches = costs.launch(place(device), thread_ns, launch_ns, number);
            for index in 0..number {
                stream_ns = costs.descriptor(device, descriptor, launches.end_of(index).max(stream_ns));
            }
            thread_ns = launches.end_of(number - 1);
        }
        let model_ns = (stream_ns - 1_000) as f64 / costs.slowdown as f64;
        RUN_BYTES as f64 / model_ns
    }

    fn near() -> Ends {
        (Place::named("here", 0), Place::named("here", 1))
    }

    /// Facts 6: within 15 % of the published sweep in every cell that the model claims, and only in those.
    #[test]
    fn the_published_sweep_is_met() {
        let mut claimed = 0;
        let mut wrong = Vec::new();
        for line in PUBLISHED.lines().filter(|line| !line.starts_with('#')).skip(1) {
            let words: Vec<&str> = line.split(',').collect();
            let [name, link, local, block, put, get, put_remark, get_remark] = words[..] else {
                panic!("{line}")
            };
            for (direction, published, remark) in
                [(Direction::Write, put, put_remark), (Direction::Read, get, get_remark)]
            {
                let Ok(published) = published.parse::<f64>() else { continue };
                let kind = if link == "hccs" { LinkKind::Hccs } else { LinkKind::Roce };
                let length = block.parse().unwrap();
                let descriptor =
                    Descriptor { kind, ends: near(), direction, local_is_host: local == "host", length };
                let error = rate(&costs(name, 20), &descriptor) / published - 1.0;
                claimed += usize::from(remark.is_empty());
                if (error.abs() <= LIMIT) != remark.is_empty() {
                    wrong.push(format!("{line}: {direction:?} is off by {:.1} %", error * 100.0));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(claimed, 82);
    }

    #[test]
    fn the_slow_down_scales_everything() {
        let descriptor = Descriptor {
            kind: LinkKind::Roce,
            ends: near(),
            direction: Direction::Write,
            local_is_host: false,
            length: 65_536,
        };
        let (one, fifty) =
            (rate(&costs("a2-roce", 1), &descriptor), rate(&costs("a2-roce", 50), &descriptor));
        assert!((one / fifty - 1.0).abs() < 0.001, "{one} {fifty}");
        assert_eq!(costs("a2-roce", 10).message(0), 10 * costs("a2-roce", 1).message(0));
    }

    /// Facts 7.1, cost model: HCCS pairs of A2 are independent, a RoCE port is not, directions never meet.
    #[test]
    fn wires_are_shared_as_the_chip_shares_them() {
        let two = |name: &str, kind, second: Ends, directions: [Direction; 2]| {
            let costs = costs(name, 1);
            let device = crate::device::by_user_id(0).unwrap();
            let descriptor = |ends, direction| Descriptor {
                kind,
                ends,
                direction,
                local_is_host: false,
                length: 64 << 20,
            };
            let [one, other] = directions;
            let alone = costs.descriptor(device, &descriptor(near(), one), 0);
            costs.descriptor(device, &descriptor(second, other), 0) as f64 / alone as f64
        };
        let third = (Place::named("here", 0), Place::named("here", 2));
        let (write, read) = (Direction::Write, Direction::Read);
        assert!(two("a2-hccs", LinkKind::Hccs, third, [write, write]) < 1.1);
        assert!(two("a2-hccs", LinkKind::Hccs, near(), [write, write]) > 1.4);
        assert!(two("a2-roce", LinkKind::Roce, third, [write, write]) > 1.8);
        assert!(two("a2-roce", LinkKind::Roce, third, [write, read]) < 1.2);
        assert!(two("a3-hccs", LinkKind::Hccs, third, [write, write]) > 1.9);
        let back = (near().1, near().0);
        assert!(two("a3-roce", LinkKind::Roce, back, [write, read]) > 1.9); // both carry from the first to the second
    }

    #[test]
    fn launches_are_in_a_row_for_a_device_unless_threads_have_their_own() {
        let device = place(crate::device::by_user_id(0).unwrap());
        let mut costs = costs("a2-hccs", 1);
        assert_eq!(costs.launch(device, 100, 10, 3).end_of(2), 130);
        assert_eq!(costs.launch(device, 100, 10, 1).end_of(0), 140);
        costs.launches_per_thread = true;
        assert_eq!(costs.launch(device, 100, 10, 1).end_of(0), 110);
    }
}
