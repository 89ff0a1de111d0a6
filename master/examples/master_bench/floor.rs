//! The floor: a server on the same kind of runtime that reads whole frames and answers as many bytes as it is asked for.
//!
//! The function id of a request says how long the body of its answer is. As in the master, each thread has its own event
//! loop, and a connection stays with the thread it was given to.

use mooncake_wire::frame::{RequestHeader, ResponseHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};

/// A thread that waits for readiness and answers; connections are spawned on it.
fn worker() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

pub fn run() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let workers: Vec<Handle> = (0..threads).map(|_| worker()).collect();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    println!("{}", listener.local_addr().expect("address"));
    for (stream, worker) in listener.incoming().zip(workers.iter().cycle()) {
        let stream = stream.expect("accept");
        stream.set_nodelay(true).expect("no delay");
        stream.set_nonblocking(true).expect("non-blocking");
        worker.spawn(async move { serve(TcpStream::from_std(stream).expect("stream")).await });
    }
}

async fn serve(mut stream: TcpStream) {
    let (mut input, mut output) = (Vec::new(), Vec::new());
    loop {
        input.reserve(16 << 10);
        if !matches!(stream.read_buf(&mut input).await, Ok(1..)) {
            return;
        }
        while let Some(header) = input.first_chunk::<{ RequestHeader::BYTES }>() {
            let header = RequestHeader::decode(header, u32::MAX).expect("header");
            let end = RequestHeader::BYTES + header.body_bytes as usize;
            if input.len() < end {
                break;
            }
            input.drain(..end);
            let body_bytes = header.function_id;
            let answer =
                ResponseHeader { error: 0, sequence: header.sequence, body_bytes, attachment_bytes: 0 };
            output.extend_from_slice(&answer.encode());
            output.resize(output.len() + body_bytes as usize, 0);
        }
        if !output.is_empty() && stream.write_all(&output).await.is_err() {
            return;
        }
        output.clear();
    }
}
