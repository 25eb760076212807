//! Ports of this machine: free, taken, or in nobody's way.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};

/// Where test servers listen: below the range systems draw the ports of outgoing connections from (32768 on Linux, 49152 on
/// macOS), so that nothing takes a server's port while it is down.
const FIRST: u16 = 20_000;
const LAST: u16 = 30_000;

/// Distinct ports of 127.0.0.1 that nothing listens on now, and that no outgoing connection takes later.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    /// Nobody is given a port that another test of this process was given and hasn't bound yet.
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let span = LAST - FIRST;
    // Processes begin to look at different places, so that two of them rarely meet.
    let start = process::id().wrapping_mul(97);
    let mut held = Vec::with_capacity(N);
    for _ in 0..span {
        let step = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + u16::try_from(start.wrapping_add(step) % u32::from(span))?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
        if held.len() == N {
            return Ok(std::array::from_fn(|n| held[n].0));
        }
    }
    bail!("no {N} ports are free between {FIRST} and {LAST}");
}

/// Fails when something listens there; `variable` is the setting that chooses another port.
pub(crate) fn check_free(addr: SocketAddr, variable: &str) -> Result<()> {
    // Binding alone isn't enough: macOS lets a second program bind 127.0.0.1 beside one that has 0.0.0.0.
    let answers = TcpStream::connect_timeout(&reachable(addr), Duration::from_secs(1)).is_ok();
    if answers || TcpListener::bind(addr).is_err() {
        bail!("port {} ({variable}) is taken by another process", addr.port());
    }
    Ok(())
}

/// Fails when two settings name the same port.
pub(crate) fn check_distinct(ports: &[(SocketAddr, &str)]) -> Result<()> {
    for (index, (addr, variable)) in ports.iter().enumerate() {
        if let Some((_, other)) = ports[..index].iter().find(|(other, _)| other.port() == addr.port()) {
            bail!("{other} and {variable} both name port {}", addr.port());
        }
    }
    Ok(())
}

/// Where a client on this machine reaches what listens on `addr`.
pub(crate) fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip().is_unspecified() {
        true => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), addr.port()),
        false => addr,
    }
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_variable() {
        let listener = TcpListener::bind(local(0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let error = check_free(addr, "HERALD_LOCAL_PG_PORT").unwrap_err().to_string();
        let port = addr.port();
        assert_eq!(error, format!("port {port} (HERALD_LOCAL_PG_PORT) is taken by another process"));
    }

    #[test]
    fn two_settings_with_one_port_are_both_named() {
        let error = check_distinct(&[(local(1), "A"), (local(2), "B"), (local(1), "C")]).unwrap_err();
        assert_eq!(error.to_string(), "A and C both name port 1");
    }

    #[test]
    fn free_ports_are_free_and_distinct() {
        let ports = free_ports::<3>().unwrap();
        assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2]);
        for port in ports {
            check_free(local(port), "").unwrap();
        }
    }

    #[test]
    fn a_server_on_every_address_is_reached_on_loopback() {
        assert_eq!(reachable("0.0.0.0:9464".parse().unwrap()), local(9464));
        assert_eq!(reachable("10.0.0.1:9464".parse().unwrap()).to_string(), "10.0.0.1:9464");
    }
}
