//! A plain client: one call at a time, its buffers kept.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use mooncake_wire::frame::{self, ResponseHeader};
use mooncake_wire::limits::MAX_RESPONSE_BODY_BYTES;
use mooncake_wire::{Method, Profile};

pub const PROFILE: Profile = Profile::V0_3_13;

pub struct Client {
    stream: TcpStream,
    out: Vec<u8>,
    body: Vec<u8>,
    sequence: u32,
}

impl Client {
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, out: Vec::new(), body: Vec::new(), sequence: 0 })
    }

    /// Sends a call that was written before, and reads its answer's body.
    pub fn exchange(&mut self, request: &[u8]) -> &[u8] {
        self.stream.write_all(request).expect("write");
        let mut header = [0; ResponseHeader::BYTES];
        self.stream.read_exact(&mut header).expect("read");
        let header = ResponseHeader::decode(&header, MAX_RESPONSE_BODY_BYTES).expect("header");
        assert_eq!(header.error, 0, "refused");
        self.body.resize(header.body_bytes as usize, 0);
        self.stream.read_exact(&mut self.body).expect("read");
        &self.body
    }

    pub fn call<'a, M: Method<'a>>(&mut self, method: &M) -> M::Reply {
        self.sequence += 1;
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        frame::request(&mut out, self.sequence, M::FUNCTION.id(), |body| {
            PROFILE.encode_request(method, body)
        })
        .expect("request");
        let reply = PROFILE.decode_reply::<M>(self.exchange(&out)).expect("reply");
        self.out = out;
        reply
    }
}
