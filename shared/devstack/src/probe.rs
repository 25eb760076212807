//! Does a server answer? One question to each kind, without a client library.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Ready when the broker lists itself: then it is registered and takes requests. An error is the reason why not.
pub(crate) fn kafka(addr: SocketAddr) -> Result<(), String> {
    // Metadata, version 1, correlation id 1, no client id, no topics.
    const REQUEST: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
    let brokers = || -> io::Result<i32> {
        let mut stream = connect(addr)?;
        stream.write_all(&REQUEST)?;
        // Length and correlation id, then the number of brokers.
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(i32::from_be_bytes([answer[8], answer[9], answer[10], answer[11]]))
    };
    match brokers() {
        Ok(1..) => Ok(()),
        Ok(_) => Err("the broker is starting".to_owned()),
        Err(error) => Err(format!("no answer on {addr}: {error}")),
    }
}

/// Ready when the role herald is let into the database herald.
pub(crate) fn postgres(addr: SocketAddr) -> Result<(), String> {
    // A start-up packet: its length, protocol 3.0, pairs.
    const REQUEST: &[u8] = b"\0\0\0\x25\0\x03\0\0user\0herald\0database\0herald\0\0";
    let answer = || -> io::Result<(u8, Vec<u8>)> {
        let mut stream = connect(addr)?;
        stream.write_all(REQUEST)?;
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut body = Vec::new();
        (&mut stream).take(u64::from(length.saturating_sub(4))).read_to_end(&mut body)?;
        // Terminate: without it the server logs a lost connection. After an error it has hung up already.
        let _ = stream.write_all(b"X\0\0\0\x04");
        Ok((head[0], body))
    };
    match answer() {
        Ok((b'R', _)) => Ok(()),
        Ok((b'E', body)) => Err(postgres_message(&body)),
        Ok((kind, _)) => Err(format!("an unknown answer ({kind})")),
        Err(error) => Err(format!("no answer on {addr}: {error}")),
    }
}

/// The field `M` of an error: fields are a letter and a text that ends with NUL.
fn postgres_message(body: &[u8]) -> String {
    body.split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(b"M"))
        .map_or("refused".to_owned(), |text| String::from_utf8_lossy(text).into_owned())
}

/// Ready when `GET path` is answered with 200.
pub(crate) fn http(addr: SocketAddr, path: &str) -> Result<(), String> {
    let answer = || -> io::Result<String> {
        let mut stream = connect(addr)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(64 << 10).read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = answer().map_err(|error| format!("no answer on {addr}: {error}"))?;
    match answer.split_whitespace().nth(1) {
        Some("200") => Ok(()),
        Some(code) => {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            Err(format!("{path} answers {code}: {}", body.trim().chars().take(300).collect::<String>()))
        }
        None => Err(format!("no HTTP on {addr}")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn answering(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        addr
    }

    #[test]
    fn a_service_that_is_not_ready_says_why() {
        let addr = answering(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\n{\"no\":1}");
        assert_eq!(http(addr, "/readyz"), Err("/readyz answers 503: {\"no\":1}".to_owned()));
        assert_eq!(http(answering(b"HTTP/1.1 200 OK\r\n\r\n"), "/readyz"), Ok(()));
    }

    #[test]
    fn a_starting_postgres_says_so() {
        let addr = answering(b"E\0\0\0\x26SFATAL\0C57P03\0Mstill starting up\0\0");
        assert_eq!(postgres(addr), Err("still starting up".to_owned()));
        assert_eq!(postgres(answering(b"R\0\0\0\x08\0\0\0\0")), Ok(()));
    }

    #[test]
    fn a_broker_that_lists_nobody_is_starting() {
        let addr = answering(b"\0\0\0\x10\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(kafka(addr), Err("the broker is starting".to_owned()));
    }
}
