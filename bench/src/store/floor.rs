//! The floor of the exist cells: requests and answers of that size between two processes, with nothing done between.
//! Both ends sleep in the kernel until bytes come, as a client does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Cell, Contender, Measured, Operation};

/// Bytes of a request for one key, and of its answer.
const REQUEST_BYTES: usize = 48;
const ANSWER_BYTES: usize = 22;

/// Serves requests on a thread of the calling process; gives the port.
///
/// # Errors
/// When no port is free.
pub fn serve() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    Ok(port)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; REQUEST_BYTES];
    loop {
        stream.read_exact(&mut request)?;
        stream.write_all(&[1; ANSWER_BYTES])?;
    }
}

/// The calling end.
pub struct Floor {
    stream: TcpStream,
}

impl Floor {
    /// Connects to the serving process.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn new(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }
}

impl Contender for Floor {
    fn name(&self) -> &'static str {
        "ping_pong"
    }

    fn takes(&self, cell: &Cell) -> bool {
        cell.operation == Operation::Exist && cell.batch == 1
    }

    fn run(&mut self, _cell: &Cell, _name: &str, limit: Duration) -> Result<Measured> {
        let mut calls = Vec::new();
        let mut answer = [0; ANSWER_BYTES];
        let start = Instant::now();
        while start.elapsed() < limit {
            let begun = Instant::now();
            self.stream.write_all(&[7; REQUEST_BYTES])?;
            self.stream.read_exact(&mut answer)?;
            calls.push(begun.elapsed());
        }
        Ok(Measured { calls, elapsed: start.elapsed(), processor: Duration::ZERO })
    }

    fn clear(&mut self) -> Result<()> {
        Ok(())
    }

    fn close(&mut self) -> Result<Option<(Duration, Duration)>> {
        Ok(None)
    }
}
