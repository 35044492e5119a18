//! The `Proxy-Status` field (RFC 9209) as a structured-field list (RFC 9651).

use std::fmt::{self, Write as _};

use tunnel_core::{AgentId, RefusalKind, ServerId};

/// The value of `Proxy-Status` for a refusal: the agent's member first if the agent refused, because it is closer to
/// the target (RFC 9209 §2), then the server's. The one that refused carries `error` and `details`.
pub(crate) struct ProxyStatus<'a> {
    pub(crate) agent: Option<&'a AgentId>,
    pub(crate) server: &'a ServerId,
    pub(crate) kind: RefusalKind,
    pub(crate) details: &'a str,
}

impl fmt::Display for ProxyStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = self.agent.map_or(self.server.as_str(), AgentId::as_str);
        // The registered names of the errors are tokens.
        write!(
            f,
            "{}; error={}; details={}",
            Item(by),
            self.kind.name(),
            Quoted(self.details)
        )?;
        match self.agent {
            Some(_) => write!(f, ", {}", Item(self.server.as_str())),
            None => Ok(()),
        }
    }
}

/// A bare item: a token if the text can be one, else a string (RFC 9651 §3.3.3 and §3.3.4).
struct Item<'a>(&'a str);

impl fmt::Display for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let starts = self.0.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*');
        let is_token_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
        if starts && self.0.bytes().all(is_token_byte) {
            f.write_str(self.0)
        } else {
            write!(f, "{}", Quoted(self.0))
        }
    }
}

/// A string: printable ASCII with `"` and `\` escaped; whatever else there is becomes a question mark.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => {
                    f.write_char('\\')?;
                    f.write_char(c)?;
                }
                ' '..='~' => f.write_char(c)?,
                _ => f.write_char('?')?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_agent_comes_before_the_server() {
        let status = ProxyStatus {
            agent: Some(&"node-7".parse().unwrap()),
            server: &"gw-1".parse().unwrap(),
            kind: RefusalKind::ConnectionRefused,
            details: "dial 10.0.0.1:443: connection refused",
        };
        assert_eq!(
            status.to_string(),
            r#"node-7; error=connection_refused; details="dial 10.0.0.1:443: connection refused", gw-1"#
        );
    }

    #[test]
    fn what_is_no_token_is_quoted() {
        let status = ProxyStatus {
            agent: None,
            server: &"7.example".parse().unwrap(),
            kind: RefusalKind::HttpRequestError,
            details: "say \"hé\\llo\"",
        };
        assert_eq!(
            status.to_string(),
            r#""7.example"; error=http_request_error; details="say \"h?\\llo\"""#
        );
    }

    proptest! {
        #[test]
        fn no_text_leaves_its_quotes(text in any::<String>()) {
            let quoted = Quoted(&text).to_string();
            prop_assert!(quoted.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
            let mut rest = inner.chars();
            while let Some(c) = rest.next() {
                prop_assert_ne!(c, '"');
                if c == '\\' {
                    prop_assert!(matches!(rest.next(), Some('"' | '\\')));
                }
            }
        }
    }
}
