//! Reading the request head from a client.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::timeout,
};
use tunnel_core::RefusalKind;

use crate::{
    config::Config,
    request::{self, Parsed, Request},
    response::RefusalResponse,
};

/// Enough for the heads that clients send in practice.
const FIRST_READ: usize = 1024;

/// Why there is no request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoRequest {
    /// The client left, after this many bytes.
    Left(usize),
    /// What it sent is refused.
    Refused(RefusalResponse),
}

/// Reads a request head into `buffer`, which then holds the bytes behind it. At most `max_head` bytes are read.
pub(crate) async fn read<S>(socket: &mut S, buffer: &mut BytesMut, config: &Config) -> Result<Request, NoRequest>
where
    S: AsyncRead + Unpin,
{
    timeout(config.head_timeout, read_untimed(socket, buffer, config))
        .await
        .unwrap_or_else(|_| Err(NoRequest::Refused(too_slow(config.head_timeout))))
}

async fn read_untimed<S>(socket: &mut S, buffer: &mut BytesMut, config: &Config) -> Result<Request, NoRequest>
where
    S: AsyncRead + Unpin,
{
    // Parsing starts from the front each time, so it is done when the head may be complete, and else only when there
    // is twice as much as the last time, to notice garbage early: a client that sends byte by byte costs no more than
    // one that does not.
    let mut parse_at = 1;
    loop {
        let seen = buffer.len();
        if buffer.capacity() == seen {
            buffer.reserve(seen.max(FIRST_READ).min(config.max_head - seen));
        }
        match socket.read_buf(&mut buffer.limit(config.max_head - seen)).await {
            Ok(0) => {
                return match request::parse(buffer, config.max_headers) {
                    Parsed::Refused(response) => Err(NoRequest::Refused(response)),
                    _ => Err(NoRequest::Left(seen)),
                };
            }
            Ok(_) => {}
            Err(_) => return Err(NoRequest::Left(seen)),
        }
        let full = buffer.len() >= config.max_head;
        if !full && buffer.len() < parse_at && !has_blank_line(buffer, seen) {
            continue;
        }
        parse_at = buffer.len() * 2;
        match request::parse(buffer, config.max_headers) {
            Parsed::Request(request, len) => {
                let _head = buffer.split_to(len);
                return Ok(request);
            }
            Parsed::Refused(response) => return Err(NoRequest::Refused(response)),
            Parsed::Partial if full => return Err(NoRequest::Refused(too_large(config.max_head))),
            Parsed::Partial => {}
        }
    }
}

/// Whether an empty line ends at `from` or later.
fn has_blank_line(bytes: &[u8], from: usize) -> bool {
    let tail = &bytes[from.saturating_sub(2)..];
    tail.windows(2).any(|pair| pair == b"\n\n") || tail.windows(3).any(|triple| triple == b"\n\r\n")
}

fn too_slow(limit: Duration) -> RefusalResponse {
    let text = format!("the request head did not arrive within {limit:?}");
    RefusalResponse::new(408, RefusalKind::HttpRequestError, text)
}

fn too_large(limit: usize) -> RefusalResponse {
    let text = format!("the request head is longer than {limit} bytes");
    RefusalResponse::new(431, RefusalKind::HttpRequestError, text)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        io,
        pin::Pin,
        task::{Context, Poll},
    };

    use proptest::prelude::*;
    use tokio::io::{AsyncWriteExt as _, ReadBuf};

    use super::*;

    fn config() -> Config {
        let mut config = Config::new("gw".parse().unwrap());
        config.max_head = 512;
        config.max_headers = 8;
        config
    }

    /// What is made of `bytes` that arrive in pieces of these sizes, the last of which repeats.
    fn outcome(bytes: &[u8], sizes: &[usize]) -> (Result<Request, NoRequest>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut pieces = Pieces::new(bytes, sizes);
            let mut buffer = BytesMut::new();
            let result = read(&mut pieces, &mut buffer, &config()).await;
            let capacity = buffer.capacity();
            assert!(capacity <= config().max_head + FIRST_READ, "{capacity}");
            // What was not read belongs behind what was.
            let mut rest = buffer.to_vec();
            pieces.read_to_end(&mut rest).await.unwrap();
            (result, rest)
        })
    }

    /// Gives bytes piece by piece, then the end.
    struct Pieces(VecDeque<Vec<u8>>);

    impl Pieces {
        /// Cuts `bytes` into pieces of these sizes, the last of which repeats.
        fn new(mut bytes: &[u8], sizes: &[usize]) -> Self {
            let mut sizes = sizes.iter().copied();
            let mut size = 1;
            let mut pieces = VecDeque::new();
            while !bytes.is_empty() {
                size = sizes.next().unwrap_or(size);
                let (piece, rest) = bytes.split_at(size.min(bytes.len()));
                pieces.push_back(piece.to_vec());
                bytes = rest;
            }
            Self(pieces)
        }
    }

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let rest = piece.split_off(piece.len().min(buf.remaining()));
                buf.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let text = |text: &str| text.as_bytes().to_vec();
        let first = prop_oneof![
            4 => Just(text("CONNECT a.example:443 HTTP/1.1\r\n")),
            1 => Just(text("CONNECT [::1]:443 HTTP/1.0\n")),
            1 => Just(text("GET / HTTP/1.1\r\n")),
            1 => Just(text("CONNECT a HTTP/3.0\r\n")),
            1 => Just(text("")),
        ];
        let pieces = prop_oneof![
            4 => Just(text("Host: 127.0.0.1\r\n")),
            1 => Just(text("Tunnel-Agent: node-7\r\n")),
            1 => Just(text("Bad header\r\n")),
            1 => Just(text("X-Long: ")),
            1 => "[a-z]{0,300}".prop_map(String::into_bytes),
            4 => Just(text("\r\n")),
            1 => Just(text("\n")),
            1 => Just(text("\r")),
            1 => prop::collection::vec(any::<u8>(), 0..40),
        ];
        let rest = prop::collection::vec(pieces, 0..12);
        (first, rest).prop_map(|(first, rest)| [first, rest.concat()].concat())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(bytes in heads(), sizes in prop::collection::vec(1usize..40, 1..20)) {
            let whole = outcome(&bytes, &[usize::MAX]);
            let split = outcome(&bytes, &sizes);
            prop_assert_eq!(&whole.0, &split.0);
            if whole.0.is_ok() {
                prop_assert_eq!(whole.1, split.1);
            }
        }

        #[test]
        fn garbage_is_refused_or_left_alone(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            match outcome(&bytes, &[7]).0 {
                Ok(request) => prop_assert!(false, "{request:?}"),
                Err(NoRequest::Left(len)) => prop_assert!(len == bytes.len() && len < config().max_head),
                Err(NoRequest::Refused(response)) => prop_assert!((400..=505).contains(&response.status)),
            }
        }
    }

    #[test]
    fn bytes_behind_the_head_are_not_read_as_a_request() {
        let head = "CONNECT a.example:1 HTTP/1.1\r\n\r\n";
        let behind = "GET /admin HTTP/1.1\r\nHost: x\r\n\r\n";
        for sizes in [1, 7, 1000] {
            let (request, rest) = outcome(format!("{head}{behind}").as_bytes(), &[sizes]);
            assert_eq!(request.unwrap().target.to_string(), "tcp://a.example:1");
            assert_eq!(rest, behind.as_bytes());
        }
    }

    #[test]
    fn a_head_may_be_as_long_as_the_limit_and_no_longer() {
        let head = |len: usize| {
            let head = "CONNECT a.example:1 HTTP/1.1\r\nX: ";
            format!("{head}{}\r\n\r\n", "y".repeat(len - head.len() - 4))
        };
        assert!(outcome(head(512).as_bytes(), &[5]).0.is_ok());
        match outcome(head(513).as_bytes(), &[5]).0 {
            Err(NoRequest::Refused(response)) => assert_eq!(response.status, 431),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_byte_by_byte_has_no_more_time() {
        let (mut client, mut server) = tokio::io::duplex(64);
        let slow = tokio::spawn(async move {
            for byte in b"CONNECT a.example:1 HTTP/1.1\r\nHost: a.example\r\n".iter().cycle() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if client.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
        });
        let start = tokio::time::Instant::now();
        match read(&mut server, &mut BytesMut::new(), &config()).await {
            Err(NoRequest::Refused(response)) => assert_eq!(response.status, 408),
            other => panic!("{other:?}"),
        }
        assert_eq!(start.elapsed(), config().head_timeout);
        drop(server);
        slow.await.unwrap();
    }
}
