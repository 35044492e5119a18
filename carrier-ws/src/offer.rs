//! What an agent asks for, as a server reads it (RFC 6455 §4.2).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header, request};
use http_body_util::Full;
use tungstenite::handshake::derive_accept_key;
use tunnel_core::{Claim, Welcome};
use tunnel_tcp::upgrade::{self, Refused};

use crate::{PROTOCOL, SUBPROTOCOL};

/// The length of the nonce in `Sec-WebSocket-Key`, as base64 (RFC 6455 §4.1).
const KEY_LENGTH: usize = 24;

/// A well-formed upgrade to the tunnel.
#[derive(Debug)]
pub(crate) struct Offer {
    /// With the credential in it, wherever it came from.
    pub(crate) claim: Claim,
    accept: String,
}

/// Whether a request asks for a WebSocket at all, rightly or not.
fn is_upgrade(headers: &HeaderMap) -> bool {
    upgrade::has_token(headers, &header::UPGRADE, PROTOCOL)
}

impl Offer {
    /// Reads the head of a request.
    pub(crate) fn read(request: &request::Parts, has_body: bool) -> Result<Self, Refused> {
        Self::check(request, has_body).map_err(|mut refused| {
            if !is_upgrade(&request.headers) {
                refused.error = upgrade::stranger(request, refused.response.status());
            }
            refused
        })
    }

    fn check(request: &request::Parts, has_body: bool) -> Result<Self, Refused> {
        let headers = &request.headers;
        let bad = |detail: &str| Refused::malformed(StatusCode::BAD_REQUEST, detail);
        if request.method != Method::GET {
            return Err(
                Refused::malformed(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket begins with GET")
                    .with(header::ALLOW, "GET"),
            );
        }
        let asks = is_upgrade(headers) && upgrade::has_token(headers, &header::CONNECTION, "upgrade");
        if request.version != Version::HTTP_11 || !asks {
            let detail = "a tunnel-server: agents connect here by WebSocket";
            return Err(Refused::malformed(StatusCode::UPGRADE_REQUIRED, detail)
                .with(header::UPGRADE, PROTOCOL)
                .with(header::CONNECTION, "upgrade, close"));
        }
        if headers
            .get(header::SEC_WEBSOCKET_VERSION)
            .is_none_or(|version| version != "13")
        {
            return Err(Refused::malformed(
                StatusCode::UPGRADE_REQUIRED,
                "only version 13 of WebSocket is spoken here",
            )
            .with(header::UPGRADE, PROTOCOL)
            .with(header::CONNECTION, "upgrade, close")
            .with(header::SEC_WEBSOCKET_VERSION, "13"));
        }
        if has_body {
            return Err(bad("a WebSocket begins without a body"));
        }
        let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
        let accept = match (keys.next(), keys.next()) {
            (Some(key), None) if key.len() == KEY_LENGTH => derive_accept_key(key.as_bytes()),
            _ => return Err(bad("Sec-WebSocket-Key must be there once, with 16 bytes as base64")),
        };
        if !upgrade::items(headers, &header::SEC_WEBSOCKET_PROTOCOL).any(|item| item == SUBPROTOCOL) {
            return Err(bad(&format!("only the subprotocol {SUBPROTOCOL} is spoken here")));
        }
        let claim = upgrade::claim(headers).map_err(|rejection| Refused::rejection(rejection, PROTOCOL))?;
        Ok(Self { claim, accept })
    }

    /// The response that makes the connection a tunnel.
    pub(crate) fn accept(&self, welcome: &Welcome) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(accept) = HeaderValue::from_str(&self.accept) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        upgrade::welcome_field(welcome, headers);
        response
    }
}
