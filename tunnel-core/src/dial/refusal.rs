//! From errors of the system to refusals.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use tunnel_proto::RefusalKind;

/// Kinds in the order in which one speaks for a target all of whose addresses failed: first what a host has said, then
/// what may pass, then what will not.
const TELLING: [RefusalKind; 6] = [
    RefusalKind::ConnectionRefused,
    RefusalKind::ConnectionTimeout,
    RefusalKind::ConnectionTerminated,
    RefusalKind::DestinationUnavailable,
    RefusalKind::DestinationIpProhibited,
    RefusalKind::DestinationIpUnroutable,
];

/// What to say when every address failed.
pub(super) fn of_failures(failures: &[(SocketAddr, io::Error)]) -> (RefusalKind, String) {
    let rank = |error: &io::Error| {
        let kind = kind_of_tcp(error);
        TELLING.iter().position(|other| *other == kind).unwrap_or(TELLING.len())
    };
    let Some((addr, error)) = failures.iter().min_by_key(|(_, error)| rank(error)) else {
        return (RefusalKind::DnsError, "there is no address to dial".to_owned());
    };
    let others = match failures.len() - 1 {
        0 => String::new(),
        1 => ", and another address failed".to_owned(),
        others => format!(", and {others} other addresses failed"),
    };
    (kind_of_tcp(error), format!("{addr}: {error}{others}"))
}

/// What to say when the time was over.
pub(super) fn of_timeout(addrs: &[SocketAddr], failures: &[(SocketAddr, io::Error)], limit: Duration) -> String {
    let silent = addrs
        .iter()
        .find(|addr| failures.iter().all(|(failed, _)| failed != *addr));
    match silent {
        Some(addr) => format!("{addr} did not answer within {limit:?}"),
        None => format!("it did not answer within {limit:?}"),
    }
}

/// The kind of a failure to connect by TCP.
fn kind_of_tcp(error: &io::Error) -> RefusalKind {
    match error.kind() {
        ErrorKind::ConnectionRefused => RefusalKind::ConnectionRefused,
        ErrorKind::TimedOut => RefusalKind::ConnectionTimeout,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::Unsupported => {
            RefusalKind::DestinationIpUnroutable
        }
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => RefusalKind::ConnectionTerminated,
        // A packet filter of the agent's machine says so.
        ErrorKind::PermissionDenied => RefusalKind::DestinationIpProhibited,
        // No file descriptor, memory or local port is left, or something else that is no word of the target.
        _ => RefusalKind::DestinationUnavailable,
    }
}

/// The kind of a failure to connect to a Unix socket.
pub(super) fn kind_of_unix(error: &io::Error) -> RefusalKind {
    match error.kind() {
        ErrorKind::NotFound => RefusalKind::DestinationNotFound,
        ErrorKind::ConnectionRefused => RefusalKind::ConnectionRefused,
        // The agent's user may not use the socket.
        ErrorKind::PermissionDenied => RefusalKind::ProxyConfigurationError,
        _ => RefusalKind::DestinationUnavailable,
    }
}
