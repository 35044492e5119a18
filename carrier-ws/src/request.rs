//! What an agent asks for (RFC 6455 §4.1).

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header, response};
use http_body_util::Empty;
use tungstenite::handshake::{client::generate_key, derive_accept_key};
use tunnel_core::{Claim, DialError, Welcome};
use tunnel_tcp::upgrade::{self, Asked, ClaimFields, has_token};

use crate::{PROTOCOL, SUBPROTOCOL, WsUrl};

/// An upgrade that waits for its answer.
#[derive(Debug)]
pub(crate) struct Ask {
    key: String,
    claim: ClaimFields,
    /// The length of the whole head, about.
    head_length: usize,
}

impl Ask {
    /// Makes a request and what is needed to check its answer. `extra` are the fields of the configuration.
    pub(crate) fn new(
        url: &WsUrl,
        extra: &HeaderMap,
        claim: &Claim,
    ) -> Result<(Self, Request<Empty<Bytes>>), DialError> {
        let key = generate_key();
        let mut headers = HeaderMap::new();
        if !extra.contains_key(header::HOST) {
            headers.insert(header::HOST, value(&url.authority())?);
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(header::SEC_WEBSOCKET_KEY, value(&key)?);
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        for (name, value) in extra {
            headers.append(name, value.clone());
        }
        let claim = ClaimFields::put(claim, &mut headers);
        let fields = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4);
        let head_length = fields.sum::<usize>() + url.path().len();
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = url
            .path()
            .parse()
            .map_err(|error| DialError::Unusable(format!("the path of {url} cannot be asked for: {error}")))?;
        *request.headers_mut() = headers;
        let ask = Self {
            key,
            claim,
            head_length,
        };
        Ok((ask, request))
    }

    /// Reads a response.
    pub(crate) fn welcome(&self, url: &WsUrl, remote: &str, response: &response::Parts) -> Result<Welcome, DialError> {
        if response.status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(self.explain(url, remote, response));
        }
        self.switched(response).map_err(|detail| DialError::Protocol {
            remote: remote.to_owned(),
            detail,
        })
    }

    /// Reads a response 101; an error says what is wrong with it.
    fn switched(&self, response: &response::Parts) -> Result<Welcome, String> {
        let headers = &response.headers;
        let is = |name, expected: &str| headers.get(name).is_some_and(|value| value == expected);
        if !has_token(headers, &header::UPGRADE, PROTOCOL) || !has_token(headers, &header::CONNECTION, "upgrade") {
            return Err("it switched to something that is not WebSocket".to_owned());
        }
        if !is(header::SEC_WEBSOCKET_ACCEPT, &derive_accept_key(self.key.as_bytes())) {
            return Err("it answered somebody else's upgrade: Sec-WebSocket-Accept does not fit".to_owned());
        }
        if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
            return Err("it chose a WebSocket extension, and none was offered".to_owned());
        }
        if !is(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
            return Err(format!(
                "it speaks WebSocket and not the subprotocol {SUBPROTOCOL}: is the path right?"
            ));
        }
        upgrade::welcome(headers)
    }

    /// What a response means that is no upgrade.
    fn explain(&self, url: &WsUrl, remote: &str, response: &response::Parts) -> DialError {
        let asked = Asked {
            what: &format!("the WebSocket upgrade at {}", url.path()),
            protocol: PROTOCOL,
            head_length: self.head_length,
            claim_length: self.claim.length,
            secure: url.secure_instead(),
        };
        upgrade::response(remote, asked, response)
    }
}

fn value(text: &str) -> Result<HeaderValue, DialError> {
    HeaderValue::from_str(text).map_err(|_| DialError::Unusable(format!("`{text}` does not fit into a header field")))
}
