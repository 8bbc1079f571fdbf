//! The page: `GET /metrics` over HTTP/1.1, one answer a connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use prometheus::{Encoder, TextEncoder};

use super::collect;
use crate::switch::Switch;

/// A request's head is read up to here.
const HEAD_MAX: usize = 8192;
/// A client that neither asks nor listens is left alone after this.
const PATIENCE: Duration = Duration::from_secs(2);
/// Connections served at a time; more are closed.
const CONNECTIONS_MAX: usize = 16;

/// Serves the page at `address` on a thread of its own, as long as the process lives.
pub fn serve(switch: Arc<Switch>, address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot serve metrics on {address}; set `metrics` to a free address or to \"off\""))?;
    let open = Arc::new(AtomicUsize::new(0));
    let accept = move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                thread::sleep(Duration::from_millis(100)); // out of file descriptors, perhaps
                continue;
            };
            if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (switch, open_here) = (switch.clone(), open.clone());
            let spawned = thread::Builder::new().name("scrape".to_owned()).spawn(move || {
                let _ = answer(&switch, stream);
                open_here.fetch_sub(1, Ordering::Relaxed);
            });
            if spawned.is_err() {
                open.fetch_sub(1, Ordering::Relaxed);
            }
        }
    };
    thread::Builder::new().name("metrics".to_owned()).spawn(accept)?;
    Ok(())
}

fn answer(switch: &Switch, mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = read_head(&mut stream)?;
    let mut words = head.split(|&byte| byte == b' ' || byte == b'\r');
    let (method, path) = (words.next().unwrap_or(&[]), words.next().unwrap_or(&[]));
    let path = path.split(|&byte| byte == b'?').next().unwrap_or(&[]);
    let (status, body) = match (method, path) {
        (b"GET", b"/metrics") => ("200 OK", page(switch)),
        (b"GET", b"/") => ("200 OK", b"ringway: the metrics are at /metrics\n".to_vec()),
        (b"GET", _) => ("404 Not Found", b"not here: the metrics are at /metrics\n".to_vec()),
        _ => ("405 Method Not Allowed", b"only GET\n".to_vec()),
    };
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.into_bytes(), body].concat())
}

fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while head.len() < HEAD_MAX && !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk)? {
            0 => break,
            count => head.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(head)
}

fn page(switch: &Switch) -> Vec<u8> {
    let mut page = Vec::new();
    match TextEncoder::new().encode(&collect(switch), &mut page) {
        Ok(()) => page,
        Err(error) => format!("# {error}\n").into_bytes(),
    }
}
