//! Text from a peer, made safe to print.

use std::fmt;

/// A short, single-line text for people: an error message or a reason.
///
/// It holds at most [`Text::MAX`] bytes and no control characters, so that a peer cannot forge log lines or
/// flood them; what does not fit is cut, what may not be there is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Text(String);

impl Text {
    /// The longest text, in bytes of UTF-8.
    pub const MAX: usize = 1024;

    /// Makes one of any text, cutting it at a character boundary and replacing control characters.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut cut = text.len().min(Self::MAX);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        // A replaced control character must not make the text longer, so it becomes a space.
        let clean = text[..cut]
            .chars()
            .map(|c| if is_unprintable(c) { ' ' } else { c })
            .collect();
        Self(clean)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Control characters, line and paragraph separators, and the marks that reorder bidirectional text.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::new(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_cannot_be_forged() {
        assert_eq!(
            Text::new("no\r\nINFO all is well\u{202e}").as_str(),
            "no  INFO all is well "
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = Text::new(&"é".repeat(Text::MAX));
        assert_eq!(text.as_str().len(), Text::MAX);
        assert_eq!(
            Text::new(&format!("x{}", "é".repeat(Text::MAX))).as_str().len(),
            Text::MAX - 1
        );
    }
}
