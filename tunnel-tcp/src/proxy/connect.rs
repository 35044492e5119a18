//! HTTP CONNECT (RFC 9110 §9.3.6).

use std::io;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, Take};
use tunnel_core::{HostPort, Text};

use super::{Credentials, Failure};

/// The longest head of a response, with those of the interim responses before it.
const MAX_HEAD: u64 = 16 * 1024;

/// The most header fields of a response.
const MAX_FIELDS: usize = 128;

/// Enough for the heads of proxies in practice. What is larger passes by the buffer later.
const BUFFER: usize = 1024;

/// Asks a proxy to connect to a server. What it gives is the pipe to the server, and may hold bytes of the server
/// already. The caller bounds the time.
pub(crate) async fn connect<S>(
    mut io: S,
    server: &HostPort,
    credentials: Option<&Credentials>,
) -> Result<BufReader<S>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    io.write_all(request(server, credentials).as_bytes()).await?;
    io.flush().await?;
    let mut io = BufReader::with_capacity(BUFFER, io);
    let response = read_response(&mut (&mut io).take(MAX_HEAD)).await?;
    match response.status {
        // Whatever the head says about a body, there is none.
        200..=299 => Ok(io),
        _ => Err(response.into_failure(server, credentials.is_some())),
    }
}

fn request(server: &HostPort, credentials: Option<&Credentials>) -> String {
    let mut request = format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n");
    if let Some(Credentials { user, password }) = credentials {
        let pair = [user, b":".as_slice(), password].concat();
        request.push_str("Proxy-Authorization: Basic ");
        BASE64_STANDARD.encode_string(pair, &mut request);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request
}

/// What matters of the head of a response.
struct Response {
    status: u16,
    reason: Text,
    /// The ways to authenticate that the proxy accepts.
    challenges: Vec<String>,
}

/// Reads the head of the final response, and nothing behind it.
async fn read_response(io: &mut Take<impl AsyncBufRead + Unpin>) -> Result<Response, Failure> {
    let mut head = Vec::new();
    loop {
        let begin = head.len();
        let len = io.read_until(b'\n', &mut head).await?;
        let line = &head[begin..];
        if len == 0 || line.last() != Some(&b'\n') {
            return Err(if io.limit() == 0 {
                Failure::temporary(format!("sent a head of more than {MAX_HEAD} bytes"))
            } else {
                cut_short(&head)
            });
        }
        // The first line decides soon whether this is HTTP at all.
        if begin == 0 || line == b"\r\n" || line == b"\n" {
            match parse(&head)? {
                Some(interim) if (100..=199).contains(&interim.status) && interim.status != 101 => head.clear(),
                Some(response) => return Ok(response),
                None => {}
            }
        }
    }
}

/// Parses a head, if it is complete.
fn parse(head: &[u8]) -> Result<Option<Response>, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let is_complete = response.parse(head).map_err(not_http)?.is_complete();
    let (true, Some(status)) = (is_complete, response.code) else {
        return Ok(None);
    };
    let challenges = response
        .headers
        .iter()
        .filter(|field| field.name.eq_ignore_ascii_case("proxy-authenticate"));
    Ok(Some(Response {
        status,
        reason: Text::new(response.reason.unwrap_or_default()),
        challenges: challenges.map(|field| scheme_of(field.value)).collect(),
    }))
}

/// The scheme with which a challenge begins (RFC 9110 §11.6.1), made safe to print.
fn scheme_of(challenge: &[u8]) -> String {
    let text = String::from_utf8_lossy(challenge);
    let scheme = text.trim().split([' ', ',']).next().unwrap_or_default();
    Text::new(scheme).as_str().to_owned()
}

impl Response {
    fn into_failure(self, server: &HostPort, with_credentials: bool) -> Failure {
        let Self {
            status,
            reason,
            challenges,
        } = self;
        let space = if reason.is_empty() { "" } else { " " };
        let mut explanation = format!("refused CONNECT to {server}: {status}{space}{reason}");
        if status != 407 {
            return Failure::temporary(explanation);
        }
        let knows_basic = challenges.is_empty() || challenges.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
        if !knows_basic {
            let wanted = challenges.join(" or ");
            explanation.push_str(&format!("; it asks for {wanted}, and this side knows Basic alone"));
        } else if with_credentials {
            explanation.push_str("; it does not accept the user name and password of its URL");
        } else {
            explanation.push_str("; give a user name and password in its URL");
        }
        // The same credentials will do no better the next time.
        Failure::lasting(explanation)
    }
}

fn not_http(error: httparse::Error) -> Failure {
    Failure::temporary(match error {
        httparse::Error::TooManyHeaders => "sent too many header fields",
        _ => "does not speak HTTP: is it a SOCKS proxy, or does it want TLS?",
    })
}

/// The proxy hung up before the head was complete.
fn cut_short(head: &[u8]) -> Failure {
    match parse(head) {
        Err(failure) => failure,
        Ok(_) => io::Error::from(io::ErrorKind::UnexpectedEof).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;

    fn server() -> HostPort {
        "gw.example:8091".parse().unwrap()
    }

    fn credentials() -> Credentials {
        Credentials {
            user: b"me".to_vec(),
            password: b"hunter2".to_vec(),
        }
    }

    /// What comes of a response in pieces of this size, and what was requested; on success what the server then says.
    async fn run(
        response: &[u8],
        piece: usize,
        credentials: Option<&Credentials>,
    ) -> (Result<Vec<u8>, Failure>, String) {
        let (near, mut far) = duplex(piece);
        let proxy = async {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(far.read_u8().await.unwrap());
            }
            // The client may have heard enough.
            let _ = far.write_all(response).await;
            drop(far);
            String::from_utf8(request).unwrap()
        };
        let client = async {
            let mut io = connect(near, &server(), credentials).await?;
            let mut rest = Vec::new();
            io.read_to_end(&mut rest).await?;
            Ok(rest)
        };
        tokio::join!(client, proxy)
    }

    async fn failure(response: &str, credentials: Option<&Credentials>) -> Failure {
        run(response.as_bytes(), 4096, credentials).await.0.unwrap_err()
    }

    #[tokio::test]
    async fn the_request_names_the_server() {
        let (result, request) = run(b"HTTP/1.1 200 OK\r\n\r\n", 64, None).await;
        assert_eq!(result.unwrap(), b"");
        assert_eq!(
            request,
            "CONNECT gw.example:8091 HTTP/1.1\r\nHost: gw.example:8091\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn credentials_are_sent_as_basic_authentication() {
        let (_, request) = run(b"HTTP/1.1 200 OK\r\n\r\n", 64, Some(&credentials())).await;
        assert!(
            request.ends_with("\r\nProxy-Authorization: Basic bWU6aHVudGVyMg==\r\n\r\n"),
            "{request}"
        );
    }

    #[tokio::test]
    async fn bytes_behind_the_head_are_the_servers() {
        let heads = [
            "HTTP/1.0 200 Connection established\r\n\r\n",
            "HTTP/1.1 200\n\n",
            "HTTP/1.1 204 x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nC: d\r\n\r\n",
        ];
        let early = vec![b'\n'; 5000];
        for head in heads {
            for piece in [1, 7, 64 * 1024] {
                let response = [head.as_bytes(), &early].concat();
                assert_eq!(run(&response, piece, None).await.0.unwrap(), early, "{head} {piece}");
            }
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_with_its_reason() {
        for status in [
            "403 Filtered",
            "502 Bad Gateway",
            "503 Service Unavailable",
            "504",
            "302 Found",
        ] {
            let failure = failure(
                &format!("HTTP/1.1 {status}\r\nContent-Length: 9\r\n\r\nno secret"),
                None,
            )
            .await;
            let expected = format!("refused CONNECT to gw.example:8091: {status}");
            assert_eq!(failure, Failure::temporary(expected));
        }
    }

    #[tokio::test]
    async fn missing_and_wrong_credentials_are_told_apart() {
        let asks = |scheme: &str| {
            format!("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: {scheme} realm=\"x\"\r\n\r\n")
        };
        let begin = "refused CONNECT to gw.example:8091: 407 Proxy Authentication Required; ";
        let missing = failure(&asks("Basic"), None).await;
        assert_eq!(
            missing,
            Failure::lasting(format!("{begin}give a user name and password in its URL"))
        );
        let wrong = failure(&asks("basic"), Some(&credentials())).await;
        assert_eq!(
            wrong,
            Failure::lasting(format!(
                "{begin}it does not accept the user name and password of its URL"
            ))
        );
        let other = failure(&asks("Negotiate"), Some(&credentials())).await;
        assert_eq!(
            other,
            Failure::lasting(format!("{begin}it asks for Negotiate, and this side knows Basic alone"))
        );
    }

    #[tokio::test]
    async fn what_a_proxy_says_is_made_safe_to_print() {
        let failure = failure("HTTP/1.1 500 a\tb\u{9b}31m\r\n\r\n", None).await;
        assert!(!failure.explanation.contains(['\t', '\u{9b}']), "{failure:?}");
    }

    #[tokio::test]
    async fn what_is_not_http_is_called_so() {
        for garbage in [
            "SSH-2.0-x\r\n",
            "\u{5}\u{ff}",
            "HTTP/1.1 2x0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA\u{0}: b\r\n\r\n",
        ] {
            let failure = failure(garbage, None).await;
            assert!(
                failure.explanation.starts_with("does not speak HTTP"),
                "{garbage:?} {failure:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_proxy_that_hangs_up_is_told_from_one_that_speaks_too_long() {
        for response in [
            "",
            "HTTP/1.1",
            "HTTP/1.1 200 OK\r\nA: b\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
        ] {
            let failure = failure(response, None).await;
            assert_eq!(failure, Failure::temporary("closed the connection before it answered"));
        }
        let line = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(17_000));
        let lines = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: bbbbbbbbbbbbbbbbbbbbb\r\n".repeat(700));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(700);
        for response in [line, lines, interim] {
            let failure = failure(&response, None).await;
            assert_eq!(failure, Failure::temporary("sent a head of more than 16384 bytes"));
        }
        let fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(129));
        let failure = failure(&fields, None).await;
        assert_eq!(failure, Failure::temporary("sent too many header fields"));
    }

    proptest! {
        #[test]
        fn any_response_ends_in_a_connection_or_a_failure(response: Vec<u8>, piece in 1usize..64) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                for begin in ["", "HTTP/1.1 200 ", "HTTP/1.1 407 x\r\nProxy-Authenticate: "] {
                    let response = [begin.as_bytes(), &response].concat();
                    let credentials = credentials();
                    if let Err(failure) = run(&response, piece, Some(&credentials)).await.0 {
                        assert!(!failure.explanation.contains("hunter2"));
                    }
                }
            });
        }
    }
}
