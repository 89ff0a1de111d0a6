//! The floor: a server on the same runtime that reads whole frames and answers as many bytes as it is asked for.
//!
//! The function id of a request says how long the body of its answer is.

use mooncake_wire::frame::{RequestHeader, ResponseHeader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub fn run() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
        println!("{}", listener.local_addr().expect("address"));
        loop {
            let (mut stream, _) = listener.accept().await.expect("accept");
            stream.set_nodelay(true).expect("no delay");
            tokio::spawn(async move {
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
                        let answer = ResponseHeader {
                            error: 0,
                            sequence: header.sequence,
                            body_bytes,
                            attachment_bytes: 0,
                        };
                        output.extend_from_slice(&answer.encode());
                        output.resize(output.len() + body_bytes as usize, 0);
                    }
                    if !output.is_empty() && stream.write_all(&output).await.is_err() {
                        return;
                    }
                    output.clear();
                }
            });
        }
    });
}
