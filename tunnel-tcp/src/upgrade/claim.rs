//! Claim and welcome in header fields.

use http::{HeaderMap, HeaderValue, header};
use tunnel_core::{
    Claim, CloseCode, Rejection, Secret, Welcome,
    proto::{FrameKind, Message},
};

use super::fields::{CLAIM, FieldError, WELCOME, decode, encode};

/// What an agent says of itself, in the head of its request.
#[derive(Debug)]
pub struct ClaimFields {
    /// The length of the claim's field, to explain requests that are too long for something on the way.
    pub length: usize,
}

impl ClaimFields {
    /// Adds the claim. Where it can, the credential travels in the field Authorization (RFC 6750 §2.1), as proxies and
    /// their logs expect it; where that is taken, and where its bytes do not fit, in the claim.
    pub fn put(claim: &Claim, headers: &mut HeaderMap) -> Self {
        // It is text for people, and a field of HTTP takes less than that.
        if !claim.software.is_empty()
            && let Ok(software) = HeaderValue::from_str(claim.software.as_str())
        {
            headers.entry(header::USER_AGENT).or_insert(software);
        }
        let mut claim = claim.clone();
        if !headers.contains_key(header::AUTHORIZATION)
            && let Some(bearer) = claim.credential.as_ref().and_then(to_bearer)
        {
            headers.insert(header::AUTHORIZATION, bearer);
            claim.credential = None;
        }
        let mut frame = encode(&claim.encode());
        frame.set_sensitive(true);
        let length = frame.len();
        headers.insert(CLAIM, frame);
        Self { length }
    }
}

/// The claim of a request, with the credential in it, wherever it came from; or what to answer.
pub fn claim(headers: &HeaderMap) -> Result<Claim, Rejection> {
    let mut claim = match decode(headers, &CLAIM, &[FrameKind::Claim]) {
        Ok(Message::Claim(claim)) => claim,
        Ok(other) => {
            let text = format!("a {} frame came as the claim", other.kind());
            return Err(Rejection::new(CloseCode::PROTOCOL, text));
        }
        Err(error) => {
            let code = match &error {
                FieldError::Frame(error) => error.close_code(),
                _ => CloseCode::PROTOCOL,
            };
            return Err(Rejection::new(code, error.to_string()));
        }
    };
    if claim.credential.is_none() {
        claim.credential = bearer(headers).and_then(|token| Secret::new(token).ok());
    }
    Ok(claim)
}

/// Adds the welcome to a response 101.
pub fn welcome_field(welcome: &Welcome, headers: &mut HeaderMap) {
    headers.insert(WELCOME, encode(&welcome.encode()));
}

/// The welcome of a response 101; an error says what is wrong with it.
pub fn welcome(headers: &HeaderMap) -> Result<Welcome, String> {
    match decode(headers, &WELCOME, &[FrameKind::Welcome]) {
        Ok(Message::Welcome(welcome)) => Ok(welcome),
        Ok(other) => Err(format!("it sent a {} frame as its welcome", other.kind())),
        Err(error) => Err(error.to_string()),
    }
}

/// The token of the field Authorization, if its scheme is Bearer.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && is_token68(token.as_bytes())).then_some(token)
}

/// A credential for the field Authorization, if its bytes are ones that it may hold.
fn to_bearer(credential: &Secret) -> Option<HeaderValue> {
    let token = credential.expose();
    if !is_token68(token) {
        return None;
    }
    let mut value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Whether bytes can follow "Bearer " (RFC 9110 §11.2).
fn is_token68(bytes: &[u8]) -> bool {
    let padding = bytes.iter().rev().take_while(|byte| **byte == b'=').count();
    let token = &bytes[..bytes.len() - padding];
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    !token.is_empty() && token.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel_core::Generation;

    fn with(credential: &[u8]) -> Claim {
        let mut claim = Claim::new("node-7".parse().unwrap(), Generation(3));
        claim.credential = Some(Secret::new(credential).unwrap());
        claim
    }

    #[test]
    fn a_claim_arrives_with_its_credential() {
        for credential in [&b"s3cr3t"[..], b"two words", b"\xff\x00"] {
            let mut headers = HeaderMap::new();
            ClaimFields::put(&with(credential), &mut headers);
            assert_eq!(claim(&headers).unwrap(), with(credential));
            let fits = credential == b"s3cr3t";
            assert_eq!(headers.contains_key(header::AUTHORIZATION), fits);
            assert!(headers[CLAIM].is_sensitive());
        }
    }

    #[test]
    fn an_authorization_for_somebody_on_the_way_stays() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
        ClaimFields::put(&with(b"s3cr3t"), &mut headers);
        assert_eq!(headers[header::AUTHORIZATION], "Basic YTpi");
        assert_eq!(claim(&headers).unwrap(), with(b"s3cr3t"));
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

    #[test]
    fn a_claim_that_is_none_is_answered() {
        assert_eq!(claim(&HeaderMap::new()).unwrap_err().code, CloseCode::PROTOCOL);
    }
}
