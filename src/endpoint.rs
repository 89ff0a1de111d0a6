//! Who a peer is: the address it is named by, and the process that stands behind the name.
//!
//! [`Endpoint`] is the only place where address text is taken apart or put together. [`Incarnation`] tells
//! one process from the next that answers at the same address.
//!
//! Invariants: printing an endpoint and parsing it again gives the same endpoint; a host is never empty and
//! never holds a bracket, white space or a slash; two incarnations are equal only if they are one engine.

use std::fmt;
use std::fmt::Write as _;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::deadline::Deadline;
use crate::error::{Code, Error, Result, Stage};

/// Longest host name taken; DNS allows 253 characters, an IPv6 address with a zone is shorter.
pub const MAX_HOST_BYTES: usize = 255;

/// Longest boot id taken from a peer; the kernel's has 36 characters.
pub const MAX_BOOT_ID_BYTES: usize = 128;

/// Name look-ups that may be under way at once in one process; the resolver of libc cannot be interrupted,
/// so a look-up that outlives its deadline keeps its thread until the resolver gives up.
pub const MAX_LOOKUPS: usize = 64;

/// What people write before a device number in a server name (`host:port:npu_3`).
const NPU_PREFIX: &str = ":npu_";

/// A host, and where given a port and a physical NPU number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// Host name, IPv4 address, or IPv6 address without brackets (a `%zone` may follow).
    pub host: String,
    /// TCP port, when one was written.
    pub port: Option<u16>,
    /// Physical device number of `:npu_N`, when one was written.
    pub npu: Option<u32>,
}

impl Endpoint {
    /// An endpoint from parts.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] when `host` could not have been parsed.
    pub fn new(host: &str, port: Option<u16>) -> Result<Self> {
        check_host(host, host)?;
        Ok(Self { host: host.to_owned(), port, npu: None })
    }

    /// Whether the host is an IPv6 address.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.host.contains(':')
    }

    /// The form that names a segment: `host:port` or `[v6]:port`, without the device; the bare host when
    /// there is no port.
    #[must_use]
    pub fn session(&self) -> String {
        let mut text = String::with_capacity(self.host.len().saturating_add(8));
        match self.port {
            Some(port) if self.is_ipv6() => {
                let _ = write!(text, "[{}]:{port}", self.host);
            }
            Some(port) => {
                let _ = write!(text, "{}:{port}", self.host);
            }
            None => text.push_str(&self.host),
        }
        text
    }

    /// The same host with another port and no device.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port: Some(port), npu: None }
    }

    /// All addresses of the host, in the resolver's order. Blocks as long as the system's resolver does;
    /// [`Endpoint::resolve_by`] keeps a deadline.
    ///
    /// # Errors
    /// [`Code::Dns`] when the host has no address, [`Code::InvalidArgument`] when the port is 0.
    pub fn resolve(&self, default_port: u16) -> Result<Vec<SocketAddr>> {
        let port = self.port.unwrap_or(default_port);
        if port == 0 {
            return Err(Error::new(Code::InvalidArgument, Stage::Resolve, "port 0 cannot be connected to")
                .peer(self.to_string()));
        }
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        self.look_up(port)
    }

    /// As [`Endpoint::resolve`], but gives up at `deadline`.
    ///
    /// # Errors
    /// As [`Endpoint::resolve`], and [`Code::Timeout`] or [`Code::TooManyRequests`].
    pub fn resolve_by(&self, default_port: u16, deadline: Deadline) -> Result<Vec<SocketAddr>> {
        if self.host.parse::<IpAddr>().is_ok() || self.port.unwrap_or(default_port) == 0 {
            return self.resolve(default_port);
        }
        let failed = |code, text: String| Err(Error::new(code, Stage::Resolve, text).peer(self.to_string()));
        let Some(slot) = LookupSlot::take() else {
            return failed(
                Code::TooManyRequests,
                format!("{MAX_LOOKUPS} name look-ups are under way already; the name server does not answer"),
            );
        };
        let (sender, receiver) = mpsc::sync_channel(1);
        let endpoint = self.clone();
        let spawned = std::thread::Builder::new().name("mct-resolve".into()).spawn(move || {
            let _slot = slot;
            // The receiver may have given up; then nobody wants the answer.
            let _ = sender.send(endpoint.resolve(default_port));
        });
        if let Err(error) = spawned {
            return failed(Code::Internal, format!("no thread for a name look-up: {error}"));
        }
        match receiver.recv_timeout(deadline.remaining()) {
            Ok(answer) => answer,
            Err(_) => failed(Code::Timeout, format!("host name {} did not resolve in time", self.host)),
        }
    }

    fn look_up(&self, port: u16) -> Result<Vec<SocketAddr>> {
        let failed = |text: String| {
            Error::new(Code::Dns, Stage::Resolve, text)
                .peer(self.to_string())
                .advice("check the name, /etc/hosts and /etc/resolv.conf on this machine")
        };
        let addresses: Vec<SocketAddr> = (self.host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| failed(format!("host name {} did not resolve: {error}", self.host)))?
            .collect();
        if addresses.is_empty() {
            return Err(failed(format!("host name {} has no address", self.host)));
        }
        Ok(addresses)
    }
}

/// A place among the look-ups under way.
struct LookupSlot;

static LOOKUPS: AtomicUsize = AtomicUsize::new(0);

impl LookupSlot {
    fn take() -> Option<Self> {
        LOOKUPS
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < MAX_LOOKUPS).then(|| count.saturating_add(1))
            })
            .ok()
            .map(|_| Self)
    }
}

impl Drop for LookupSlot {
    fn drop(&mut self) {
        LOOKUPS.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            // Brackets keep a bare address apart from the suffix that follows it.
            None if self.npu.is_some() && self.is_ipv6() => write!(f, "[{}]", self.host)?,
            _ => f.write_str(&self.session())?,
        }
        match self.npu {
            Some(npu) => write!(f, "{NPU_PREFIX}{npu}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (address, npu) = match text.rsplit_once(NPU_PREFIX) {
            Some((address, digits)) => (address, Some(parse_digits::<u32>(digits, text, "NPU number")?)),
            None => (text, None),
        };
        let (host, port) = if let Some(rest) = address.strip_prefix('[') {
            let Some((host, rest)) = rest.split_once(']') else {
                return Err(malformed(text, "the opening bracket is not closed"));
            };
            if !host.contains(':') {
                return Err(malformed(text, "brackets are for IPv6 addresses"));
            }
            match rest.strip_prefix(':') {
                Some(digits) => (host, Some(parse_digits::<u16>(digits, text, "port")?)),
                None if rest.is_empty() => (host, None),
                None => return Err(malformed(text, "only :port may follow the closing bracket")),
            }
        } else {
            match address.split_once(':') {
                None => (address, None),
                Some((_, rest)) if rest.contains(':') => (address, None),
                Some((host, digits)) => (host, Some(parse_digits::<u16>(digits, text, "port")?)),
            }
        };
        check_host(host, text)?;
        Ok(Self { host: host.to_owned(), port, npu })
    }
}

fn malformed(text: &str, why: &str) -> Error {
    let shown: String = text.chars().take(MAX_HOST_BYTES).collect();
    Error::new(Code::InvalidArgument, Stage::Configure, format!("{shown:?} is no endpoint: {why}"))
        .advice("accepted forms: host, host:port, [v6], [v6]:port, v6, each with :npu_N")
}

/// Digits only: no sign, no space, as `parse` would allow a leading plus.
fn parse_digits<T: FromStr>(digits: &str, text: &str, what: &str) -> Result<T> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed(text, &format!("the {what} is no decimal number")));
    }
    digits.parse().map_err(|_| malformed(text, &format!("the {what} is out of range")))
}

fn check_host(host: &str, text: &str) -> Result<()> {
    if host.is_empty() {
        return Err(malformed(text, "the host is empty"));
    }
    if host.len() > MAX_HOST_BYTES {
        return Err(malformed(text, "the host is too long"));
    }
    if host.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '[' | ']' | '/')) {
        return Err(malformed(text, "the host holds a character that no host name has"));
    }
    if host.contains(':') {
        let (address, zone) = host.split_once('%').unwrap_or((host, "0"));
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(malformed(text, "more than one colon, but no IPv6 address"));
        }
        if zone.is_empty() || zone.contains([':', '%']) {
            return Err(malformed(text, "the zone after % is no interface"));
        }
    }
    Ok(())
}

/// One engine in one process on one boot of one machine.
///
/// The random number alone decides equality in practice; process and boot help to tell "same host" and to
/// write messages a person understands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation {
    /// Random, made when the engine is created. On the wire 32 hexadecimal digits.
    #[serde(serialize_with = "serialize_id", deserialize_with = "deserialize_id")]
    pub id: u128,
    /// Process id, in the publisher's own name space.
    pub pid: u32,
    /// Boot id of the machine (or container, when the setting says so).
    #[serde(rename = "boot", deserialize_with = "deserialize_boot_id")]
    pub boot_id: String,
}

impl Incarnation {
    /// A new identity for an engine of this process.
    ///
    /// `boot_id` is `Config::boot_id` and overrides the kernel's; empty or too long is as not given.
    ///
    /// # Errors
    /// [`Code::Internal`] when the kernel gives no random numbers: an identity that may not be unique is worse
    /// than none.
    pub fn new(boot_id: Option<&str>) -> Result<Self> {
        Ok(Self {
            id: u128::from_le_bytes(random_bytes()?),
            pid: std::process::id(),
            boot_id: boot_id
                .filter(|text| !text.is_empty() && text.len() <= MAX_BOOT_ID_BYTES)
                .map_or_else(kernel_boot_id, str::to_owned),
        })
    }

    /// The random number as it is written: 32 hexadecimal digits.
    #[must_use]
    pub fn hex(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// Whether both run on the same boot of the same machine, as far as their word goes. Access to memory
    /// needs a proof; this is only a reason to try one.
    #[must_use]
    pub fn same_boot(&self, other: &Self) -> bool {
        !self.boot_id.is_empty() && self.boot_id == other.boot_id
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x} (pid {})", self.id, self.pid)
    }
}

/// `N` bytes from the kernel's random source.
///
/// # Errors
/// [`Code::Internal`] when the source cannot be read.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).map_err(
        |error| Error::new(Code::Internal, Stage::Configure, format!("cannot read /dev/urandom: {error}")),
    )?;
    Ok(bytes)
}

fn kernel_boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

fn serialize_id<S: Serializer>(id: &u128, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:032x}"))
}

fn deserialize_id<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<u128, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(serde::de::Error::custom("an incarnation is 32 hexadecimal digits"));
    }
    u128::from_str_radix(&text, 16).map_err(serde::de::Error::custom)
}

fn deserialize_boot_id<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.len() > MAX_BOOT_ID_BYTES {
        return Err(serde::de::Error::custom("the boot id is too long"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, Option<u16>, Option<u32>) {
        let endpoint: Endpoint = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        (endpoint.host, endpoint.port, endpoint.npu)
    }

    #[test]
    fn every_written_form_is_understood() {
        assert_eq!(parsed("node1"), ("node1".into(), None, None));
        assert_eq!(parsed("node1:12001"), ("node1".into(), Some(12001), None));
        assert_eq!(parsed("10.0.0.7:15003:npu_5"), ("10.0.0.7".into(), Some(15003), Some(5)));
        assert_eq!(parsed("node1:npu_5"), ("node1".into(), None, Some(5)));
        assert_eq!(parsed("[2605:340::1]:340"), ("2605:340::1".into(), Some(340), None));
        assert_eq!(parsed("[::1]"), ("::1".into(), None, None));
        assert_eq!(parsed("2605:340:cd51::1"), ("2605:340:cd51::1".into(), None, None));
        assert_eq!(parsed("::1:npu_2"), ("::1".into(), None, Some(2)));
        assert_eq!(parsed("[fe80::1%eth0]:9:npu_0"), ("fe80::1%eth0".into(), Some(9), Some(0)));
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            ":",
            ":80",
            "h:",
            "h:x",
            "h:70000",
            "h:+80",
            "h:-1",
            "h: 80",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[h]:1",
            "[]:1",
            "a:b:c",
            "h:1:2",
            "h:1:npu_",
            "h:1:npu_x",
            "h:1:npu_99999999999",
            "a b",
            "a/b",
            "a]b",
            "a\n",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?} was taken");
        }
        let long = "h".repeat(MAX_HOST_BYTES + 1);
        assert!(long.parse::<Endpoint>().is_err());
    }

    #[test]
    fn session_names_no_device_and_brackets_ipv6() {
        let session = |text: &str| text.parse::<Endpoint>().unwrap().session();
        assert_eq!(session("h:5:npu_1"), "h:5");
        assert_eq!(session("[::1]:5:npu_1"), "[::1]:5");
        assert_eq!(session("::1"), "::1");
    }

    #[test]
    fn literals_resolve_without_a_name_server() {
        let endpoint: Endpoint = "[::1]:7".parse().unwrap();
        assert_eq!(endpoint.resolve(1).unwrap(), ["[::1]:7".parse().unwrap()]);
        let endpoint: Endpoint = "127.0.0.1".parse().unwrap();
        assert_eq!(endpoint.resolve(12001).unwrap(), ["127.0.0.1:12001".parse().unwrap()]);
        let zero: Endpoint = "127.0.0.1:0".parse().unwrap();
        assert_eq!(zero.resolve(1).unwrap_err().code(), Code::InvalidArgument);
    }

    #[test]
    fn a_lookup_keeps_its_deadline() {
        let endpoint: Endpoint = "localhost:9".parse().unwrap();
        assert!(
            !endpoint.resolve_by(9, Deadline::after(std::time::Duration::from_secs(20))).unwrap().is_empty()
        );
        let error = "no-such-host.invalid:9"
            .parse::<Endpoint>()
            .unwrap()
            .resolve_by(9, Deadline::after(std::time::Duration::ZERO))
            .unwrap_err();
        assert!(matches!(error.code(), Code::Timeout | Code::Dns), "{error}");
    }

    #[test]
    fn incarnations_differ_and_survive_json() {
        let (one, two) = (Incarnation::new(None).unwrap(), Incarnation::new(Some("box")).unwrap());
        assert_ne!(one, two);
        assert_eq!(two.boot_id, "box");
        let text = serde_json::to_string(&one).unwrap();
        assert!(text.contains(&format!("\"id\":\"{}\"", one.hex())), "{text}");
        assert_eq!(serde_json::from_str::<Incarnation>(&text).unwrap(), one);
        for bad in ["\"id\":\"12\"", "\"id\":5", "\"id\":\"+0000000000000000000000000000001\""] {
            let text = format!("{{{bad},\"pid\":1,\"boot\":\"\"}}");
            assert!(serde_json::from_str::<Incarnation>(&text).is_err(), "{text}");
        }
    }
}
