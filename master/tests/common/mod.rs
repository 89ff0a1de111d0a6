//! What the tests share: a state with its clock, a plain client of the RPC, a master as a child process.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // each test file uses its part

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mooncake_master::metrics::Metrics;
use mooncake_master::moment::Moment;
use mooncake_master::policy::Policy;
use mooncake_master::state::{PutRequest, State};
use mooncake_wire::frame::{self, ResponseHeader};
use mooncake_wire::limits::MAX_RESPONSE_BODY_BYTES;
use mooncake_wire::model::{ObjectMeta, Placement, Replica, ReplicaType, ReplicateConfig, Segment, Uuid};
use mooncake_wire::{Method, Outcome, Profile, RpcError};

pub const MIB: u64 = 1 << 20;

pub fn uuid(number: u64) -> Uuid {
    Uuid { first: number, second: number }
}

pub fn segment(number: u64, name: &str, size: u64) -> Segment {
    Segment {
        id: uuid(number),
        name: name.to_owned(),
        base: 0x1_0000_0000 * (number + 1),
        size,
        te_endpoint: format!("10.0.0.{number}:12000"),
        protocol: "tcp".to_owned(),
        host_id: String::new(),
    }
}

/// A state without a journal.
pub fn state(policy: Policy) -> State {
    State::new(policy, None, Arc::new(Metrics::default()))
}

/// Puts an object whole.
pub fn put(
    state: &State,
    client: Uuid,
    key: &[u8],
    length: u64,
    config: &ReplicateConfig,
    now: Moment,
) -> Outcome<Vec<Replica>> {
    let replicas = state.put_start(&PutRequest { client, config, now }, key, length)?;
    state.put_end(client, &ObjectMeta { key, checksum: None }, ReplicaType::ALL, now)?;
    Ok(replicas)
}

/// Address and length of a replica in memory.
pub fn place(replica: &Replica) -> (u64, u64) {
    match &replica.placement {
        Placement::Memory(buffer) => (buffer.address, buffer.size),
        other => panic!("{other:?}"),
    }
}

/// A small generator with a seed: a failing case can be run again.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

/// A client that does one call at a time.
pub struct Client {
    pub stream: TcpStream,
    pub profile: Profile,
    sequence: u32,
}

impl Client {
    pub fn connect(address: SocketAddr, profile: Profile) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream, profile, sequence: 0 })
    }

    pub fn call<'a, M: Method<'a>>(&mut self, method: &M) -> Result<M::Reply, RpcError> {
        self.try_call(method).expect("connection")
    }

    /// The outer error is the connection's.
    pub fn try_call<'a, M: Method<'a>>(&mut self, method: &M) -> std::io::Result<Result<M::Reply, RpcError>> {
        self.sequence += 1;
        let mut out = Vec::new();
        let profile = self.profile;
        frame::request(&mut out, self.sequence, M::FUNCTION.id(), |body| {
            profile.encode_request(method, body)
        })
        .expect("request");
        self.stream.write_all(&out)?;
        let mut header = [0; ResponseHeader::BYTES];
        self.stream.read_exact(&mut header)?;
        let header = ResponseHeader::decode(&header, MAX_RESPONSE_BODY_BYTES).expect("header");
        assert_eq!(header.sequence, self.sequence);
        let mut body = vec![0; usize::try_from(header.body_bytes).expect("fits")];
        self.stream.read_exact(&mut body)?;
        if header.error != 0 {
            return Ok(Err(RpcError::decode(header.error, &body).expect("error body")));
        }
        Ok(Ok(profile.decode_reply::<M>(&body).expect("reply")))
    }
}

/// A master as a child process; killed when it is dropped.
pub struct Master {
    pub child: Child,
    pub rpc: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<parking_lot::Mutex<String>>,
}

impl Master {
    /// Starts a master on ports the system picks, and waits for its start line.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_on(0, flags)
    }

    pub fn start_on(port: u16, flags: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mooncake_master"));
        command.arg(format!("--rpc_port={port}"));
        command.args(["--port=0", "--metrics_port=0", "--rpc_address=127.0.0.1", "--metrics_host=127.0.0.1"]);
        Self::start_command(command.args(flags))
    }

    pub fn start_command(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("master");
        let log = Arc::new(parking_lot::Mutex::new(String::new()));
        let mut lines = BufReader::new(child.stderr.take().expect("stderr"));
        let (mut rpc, mut admin) = (None, None);
        let mut line = String::new();
        while lines.read_line(&mut line).expect("log") > 0 {
            let field = |name: &str| {
                line.split_whitespace()
                    .find_map(|word| word.strip_prefix(name)?.trim_end_matches(',').parse().ok())
            };
            if line.contains("Master service started") {
                (rpc, admin) = (field("rpc="), field("admin_and_metrics_http="));
            }
            log.lock().push_str(&line);
            line.clear();
            if rpc.is_some() {
                break;
            }
        }
        let (Some(rpc), Some(admin)) = (rpc, admin) else { panic!("no start line:\n{}", log.lock()) };
        let rest = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|count| count > 0) {
                rest.lock().push_str(&line);
                line.clear();
            }
        });
        Self { child, rpc, admin, log }
    }

    pub fn log(&self) -> String {
        self.log.lock().clone()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.rpc, Profile::V0_3_13).expect("connect")
    }

    /// Status and body of an HTTP request to the admin server.
    pub fn http(&self, request: &str) -> (u16, String) {
        http(self.admin, request, "")
    }

    /// Ends it as the kernel would: no handler runs.
    pub fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("kill");
        assert!(status.success());
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn http(address: SocketAddr, request: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let length = body.len();
    let text = format!(
        "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).expect("write");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("status");
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Waits, bounded, until something holds.
pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    assert!(mooncake_test_support::wait_until(Duration::from_secs(20), holds), "did not come: {what}");
}
