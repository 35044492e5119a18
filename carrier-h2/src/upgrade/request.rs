//! What an agent asks for.

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header, response};
use http_body_util::Empty;
use tunnel_core::{Claim, DialError, HostPort, Welcome};
use tunnel_tcp::upgrade::{Asked, ClaimFields, has_token, response, welcome};

use crate::{PROTOCOL, config::H2Config};

/// An upgrade that waits for its answer.
#[derive(Debug)]
pub(crate) struct Ask {
    /// What is asked for, for people.
    what: String,
    claim_length: usize,
    head_length: usize,
    /// What a URL begins with that means TLS, if it is asked without.
    secure: Option<&'static str>,
}

impl Ask {
    /// Makes a request, and what is needed to understand its answer.
    pub(crate) fn new(
        server: &HostPort,
        secure: Option<&'static str>,
        config: &H2Config,
        claim: &Claim,
    ) -> Result<(Self, Request<Empty<Bytes>>), DialError> {
        let host = match &config.host {
            Some(host) => host.clone(),
            None => HeaderValue::from_str(&server.to_string())
                .map_err(|_| DialError::Unusable(format!("{server} does not fit into a header field")))?,
        };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::from(config.path.clone());
        let headers = request.headers_mut();
        headers.insert(header::HOST, host);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        let claim = ClaimFields::put(claim, headers);
        let fields = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4);
        let ask = Self {
            what: format!("the upgrade to {PROTOCOL} at {}", config.path),
            claim_length: claim.length,
            head_length: fields.sum::<usize>() + config.path.as_str().len(),
            secure,
        };
        Ok((ask, request))
    }

    /// Reads a response.
    pub(crate) fn welcome(&self, remote: &str, head: &response::Parts) -> Result<Welcome, DialError> {
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            let asked = Asked {
                what: &self.what,
                protocol: PROTOCOL,
                head_length: self.head_length,
                claim_length: self.claim_length,
                secure: self.secure,
            };
            return Err(response(remote, asked, head));
        }
        let broken = |detail| DialError::Protocol {
            remote: remote.to_owned(),
            detail,
        };
        if !has_token(&head.headers, &header::UPGRADE, PROTOCOL) {
            return Err(broken(format!("it switched to something that is not {PROTOCOL}")));
        }
        welcome(&head.headers).map_err(broken)
    }
}
