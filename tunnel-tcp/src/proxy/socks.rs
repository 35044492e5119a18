//! SOCKS 5 (RFC 1928) with user name and password (RFC 1929).

use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tunnel_core::{Host, HostPort};

use super::{Credentials, Failure};

const VERSION: u8 = 5;
/// The version of the sub-negotiation (RFC 1929 §2).
const LOGIN_VERSION: u8 = 1;

/// Ways to authenticate (RFC 1928 §3).
const NO_AUTHENTICATION: u8 = 0;
const LOGIN: u8 = 2;
const NONE_ACCEPTABLE: u8 = 0xff;

const CONNECT: u8 = 1;

/// Types of addresses (RFC 1928 §5).
const IPV4: u8 = 1;
const DOMAIN: u8 = 3;
const IPV6: u8 = 4;

/// Why there is no connection, and whether another address of the server may do better.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    pub(crate) try_next: bool,
}

/// What a proxy is asked to connect to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destination<'a> {
    /// The server by the name that it was given.
    Named(&'a HostPort),
    /// An address of the server.
    Address(IpAddr, u16),
}

/// Asks a proxy to connect to a server, after which the pipe is one to that server. The caller bounds the time.
pub(crate) async fn socks<S>(
    io: &mut S,
    destination: Destination<'_>,
    credentials: Option<&Credentials>,
) -> Result<(), Refused>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    agree_on_method(io, credentials).await?;
    io.write_all(&request(destination)).await?;
    io.flush().await?;
    let [version, reply, _reserved, kind] = read(io).await?;
    if version != VERSION {
        return Err(not_socks(version).into());
    }
    if reply != 0 {
        return Err(refused(reply));
    }
    skip_bound_address(io, kind).await
}

/// Agrees on a way to authenticate and does it.
async fn agree_on_method<S>(io: &mut S, credentials: Option<&Credentials>) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let offer: &[u8] = match credentials {
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, LOGIN],
        None => &[VERSION, 1, NO_AUTHENTICATION],
    };
    io.write_all(offer).await?;
    io.flush().await?;
    let [version, method] = read(io).await?;
    match (version, method, credentials) {
        (VERSION, NO_AUTHENTICATION, _) => Ok(()),
        (VERSION, LOGIN, Some(credentials)) => log_in(io, credentials).await,
        (VERSION, NONE_ACCEPTABLE, Some(_)) => Err(Failure::lasting("accepts no user name and password")),
        (VERSION, NONE_ACCEPTABLE, None) => Err(Failure::lasting(
            "wants to know who asks; give a user name and password in its URL",
        )),
        (VERSION, method, _) => Err(Failure::temporary(format!(
            "chose a way to authenticate that was not offered ({method})"
        ))),
        (version, ..) => Err(not_socks(version)),
    }
}

async fn log_in<S>(io: &mut S, credentials: &Credentials) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut login = vec![LOGIN_VERSION];
    push_counted(&mut login, &credentials.user);
    push_counted(&mut login, &credentials.password);
    io.write_all(&login).await?;
    io.flush().await?;
    // Some proxies answer with another version, so only the status is looked at.
    let [_version, status] = read(io).await?;
    if status == 0 {
        Ok(())
    } else {
        Err(Failure::lasting(
            "does not accept the user name and password of its URL",
        ))
    }
}

fn request(destination: Destination<'_>) -> Vec<u8> {
    let mut request = vec![VERSION, CONNECT, 0];
    let port = match destination {
        Destination::Address(ip, port) => {
            push_address(&mut request, ip);
            port
        }
        Destination::Named(server) => {
            match server.host() {
                Host::Ip(ip) => push_address(&mut request, *ip),
                name => {
                    request.push(DOMAIN);
                    push_counted(&mut request, name.to_string().as_bytes());
                }
            }
            server.port()
        }
    };
    request.extend(port.to_be_bytes());
    request
}

fn push_address(request: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => {
            request.push(IPV4);
            request.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            request.push(IPV6);
            request.extend(ip.octets());
        }
    }
}

/// Adds a byte for the length and as much of `bytes` as it can count, which is all of any name and credential.
fn push_counted(message: &mut Vec<u8>, bytes: &[u8]) {
    let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    message.push(len);
    message.extend(&bytes[..usize::from(len)]);
}

/// Reads past the address from which the proxy connects, which matters to nobody here.
async fn skip_bound_address(io: &mut (impl AsyncRead + Unpin), kind: u8) -> Result<(), Refused> {
    let len = match kind {
        IPV4 => 4,
        IPV6 => 16,
        DOMAIN => usize::from(read::<1>(io).await?[0]),
        _ => {
            let explanation = format!("answered with an address of an unknown type ({kind})");
            return Err(Failure::temporary(explanation).into());
        }
    };
    let mut rest = vec![0; len + size_of::<u16>()];
    io.read_exact(&mut rest).await?;
    Ok(())
}

/// The reply codes of RFC 1928 §6 in words.
fn refused(reply: u8) -> Refused {
    // Whether it is about the address that was asked for.
    let (words, try_next) = match reply {
        1 => ("it had a general failure", true),
        2 => ("its rules do not allow the connection", false),
        3 => ("the network is unreachable", true),
        4 => ("the host is unreachable", true),
        5 => ("the server refused the connection", true),
        6 => ("the time to live expired", true),
        7 => ("it does not support CONNECT", false),
        8 => ("it does not support this type of address", true),
        _ => ("it does not say why", false),
    };
    Refused {
        failure: Failure::temporary(format!("refused to connect: {words} (reply {reply})")),
        try_next,
    }
}

fn not_socks(first: u8) -> Failure {
    Failure::temporary(match first {
        b'H' => "does not speak SOCKS 5: it is a HTTP server, perhaps a http:// proxy",
        4 | 0 => "speaks SOCKS 4, and this side SOCKS 5 alone",
        _ => "does not speak SOCKS 5",
    })
}

async fn read<const N: usize>(io: &mut (impl AsyncRead + Unpin)) -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    io.read_exact(&mut bytes).await?;
    Ok(bytes)
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            try_next: false,
        }
    }
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Failure::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;

    const CONNECTED: &[u8] = &[5, 0, 0, IPV4, 0, 0, 0, 0, 0, 0];

    fn credentials() -> Credentials {
        Credentials {
            user: b"me".to_vec(),
            password: b"hunter2".to_vec(),
        }
    }

    fn server(text: &str) -> HostPort {
        text.parse().unwrap()
    }

    /// Talks to a proxy that says all of this at once; gives what it was told and what is left of its words.
    async fn run(
        says: &[u8],
        destination: Destination<'_>,
        credentials: Option<&Credentials>,
    ) -> (Result<(), Refused>, Vec<u8>, Vec<u8>) {
        let (mut near, mut far) = duplex(64 * 1024);
        far.write_all(says).await.unwrap();
        far.shutdown().await.unwrap();
        let result = socks(&mut near, destination, credentials).await;
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        drop(near);
        let mut told = Vec::new();
        far.read_to_end(&mut told).await.unwrap();
        (result, told, rest)
    }

    async fn explanation(says: &[u8], credentials: Option<&Credentials>) -> Failure {
        let server = server("gw.example:443");
        let (result, ..) = run(says, Destination::Named(&server), credentials).await;
        result.unwrap_err().failure
    }

    #[tokio::test]
    async fn names_and_addresses_are_asked_for() {
        let name = server("gw.example:443");
        let v6 = server("[2001:db8::7]:443");
        let with_name = [&[5, 1, 0, 3, 10], b"gw.example".as_slice(), &[1, 187]].concat();
        let with_v4 = vec![5, 1, 0, 1, 192, 0, 2, 7, 1, 187];
        let with_v6 = [&[5, 1, 0, 4, 0x20, 1, 0xd, 0xb8], [0; 11].as_slice(), &[7, 1, 187]].concat();
        for (destination, expected) in [
            (Destination::Named(&name), with_name),
            (Destination::Address([192, 0, 2, 7].into(), 443), with_v4),
            (Destination::Named(&v6), with_v6),
        ] {
            let says = [&[5, 0], CONNECTED].concat();
            let (result, told, rest) = run(&says, destination, None).await;
            assert_eq!(result, Ok(()));
            assert_eq!(told, [&[5, 1, 0], expected.as_slice()].concat());
            assert_eq!(rest, b"");
        }
    }

    #[tokio::test]
    async fn exactly_the_answer_is_read() {
        let server = server("gw.example:443");
        let v6 = [&[5, 0, 0, IPV6], [0; 18].as_slice()].concat();
        let domain = [&[5, 0, 0, DOMAIN, 3], b"abc".as_slice(), &[0, 0]].concat();
        for answer in [CONNECTED, &v6, &domain] {
            let says = [&[5, 0], answer, b"the server's"].concat();
            let (result, _, rest) = run(&says, Destination::Named(&server), None).await;
            assert_eq!((result, rest.as_slice()), (Ok(()), b"the server's".as_slice()));
        }
    }

    #[tokio::test]
    async fn a_proxy_that_asks_is_told_who_asks() {
        let server = server("gw.example:443");
        let credentials = credentials();
        let says = [&[5, 2, 1, 0], CONNECTED].concat();
        let (result, told, _) = run(&says, Destination::Named(&server), Some(&credentials)).await;
        assert_eq!(result, Ok(()));
        assert!(
            told.starts_with(b"\x05\x02\x00\x02\x01\x02me\x07hunter2\x05\x01"),
            "{told:?}"
        );
        // One that does not ask is not told.
        let (result, told, _) = run(
            &[&[5, 0], CONNECTED].concat(),
            Destination::Named(&server),
            Some(&credentials),
        )
        .await;
        assert_eq!(result, Ok(()));
        assert!(told.starts_with(b"\x05\x02\x00\x02\x05\x01"), "{told:?}");
    }

    #[tokio::test]
    async fn missing_and_wrong_credentials_are_told_apart() {
        let credentials = credentials();
        let missing = explanation(&[5, 0xff], None).await;
        assert!(
            missing
                .explanation
                .ends_with("give a user name and password in its URL")
        );
        let unwanted = explanation(&[5, 0xff], Some(&credentials)).await;
        assert_eq!(unwanted, Failure::lasting("accepts no user name and password"));
        let wrong = explanation(&[5, 2, 1, 1], Some(&credentials)).await;
        assert_eq!(
            wrong,
            Failure::lasting("does not accept the user name and password of its URL")
        );
        assert!(!missing.is_retryable);
        let unasked = explanation(&[5, 2], None).await;
        assert!(unasked.explanation.contains("was not offered (2)"));
    }

    #[tokio::test]
    async fn replies_are_told_in_words() {
        let server = server("gw.example:443");
        for (reply, words, try_next) in [
            (1, "general failure", true),
            (2, "rules do not allow", false),
            (3, "network is unreachable", true),
            (4, "host is unreachable", true),
            (5, "refused the connection", true),
            (6, "time to live", true),
            (7, "does not support CONNECT", false),
            (8, "type of address", true),
            (9, "does not say why (reply 9)", false),
            (255, "does not say why (reply 255)", false),
        ] {
            let says = [5, 0, 5, reply, 0, 1, 0, 0, 0, 0, 0, 0];
            let refused = run(&says, Destination::Named(&server), None).await.0.unwrap_err();
            assert!(refused.failure.explanation.contains(words), "{refused:?}");
            assert!(refused.failure.is_retryable);
            assert_eq!(refused.try_next, try_next, "{reply}");
        }
    }

    #[tokio::test]
    async fn other_protocols_are_recognised() {
        for (says, words) in [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), "a HTTP server"),
            (&[0, 91, 0, 0, 0, 0, 0, 0], "SOCKS 4"),
            (b"SSH-2.0", "does not speak SOCKS 5"),
            (&[5], "closed the connection before it answered"),
            (&[5, 0, 5, 0, 0], "closed the connection before it answered"),
            (&[5, 0, 5, 0, 0, 9], "unknown type (9)"),
            (&[5, 0, 1, 0, 0, 1], "does not speak SOCKS 5"),
        ] {
            let failure = explanation(says, None).await;
            assert!(failure.explanation.contains(words), "{failure:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_ends_in_a_connection_or_a_failure(says: Vec<u8>) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                for begin in [&[][..], &[5, 0], &[5, 2, 1, 0], &[5, 0, 5, 0, 0]] {
                    let says = [begin, &says].concat();
                    let server = server("gw.example:443");
                    let credentials = credentials();
                    if let Err(refused) = run(&says, Destination::Named(&server), Some(&credentials)).await.0 {
                        assert!(!refused.failure.explanation.contains("hunter2"));
                    }
                }
            });
        }
    }
}
