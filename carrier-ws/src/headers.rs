//! The header fields of the upgrade, and frames inside them (`docs/wire.md` §10.2).

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tunnel_core::proto::{FrameDecoder, FrameError, FrameKind, Message};

/// The WebSocket subprotocol (RFC 6455 §1.9). The number changes only if the mux or these headers could no longer be
/// told apart from within; the protocol's own versions are in the claim.
pub const SUBPROTOCOL: &str = "tunnel.v1";

/// The agent's claim, in the request.
pub(crate) const CLAIM: HeaderName = HeaderName::from_static("tunnel-claim");
/// The server's welcome, in the response 101.
pub(crate) const WELCOME: HeaderName = HeaderName::from_static("tunnel-welcome");
/// The server's rejection, in any other response.
pub(crate) const REJECTION: HeaderName = HeaderName::from_static("tunnel-rejection");

/// A frame as the value of a field. Its alphabet is that of header values, so it cannot fail.
pub(crate) fn encode(frame: &[u8]) -> HeaderValue {
    HeaderValue::from_str(&BASE64_URL_SAFE_NO_PAD.encode(frame)).unwrap_or(HeaderValue::from_static(""))
}

/// Why there is no message in a field.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FieldError {
    #[error("there is no header field {0}")]
    Missing(HeaderName),
    #[error("the header field {0} is there more than once")]
    Twice(HeaderName),
    #[error("the header field {0} is not base64url")]
    Encoding(HeaderName),
    #[error("the header field {0} does not hold exactly one frame")]
    Count(HeaderName),
    #[error("{0}")]
    Frame(#[source] FrameError),
}

/// The one message of a field.
pub(crate) fn decode(
    headers: &HeaderMap,
    name: &HeaderName,
    kinds: &'static [FrameKind],
) -> Result<Message, FieldError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or_else(|| FieldError::Missing(name.clone()))?;
    if values.next().is_some() {
        return Err(FieldError::Twice(name.clone()));
    }
    let frame = BASE64_URL_SAFE_NO_PAD
        .decode(value.as_bytes())
        .map_err(|_| FieldError::Encoding(name.clone()))?;
    let mut decoder = FrameDecoder::expecting(kinds);
    decoder.push(frame.into());
    let first = decoder.next().map_err(FieldError::Frame)?;
    let second = decoder.next().map_err(FieldError::Frame)?;
    decoder.finish().map_err(FieldError::Frame)?;
    match (first, second) {
        (Some(message), None) => Ok(message),
        _ => Err(FieldError::Count(name.clone())),
    }
}

/// The items of all comma lists of a field (RFC 9110 §5.6.1).
pub(crate) fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether one of them is this token, in any case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    items(headers, name).any(|item| item.eq_ignore_ascii_case(token))
}

/// The token of the field Authorization, if its scheme is Bearer (RFC 6750 §2.1).
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && is_token68(token.as_bytes())).then_some(token)
}

/// Whether bytes can follow "Bearer " (RFC 9110 §11.2).
pub(crate) fn is_token68(bytes: &[u8]) -> bool {
    let padding = bytes.iter().rev().take_while(|byte| **byte == b'=').count();
    let token = &bytes[..bytes.len() - padding];
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    !token.is_empty() && token.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel_core::{Claim, CloseCode, Generation, Rejection, Welcome};

    fn map(values: &[HeaderValue]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(REJECTION, value.clone());
        }
        headers
    }

    #[test]
    fn a_frame_survives_a_header() {
        let rejection = Rejection::new(CloseCode::OVERLOADED, "too many");
        let headers = map(&[encode(&rejection.encode())]);
        let decoded = decode(&headers, &REJECTION, &[FrameKind::Rejection]).unwrap();
        assert_eq!(decoded, Message::Rejection(rejection));
    }

    #[test]
    fn the_document_shows_what_is_sent() {
        let document = include_str!("../../docs/wire.md");
        let claim = Claim::new("node-7".parse().unwrap(), Generation(1)).encode();
        let welcome = Welcome::new("server-1".parse().unwrap()).encode();
        for (name, frame) in [("Tunnel-Claim", claim), ("Tunnel-Welcome", welcome)] {
            let line = format!("\n{name}: {}\n", encode(&frame).to_str().unwrap());
            assert!(document.contains(&line), "no line {line}");
        }
    }

    #[test]
    fn anything_but_one_frame_is_refused() {
        let frame = Rejection::new(CloseCode::OVERLOADED, "too many").encode();
        let twice = [&frame[..], &frame[..]].concat();
        for (values, problem) in [
            (vec![], "no header field"),
            (vec![encode(&frame), encode(&frame)], "more than once"),
            (vec![HeaderValue::from_static("Aw==")], "not base64url"),
            (vec![HeaderValue::from_static("/+")], "not base64url"),
            (vec![encode(&twice)], "exactly one frame"),
            (vec![encode(b"")], "exactly one frame"),
            (vec![encode(&frame[..3])], "ended inside"),
            (vec![encode(b"\x01\x00")], "came where"),
        ] {
            let error = decode(&map(&values), &REJECTION, &[FrameKind::Rejection]).unwrap_err();
            assert!(error.to_string().contains(problem), "{error}");
        }
    }

    #[test]
    fn tokens_are_found_in_lists() {
        let mut headers = HeaderMap::new();
        headers.append(header::CONNECTION, HeaderValue::from_static("keep-alive , upGrade"));
        headers.append(header::CONNECTION, HeaderValue::from_static("x"));
        for (token, found) in [("upgrade", true), ("x", true), ("close", false), ("keep", false)] {
            assert_eq!(has_token(&headers, &header::CONNECTION, token), found, "{token}");
        }
    }

    #[test]
    fn a_bearer_token_is_a_token68() {
        for (value, token) in [
            ("Bearer abc.DEF-123_~+/==", Some("abc.DEF-123_~+/==")),
            ("bearer  x", Some("x")),
            ("Bearer", None),
            ("Bearer =", None),
            ("Bearer a b", None),
            ("Bearer a=b", None),
            ("Basic abc", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(bearer(&headers), token, "{value}");
        }
    }
}
